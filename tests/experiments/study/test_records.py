import numpy as np
import pytest

from experiments.study import records
from experiments.study.records import Job
from hier_jax.errors import UserError
from tests.support import small_study


def job(seed=0, **more):
  point = {'lr': 0.1, 'radius': 'clip'} | more
  return Job.of('a128', 'B', 'sup_con+alone', point, 0, seed, 'search')


def test_lines_come_back_as_the_same_jobs(tmp_path):
  path = tmp_path / 'a.jsonl'
  lines = records.Lines(path)
  lines.add(job(), small_study.outcome(0.5))
  lines.add(job(1), small_study.outcome(0.25))
  again = records.Lines(path)
  assert set(again.found) == {job(), job(1)} and again.found == lines.found
  assert job(lr=0.2) not in again.found


def test_line_cut_by_a_crash_is_written_anew(tmp_path):
  path = tmp_path / 'a.jsonl'
  records.Lines(path).add(job(), small_study.outcome(0.5))
  whole = path.read_bytes()
  path.write_bytes(whole + whole[:40])
  lines = records.Lines(path)
  assert list(lines.found) == [job()]
  lines.add(job(1), small_study.outcome(0.5))
  assert set(records.Lines(path).found) == {job(), job(1)}


def test_foreign_line_is_named(tmp_path):
  path = tmp_path / 'a.jsonl'
  path.write_text('{"lr": 1}\n')
  with pytest.raises(UserError, match=r'line 1 of .* is none of a run'):
    records.Lines(path)


def test_values_keep_four_digits():
  values = np.array([0.0, 0.12345, np.nan, 1.0])
  back = records.floats(records.ints(values))
  np.testing.assert_allclose(back, values, atol=5e-5)
