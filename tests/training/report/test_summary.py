"""Metrics over seeds, and the time of runs."""

import math
import statistics

import pytest

from hier_jax.training.logs import progress
from hier_jax.training.report import output, summary
from hier_jax.training.report import runs as runs_lib
from tests.support import finished_runs

# The 0.975 quantile of Student's t with 2 degrees of freedom, in closed form
# (2p - 1) / sqrt(2p (1 - p)).
T2 = 0.95 / math.sqrt(2 * 0.975 * 0.025)


@pytest.fixture
def three(tmp_path):
  return finished_runs.three(tmp_path / 'study')


def test_metrics_over_seeds(three):
  (group,) = summary.summarize(runs_lib.load([three]))['groups']
  assert group['label'] == 'study'
  found = group['systems']['after training']
  assert list(found) == ['recall@1', 'recall@2', 'map@r']
  assert found['recall@1']['values'] == {0: 0.5, 1: 0.6, 2: 0.7}
  logits = [math.log(p / (1 - p)) for p in (0.5, 0.6, 0.7)]
  middle, std = statistics.mean(logits), statistics.stdev(logits)
  low, high = (
    1 / (1 + math.exp(-middle - sign * T2 * std / math.sqrt(3)))
    for sign in (-1, 1)
  )
  want = {'mean': 0.6, 'std': 0.1, 'low': low, 'high': high}
  for name, value in want.items():
    assert found['recall@1'][name] == pytest.approx(value, rel=1e-12), name
  pixels = group['systems']['raw pixels']['map@r']
  assert [pixels[k] for k in ('mean', 'low', 'high')] == pytest.approx(
    [0.1] * 3
  )


@pytest.mark.parametrize('recalls', [(0.98, 0.999), (0.01, 0.2, 0.02)])
def test_intervals_stay_within_what_a_share_can_be(tmp_path, recalls):
  for seed, recall in enumerate(recalls):
    finished_runs.make(tmp_path / str(seed), recall, seed=seed)
  (group,) = summary.summarize(runs_lib.load([tmp_path]))['groups']
  found = group['systems']['after training']['recall@1']
  assert 0 < found['low'] < found['mean'] < found['high'] < 1


def test_there_is_no_interval_where_a_seed_has_everything(tmp_path):
  for seed, recall in enumerate((0.9, 1.0)):
    finished_runs.make(tmp_path / str(seed), recall, seed=seed)
  found = summary.summarize(runs_lib.load([tmp_path]))
  recall = found['groups'][0]['systems']['after training']['recall@1']
  assert (recall['mean'], recall['low'], recall['high']) == (0.95, None, None)
  assert 'R@1 | 95.00 | 7.07 |  | 90.00 | 100.00 |' in output.as_markdown(found)


def test_one_seed_has_neither_deviation_nor_interval(tmp_path):
  runs = runs_lib.load([finished_runs.make(tmp_path / 'alone', 0.5)])
  (group,) = summary.summarize(runs)['groups']
  found = group['systems']['after training']['recall@1']
  none = dict.fromkeys(('std', 'low', 'high'))
  assert found == {'mean': 0.5, 'values': {0: 0.5}} | none
  text = output.as_markdown(summary.summarize(runs))
  assert '| alone | R@1 | 50.00 |  |  | 50.00 |' in text
  assert '| alone | after training | 1 | 50.00 | 50.00 | 25.00 |' in text


def test_unfinished_runs_are_listed_and_not_counted(three):
  folder = finished_runs.make(three / 'late', 0.9, finished=False, seed=7)
  found = summary.summarize(runs_lib.load([three]))
  want = {'folder': str(folder), 'seed': 7, 'step': 4}
  assert found['unfinished'] == [want]
  values = found['groups'][0]['systems']['after training']['map@r']['values']
  assert list(values) == [0, 1, 2]
  text = output.as_markdown(found)
  assert f'- `{folder}`, seed 7, at step 4' in text


def test_time_is_that_of_all_runs(tmp_path):
  shares = lambda data, evaluation: {
    'kind': 'timing',
    'share/data': data,
    'share/compile': 0.0,
    'share/step': 0.5,
    'share/evaluation': evaluation,
    'share/checkpoint': 0.0,
  }
  timing = [
    {'step': 2, 'seconds': 100.0, 'images_per_second': 10.0} | shares(0.5, 0.0),
    {'step': 4, 'seconds': 200.0, 'images_per_second': 40.0} | shares(0.0, 0.5),
    {'step': 4, 'seconds': 60.0} | shares(0.5, 0.0),
  ]
  runs = runs_lib.load([finished_runs.make(tmp_path / 'a', 0.5, timing=timing)])
  found = summary.summarize(runs)
  time = found['groups'][0]['time']
  # 1000 images in 100 s, 4000 in the 100 s that weren't evaluation.
  assert time['images_per_second'] == pytest.approx(25.0)
  assert time['hours'] == pytest.approx(0.1)
  split = [time[part] for part in progress.PARTS]
  assert split == pytest.approx([80 / 360, 0.0, 0.5, 100 / 360, 0.0])
  line = '| a | 0.10 | 25 | 22.2% | 0.0% | 50.0% | 27.8% | 0.0% |'
  assert line in output.as_markdown(found)
