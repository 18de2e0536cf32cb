"""The order of the tests, and the processes that run them."""

import types

import pytest

from tests import conftest
from tests.support import places, schedule


@pytest.mark.parametrize(
  'path', [*schedule.SHARING, *schedule.SPREAD, *schedule.FIRST]
)
def test_what_is_named_exists(path):
  assert (places.ROOT / path).exists()


@pytest.mark.parametrize(
  ('test', 'scope'),
  [
    ('tests/training/run/test_kill.py::test_a[b]', None),
    ('tests/training/run/test_loop.py::test_a[b]', 'tests/training/run'),
    ('tests/inference/export/test_card.py::test_a', 'tests/inference'),
    ('tests/losses/test_hier.py::test_a[x::y]', 'tests/losses/test_hier.py'),
  ],
)
def test_what_shares_a_process(test, scope):
  assert schedule.scope(test) == (scope or test)


def test_the_longest_begin_first():
  tests = [
    'tests/cli/test_main.py::test_a',
    'tests/test_notebooks.py::test_b',
    'tests/training/run/test_kill.py::test_c',
    'tests/data/test_datasets.py::test_d',
  ]
  items = [
    types.SimpleNamespace(nodeid=test, path=places.ROOT / test.split('::')[0])
    for test in tests
  ]
  conftest.pytest_collection_modifyitems(items)
  assert [item.nodeid[-1] for item in items] == ['c', 'b', 'a', 'd']
