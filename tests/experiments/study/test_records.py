import json

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


@pytest.mark.parametrize(
  ('metrics', 'why'),
  [
    ({}, 'it has no metrics'),
    ({'cosine': {'map@r': float('nan'), 'map_subgroup': 1}}, 'is nan, no num'),
    ({'cosine': {'map@r': 'x', 'map_subgroup': 1}}, "is 'x', no number"),
    ({'cosine': {'map@r': 0.5}}, 'map_subgroup'),
    (None, 'it has no metrics'),
  ],
)
def test_a_line_that_nothing_can_be_selected_by_is_refused(
  tmp_path, metrics, why
):
  path = tmp_path / 'a.jsonl'
  lines = records.Lines(path)
  lines.add(job(), small_study.outcome(0.5))
  line = path.read_bytes().splitlines()[0]
  line = json.loads(line) | {'metrics': metrics}
  with path.open('a') as file:
    file.write(json.dumps(line) + '\n')
  with pytest.raises(UserError, match=rf'line 2 of .* is none of a run.*{why}'):
    records.Lines(path)
  if metrics and len(metrics['cosine']) > 1:
    with pytest.raises(UserError, match=why):
      lines.add(job(1), small_study.outcome(0.5, metrics=metrics))


def test_two_lines_of_a_job_must_agree(tmp_path):
  path = tmp_path / 'a.jsonl'
  lines = records.Lines(path)
  lines.add(job(), small_study.outcome(0.5))
  lines.add(job(), small_study.outcome(0.5, cpu_s=7.0))
  assert list(records.Lines(path).found) == [job()]
  lines.add(job(), small_study.outcome(0.75))
  with pytest.raises(UserError, match=r'sup_con\+alone .* two lines of'):
    records.Lines(path)


def test_a_folder_in_the_place_of_lines_is_told(tmp_path):
  (tmp_path / 'a.jsonl').mkdir()
  with pytest.raises(UserError, match=r'a\.jsonl cannot be read'):
    records.read([tmp_path / 'a.jsonl'])


def test_lines_of_other_images_are_not_gone_on_with(tmp_path):
  lines = records.Lines(tmp_path / 'a.jsonl')
  lines.check_same({'images': 'j', 'weights': 'w'})
  lines.add(job(), small_study.outcome(0.5))
  lines.check_same({'images': 'i', 'weights': 'w', 'features': 'rounded'})
  with pytest.raises(UserError, match='images i, and these have j, which'):
    lines.check_same({'images': 'j', 'weights': 'w'})
  with pytest.raises(UserError, match='weights w, and these have v, which'):
    lines.check_same({'images': 'i', 'weights': 'v'})


def test_lines_that_do_not_say_their_images_are_gone_on_with(tmp_path):
  lines = records.Lines(tmp_path / 'a.jsonl')
  known = small_study.outcome(0.5)
  del known['images']
  lines.add(job(), known)
  lines.check_same({'images': 'j', 'weights': 'w'})
