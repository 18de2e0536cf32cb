"""Ranking in processes against ranking in this one."""

import io
import os
import pickle
import sys
import types

import numpy as np
import pytest

from hier_jax import evaluation
from hier_jax.errors import UserError
from hier_jax.evaluation.hierarchy import _processes, graded
from hier_jax.evaluation.retrieval import metrics as retrieval


@pytest.fixture
def given():
  """Arguments of `graded.ranked`: 31 queries that are their own gallery."""
  rng = np.random.default_rng(0)
  levels = [[f'kind {i // 2}'] for i in range(6)]
  return {
    'embeddings': np.round(rng.standard_normal((31, 3)), 1),
    'labels': rng.integers(0, 6, 31),
    'taxonomy': evaluation.Taxonomy.from_levels(levels),
    'c': 0,
    'wanted': retrieval.wanted((1, 2), ('map@r', 'mrr'), 'mean'),
  }


@pytest.fixture
def here(monkeypatch):
  """Lets this process do the work of all others."""

  def found(given):
    parts = pickle.loads(pickle.dumps(given))
    return [graded.ranked(**one) for one in parts]

  monkeypatch.setattr(_processes, '_found', found)


def assert_same(found, expected):
  for some, others in zip(found, expected, strict=True):
    assert type(some) is type(others)
    for column, other in zip(some, others, strict=True):
      assert getattr(column, 'dtype', None) == getattr(other, 'dtype', None)
      if isinstance(column, np.ndarray):
        # Sums round by how many queries are summed at a time.
        np.testing.assert_allclose(column, other, rtol=1e-14)
      else:
        assert column == other


def test_processes_find_the_same(given):
  # Python and its packages are started twice.
  assert_same(_processes.ranked(2, **given), graded.ranked(**given))


@pytest.mark.usefixtures('here')
@pytest.mark.parametrize('num', [1, 2, 3, 31])
def test_shares_add_up_to_the_whole(given, num):
  assert_same(_processes.ranked(num, **given), graded.ranked(**given))


@pytest.mark.usefixtures('here')
def test_gallery_apart_and_labels_that_share_a_class(given):
  levels = [['kind', 'one'], ['kind', 'one'], ['kind', 'two']]
  given['taxonomy'] = evaluation.Taxonomy.from_levels(levels)
  x, labels = given['embeddings'], given['labels'] % 3
  given |= {'embeddings': x[9:], 'labels': labels[9:]}
  given |= {'gallery': x[:9], 'gallery_labels': labels[:9], 'wanted': None}
  found, none = _processes.ranked(2, **given)
  assert none is None
  assert_same([found], [graded.ranked(**given)[0]])


def test_only_the_first_process_shows_a_bar_and_all_have_one_thread(
  given, monkeypatch
):
  asked = []
  monkeypatch.setattr(_processes, '_found', lambda given: asked.extend(given))
  with pytest.raises(TypeError):
    _processes.ranked(2, progress=True, **given)
  assert [one['progress'] for one in asked] == [True, False]
  assert [one['threads'] for one in asked] == [1, 1]
  # Together they hold no more scores than one would.
  assert [one['block'] for one in asked] == 2 * [graded.block_of(31) // 2]


def test_share_of_a_process_that_ends_early_is_ranked_here(given, monkeypatch):
  monkeypatch.setattr(_processes, '_CODE', 'raise SystemExit(3)')
  assert_same(_processes.ranked(2, **given), graded.ranked(**given))


def test_shares_of_processes_that_do_not_start_are_ranked_here(
  given, monkeypatch
):
  monkeypatch.setattr(sys, 'executable', '/no/python')
  assert_same(_processes.ranked(2, **given), graded.ranked(**given))


def test_modules_are_found_as_here_and_not_in_the_current_folder(
  tmp_path, monkeypatch
):
  (tmp_path / 'signal.py').write_text('raise SystemExit(3)')
  monkeypatch.chdir(tmp_path)
  monkeypatch.setattr(sys, 'path', ['somewhere', *sys.path])
  code, _ = _processes._CODE.split('from')
  monkeypatch.setattr(_processes, '_CODE', f'{code}print(*sys.path, sep="\\n")')
  child = _processes._started()
  out, _ = child.communicate()
  assert child.returncode == 0
  assert out.decode().splitlines() == sys.path


def test_processes_end_with_a_parent_that_is_killed(monkeypatch):
  ended = []
  parents = iter([7, 7, 1])
  monkeypatch.setattr(_processes.os, 'getppid', lambda: next(parents))
  monkeypatch.setattr(_processes.os, '_exit', ended.append)
  monkeypatch.setattr(_processes, '_LOOK', 0)
  _processes._watch(7)
  assert ended == [1]
  assert 'end_with_parent()\n' in _processes._CODE


def test_errors_of_users_are_handed_over(given, monkeypatch):
  given['labels'] = given['labels'] + 1
  out = io.BytesIO()
  read = types.SimpleNamespace(buffer=io.BytesIO(pickle.dumps(given)))
  monkeypatch.setattr(sys, 'stdin', read)
  monkeypatch.setattr(sys, 'stdout', types.SimpleNamespace(buffer=out))
  _processes.main()
  child = types.SimpleNamespace(
    stdout=io.BytesIO(out.getvalue()), wait=lambda: 0
  )
  with pytest.raises(UserError, match='`labels`'):
    _processes._result(child)


def test_processes_end_with_an_interrupt(given, monkeypatch):
  started = []

  def start(*arguments, popen=_processes.subprocess.Popen, **options):
    started.append(popen(*arguments, **options))
    return started[-1]

  def interrupt(_):
    raise KeyboardInterrupt

  monkeypatch.setattr(_processes.subprocess, 'Popen', start)
  monkeypatch.setattr(_processes, '_CODE', 'import time; time.sleep(60)')
  monkeypatch.setattr(_processes, '_result', interrupt)
  with pytest.raises(KeyboardInterrupt):
    _processes.ranked(2, **given)
  assert len(started) == 2
  assert all(child.returncode for child in started)


def test_number_is_of_the_work_and_the_cores(monkeypatch):
  monkeypatch.setattr(_processes, 'cores', lambda: 4)
  assert _processes.number(10, 10) == 1
  assert _processes.number(1 << 14, 1 << 15) == 2
  assert _processes.number(60_502, 60_502) == 4
  monkeypatch.setattr(sys, 'executable', '')
  assert _processes.number(60_502, 60_502) == 1


def test_processes_take_one_core_each(monkeypatch):
  code = 'import os; print(os.environ["OMP_NUM_THREADS"])'
  monkeypatch.setattr(_processes, '_CODE', code)
  monkeypatch.setitem(os.environ, 'OMP_NUM_THREADS', '7')
  out, _ = _processes._started().communicate()
  assert out.split() == [b'1']
