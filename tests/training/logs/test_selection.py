"""Which state is the best, and when it is time to stop."""

import pytest

from hier_jax.training.logs import selection


def records(*scores):
  """Validations at steps 10, 20, ..., among other records."""
  made = [{'kind': 'eval', 'step': 0, 'map@r': 9.0}]
  for i, score in enumerate(scores, 1):
    made.append({'kind': 'train', 'step': 10 * i, 'loss': 9.0})
    made.append({'kind': 'validation', 'step': 10 * i, 'map@r': score})
  return made


@pytest.mark.parametrize(
  ('scores', 'step'),
  [([0.1, 0.3, 0.2], 20), ([0.3, 0.3, 0.3], 10), ([0.1, 0.2], 20)],
)
def test_the_first_of_the_best_is_chosen(scores, step):
  assert selection.best(records(*scores), 'map@r')['step'] == step


def test_without_a_validation_there_is_no_best():
  assert selection.best(records(), 'map@r') == {}
  assert not selection.exhausted(records(), 'map@r', 1)


@pytest.mark.parametrize(
  ('scores', 'patience', 'stops'),
  [
    ([0.1, 0.3, 0.2], 1, True),
    ([0.1, 0.3, 0.2], 2, False),
    ([0.3, 0.3, 0.3], 2, True),
    ([0.1, 0.2, 0.3], 1, False),
    ([0.3, 0.2, 0.1], None, False),
  ],
)
def test_patience_counts_evaluations_since_the_best(scores, patience, stops):
  assert selection.exhausted(records(*scores), 'map@r', patience) == stops
