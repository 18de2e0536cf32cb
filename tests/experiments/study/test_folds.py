import numpy as np
import pytest

from experiments.study import folds
from hier_jax.errors import UserError
from tests.support import small_study

DATA = small_study.make()


@pytest.mark.parametrize('split', ['A', 'B'])
def test_folds_cut_the_train_classes_and_touch_no_test_class(split):
  test = set(np.flatnonzero(DATA.test[split]))
  held = []
  for fold in range(folds.FOLDS):
    part = folds.part(DATA, split, fold)
    fit, out = (set(DATA.labels[rows]) for rows in (part.train, part.held))
    assert not (fit & out) and not ((fit | out) & test)
    assert fit | out == set(range(small_study.CLASSES)) - test
    held += sorted(out)
  assert sorted(held) == sorted(set(range(small_study.CLASSES)) - test)


def test_test_trains_on_all_train_classes():
  part = folds.part(DATA, 'B', folds.TEST)
  assert set(DATA.labels[part.held]) == set(np.flatnonzero(DATA.test['B']))
  assert set(part.train_classes) == set(np.flatnonzero(~DATA.test['B']))
  labels = part.train_classes[part.train_labels]
  np.testing.assert_array_equal(labels, DATA.labels[part.train])


def test_low_shot_keeps_images_of_every_class():
  part = folds.part(DATA, 'A', 0, images=3)
  assert np.bincount(part.train_labels).tolist() == [3] * 9
  full = folds.part(DATA, 'A', 0)
  assert set(part.train) < set(full.train)


@pytest.mark.parametrize(('split', 'fold'), [('C', 0), ('A', 5), ('A', 'all')])
def test_unknown_part(split, fold):
  with pytest.raises(UserError, match='unknown'):
    folds.part(DATA, split, fold)


def test_split_of_other_images_is_told():
  with pytest.raises(UserError, match='--features'):
    folds.part(DATA, 'icons', 0)
