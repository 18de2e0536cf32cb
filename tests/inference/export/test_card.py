"""Model cards: what a run's records say, and blanks for what they do not."""

import json

import numpy as np
import pytest

from hier_jax.evaluation import nearest
from hier_jax.inference import export
from hier_jax.inference import model as model_lib
from hier_jax.training.run import from_checkpoint
from tests.support import exported


def test_the_card_of_a_run(trained, tmp_path):
  model = model_lib.open_model(trained[0])
  made = export.write(model, tmp_path / 'a', format='safetensors')
  card = (made.folder / 'README.md').read_text()
  rows = from_checkpoint.evaluations(model.run)
  assert list(rows) == ['before training', 'step 3']
  recall = 100 * rows['step 3']['recall@1']
  assert f'| step 3 | {recall:.1f} [' in card and '48 queries' in card
  assert 'points of the Poincare ball of radius 3.16228' in card
  assert '| distance | hyperbolic, c = 0.1 |' in card
  assert '| learning rate | 0.01 |' in card and '| seed | 0 |' in card
  assert card.count('**To be filled in:**') == 2
  # Where anything lay is nobody's business.
  facts = (made.folder / 'metadata.json').read_text()
  assert str(trained[0]) not in card + facts
  assert json.loads(facts)['output'] == 'float32 [b, 16]'


def test_a_model_without_records(tmp_path):
  model = exported.drawn('resnet_test', c=None)
  made = export.write(model, tmp_path / 'a', format='timm')
  card = (made.folder / 'README.md').read_text()
  assert 'no record of this model says how good it is' in card
  assert '**To be filled in:** what it was trained on' in card
  assert '| embeddings, float32 [b, 8]: unit vectors |' in card


@pytest.mark.parametrize(
  ('c', 'wanted'), [(None, 'cosine'), (0.0, 'Euclidean'), (1.0, 'hyperbolic')]
)
def test_the_distance_is_ours(tmp_path, c, wanted):
  model = exported.drawn('resnet_test', c=c)
  made = export.write(model, tmp_path / 'a', format='timm')
  source = exported.code(made.folder)
  start = source.index('def distance(')
  names = {'np': np}
  exec(source[start : source.index('rows = ')], names)
  assert wanted in (made.folder / 'README.md').read_text()
  rows = exported.expected(model, exported.images(6, 16))
  far, _ = nearest(rows, rows, 6, c=c)
  theirs = np.sort(names['distance'](rows, rows), axis=1)
  np.testing.assert_allclose(theirs, far, atol=1e-3)
