"""Retrieval metrics as text."""

from hier_jax.evaluation import format_table


def test_format_table():
  before = {'recall@1': 0.0512, 'recall@10': 0.5, 'map@r': 0.01}
  after = {'recall@1': 1.0, 'recall@10': 1.0, 'map@r': 0.4567}
  table = format_table({'before': before, 'after training': after}, (1, 10))
  assert table.split('\n') == [
    '                  R@1   R@10  MAP@R',
    'before            5.1   50.0    1.0',
    'after training  100.0  100.0   45.7',
  ]
  how = {'distance': 'hyperbolic, c = 0.1', 'ties': 'pessimistic'}
  table = format_table({'a': before | how, 'b': after | how}, (1, 10))
  assert table.split('\n')[3:] == [
    'In per cent, by hyperbolic, c = 0.1; ties pessimistic.'
  ]
  raw = {'distance': 'cosine', 'ties': 'expected'}
  table = format_table(
    {'a': before | raw, 'b': after | how, 'c': after | how}, (1, 10)
  )
  assert table.split('\n')[4:] == [
    'a: in per cent, by cosine; ties expected.',
    'b, c: in per cent, by hyperbolic, c = 0.1; ties pessimistic.',
  ]


def test_the_better_of_two_rankings_has_a_star():
  row = {'recall@1': 0.5, 'map@r': 0.25, 'cosine/recall@1': 0.6}
  worse, better = {'cosine/map@r': 0.2}, {'cosine/map@r': 0.3}
  how = {'distance': 'hyperbolic, c = 0.1', 'ties': 'pessimistic'}
  rows = {'a': row | worse | how, 'b': row | better | how}
  assert format_table(rows, [1]).split('\n') == [
    '                 R@1  MAP@R',
    'a *             50.0   25.0',
    'a, by cosine    60.0   20.0',
    'b               50.0   25.0',
    'b, by cosine *  60.0   30.0',
    'In per cent, by hyperbolic, c = 0.1; ties pessimistic.',
    '* the better of the two rankings, by MAP@R.',
  ]
  same = row | {'cosine/recall@1': 0.5001, 'cosine/map@r': 0.25} | how
  assert len(format_table({'a': same}, [1]).split('\n')) == 3
