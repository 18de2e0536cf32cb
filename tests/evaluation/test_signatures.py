"""What help() shows of the calls that gather many metrics."""

import inspect

import pytest

from hier_jax import evaluation
from hier_jax.evaluation.hierarchy.graded import graded_per_query, ranked


@pytest.mark.parametrize('name', evaluation.__all__)
def test_no_options_are_hidden(name):
  found = getattr(evaluation, name)
  if inspect.isfunction(found):
    kinds = {p.kind for p in inspect.signature(found).parameters.values()}
    assert inspect.Parameter.VAR_KEYWORD not in kinds


@pytest.mark.parametrize(
  ('whole', 'part', 'apart'),
  [
    (
      evaluation.retrieval_metrics,
      evaluation.per_query,
      {'recall_at', 'precision_at', 'best_only', 'attributes'},
    ),
    (evaluation.hierarchy_metrics, graded_per_query, {'rows'}),
    (ranked, graded_per_query, {}),
  ],
)
def test_defaults_are_those_of_the_ranking(whole, part, apart):
  whole, part = (
    {k: p.default for k, p in inspect.signature(f).parameters.items()}
    for f in (whole, part)
  )
  kept = {name: value for name, value in part.items() if name not in apart}
  assert {name: whole.get(name, 'missing') for name in kept} == kept
