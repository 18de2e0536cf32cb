"""From a config to batches: samplers, caches, and views made on devices."""

import jax
import numpy as np
import pytest

from hier_jax.data import datasets
from hier_jax.data.datasets import Split
from hier_jax.errors import UserError
from hier_jax.training.distributed import mapping
from hier_jax.training.run.inputs import load_splits, ranked_splits
from tests.support import training_data


@pytest.fixture(scope='module')
def split():
  return training_data.splits()['train']


def batches(split, steps=2, **settings):
  """Batches as a step sees them, those of all devices together."""
  inputs = training_data.inputs(training_data.config(**settings), split)

  def seen(state, batch):
    return state, jax.lax.all_gather(batch, mapping.AXIS, tiled=True)

  step = mapping.map_step(inputs.with_views(seen))
  made = inputs.batches(3, steps)
  return [jax.device_get(step(np.zeros(()), batch)[1]) for batch in made]


@pytest.mark.parametrize(
  ('settings', 'own', 'message'),
  [
    ({'eval.patience': 2}, False, 'patience is 2, but nothing is held out'),
    ({'eval.hold_out': 4}, True, "hold_out is 4, but .* a split 'val' of its"),
  ],
)
def test_there_is_one_split_for_validation(
  split, monkeypatch, settings, own, message
):
  made = {'train': split, 'test': split} | ({'val': split} if own else {})
  monkeypatch.setattr(datasets, 'load', lambda name, **_: made)
  config = training_data.config(**settings)
  with pytest.raises(UserError, match=message):
    load_splits(config.data, config.eval)


@pytest.mark.parametrize(
  ('asked', 'want'),
  [
    ((), ['query', 'gallery']),
    (('query',), ['query', 'gallery']),
    (('query', 'train'), ['query', 'train']),
    (('gallery',), ['gallery']),
    (('train', 'gallery'), ['train', 'gallery']),
  ],
)
def test_the_gallery_is_ranked_for_the_queries(asked, want):
  splits = {name: name for name in ('train', 'query', 'gallery')}
  assert ranked_splits(splits, *asked) == want


CROPS = {'data.short_side': 7, 'data.train_view.flip': 0.5}


def test_device_views_are_those_of_the_host(split):
  host = batches(split, **CROPS)
  device = batches(split, **CROPS, **{'data.device_views': True})
  for ours, theirs in zip(device, host, strict=True):
    assert ours.keys() == theirs.keys() == {'image', 'label'}
    np.testing.assert_array_equal(ours['label'], theirs['label'])
    assert ours['image'].dtype == np.uint8
    difference = ours['image'].astype(int) - theirs['image']
    # See tests/training/step/test_device_views.py.
    assert np.abs(difference).max() <= 2
    assert np.mean(difference != 0) < 9e-3


@pytest.mark.parametrize('device_views', [False, True])
def test_a_cache_changes_no_batch(split, tmp_path, device_views):
  settings = {**CROPS, 'data.device_views': device_views}
  cached = batches(split, **settings, **{'data.cache': str(tmp_path)})
  assert list(tmp_path.glob('*.raw'))
  for ours, theirs in zip(cached, batches(split, **settings), strict=True):
    for key in ('image', 'label'):
      np.testing.assert_array_equal(ours[key], theirs[key])


def test_short_side_shrinks_images_first(split):
  (whole,), (small,) = (
    batches(split, 1, **{'data.train_view.scale': None} | settings)
    for settings in ({}, {'data.short_side': 2})
  )
  np.testing.assert_array_equal(whole['label'], small['label'])
  # Of 2 x 2 pixels enlarged to 8 x 8 the corners are alike.
  assert (
    np.ptp(small['image'][0, :2, :2].astype(int), (0, 1)).max()
    < np.ptp(whole['image'][0, :2, :2].astype(int), (0, 1)).max()
  )


@pytest.mark.parametrize('level', [None, 'kind'])
def test_hierarchical_batches_take_classes_of_one_level(split, level):
  settings = {'data.sampler': 'hierarchical', 'data.level': level}
  for groups in (1, 2):
    for batch in batches(split, **settings, **{'data.groups': groups}):
      kinds = batch['label'] % 4  # four classes a kind, eight a batch
      assert len(set(batch['label'])) == 8
      assert len(set(kinds)) == 2


def test_official_batches_may_hold_an_image_twice(split):
  sampler = training_data.inputs(
    training_data.config(**{'data.sampler': 'official'}), split
  ).sampler
  assert any(len(set(sampler(step))) < 16 for step in range(20))


@pytest.mark.parametrize(
  ('levels', 'level', 'message'),
  [
    ((), None, 'level is None, but toy has no such .* levels are none'),
    (('kind',), 'color', "level is 'color', .* levels are kind"),
  ],
)
def test_a_level_that_is_not_there_is_named(split, levels, level, message):
  toy = Split('toy', split.source, split.labels, split.fields, {}, levels)
  config = training_data.config(**{'data.sampler': 'hierarchical'})
  config.data.level = level
  with pytest.raises(UserError, match=message):
    training_data.inputs(config, toy)


def test_device_views_of_other_changes_are_refused(split):
  config = training_data.config(**CROPS, **{'data.device_views': True})
  config.data.train_view.grayscale = 0.5
  with pytest.raises(UserError, match='on the device a view is a crop'):
    training_data.inputs(config, split)
