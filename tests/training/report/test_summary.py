"""Runs side by side: which belong together, their figures, their curves."""

import json
import math
import statistics
import sys

import numpy as np
import pytest

from hier_jax.errors import UserError
from hier_jax.training.config.default import default_config
from hier_jax.training.logs import names, progress
from hier_jax.training.report import curves, summary
from hier_jax.training.report import runs as runs_lib

# The 0.975 quantile of Student's t with 2 degrees of freedom, in closed form
# (2p - 1) / sqrt(2p (1 - p)).
T2 = 0.95 / math.sqrt(2 * 0.975 * 0.025)


def row(recall, map_at_r, name='x', step=0):
  found = {'recall@1': recall, 'recall@2': recall, 'map@r': map_at_r}
  counts = {'num_queries': 9, 'num_without_positive': 0}
  return {'kind': 'eval', 'step': step, 'name': name} | found | counts


def make(folder, recall, *, finished=True, timing=(), **settings):
  """A run of two epochs of two steps, as the loop leaves it."""
  folder.mkdir(parents=True)
  config = default_config()
  config.update_from_flattened_dict(settings)
  (folder / 'config.json').write_text(config.to_json())
  before = [row(0.1, 0.1, 'raw pixels'), row(0.2, 0.2, 'before training')]
  after = row(recall, recall / 2, 'step 4', 4)
  records = [
    *before,
    *(
      {'kind': 'train', 'step': s, 'epoch': s / 2, 'loss': 10 * recall - s}
      for s in (1, 2, 3)
    ),
    {'kind': 'train', 'step': 4, 'epoch': 2.0, 'loss': None},  # was skipped
    after,
  ]
  write = lambda rs: ''.join(json.dumps(r) + '\n' for r in rs)
  (folder / 'metrics.jsonl').write_text(write(records))
  if timing:
    (folder / 'timing.jsonl').write_text(write(timing))
  if finished:
    rows = {r['name']: r for r in before} | {names.TRAINED: after}
    (folder / 'results.json').write_text(json.dumps(rows))
  return folder


@pytest.fixture
def three(tmp_path):
  """Three seeds of a config, in no order."""
  for seed, recall in ((2, 0.7), (0, 0.5), (1, 0.6)):
    make(tmp_path / 'study' / f'run{2 - seed}', recall, seed=seed)
  return tmp_path / 'study'


def test_figures_over_seeds(three):
  (group,) = summary.summary(runs_lib.load([three]))['groups']
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
    make(tmp_path / str(seed), recall, seed=seed)
  (group,) = summary.summary(runs_lib.load([tmp_path]))['groups']
  found = group['systems']['after training']['recall@1']
  assert 0 < found['low'] < found['mean'] < found['high'] < 1


def test_there_is_no_interval_where_a_seed_has_everything(tmp_path):
  for seed, recall in enumerate((0.9, 1.0)):
    make(tmp_path / str(seed), recall, seed=seed)
  found = summary.summary(runs_lib.load([tmp_path]))
  recall = found['groups'][0]['systems']['after training']['recall@1']
  assert (recall['mean'], recall['low'], recall['high']) == (0.95, None, None)
  assert 'R@1 | 95.00 | 7.07 |  | 90.00 | 100.00 |' in summary.as_markdown(
    found
  )


def test_one_seed_has_neither_deviation_nor_interval(tmp_path):
  runs = runs_lib.load([make(tmp_path / 'alone', 0.5)])
  (group,) = summary.summary(runs)['groups']
  found = group['systems']['after training']['recall@1']
  none = dict.fromkeys(('std', 'low', 'high'))
  assert found == {'mean': 0.5, 'values': {0: 0.5}} | none
  text = summary.as_markdown(summary.summary(runs))
  assert '| alone | R@1 | 50.00 |  |  | 50.00 |' in text
  assert '| alone | after training | 1 | 50.00 | 50.00 | 25.00 |' in text


def labels(*dirs):
  groups = runs_lib.groups(runs_lib.load(dirs))
  return {g.label: [run.seed for run in g.runs] for g in groups}


def test_seeds_and_free_keys_do_not_tell_groups_apart(tmp_path):
  make(tmp_path / 'a', 0.5, **{'data.num_threads': 7, 'seed': 3})
  make(tmp_path / 'b', 0.6, tensorboard=True)
  old = make(tmp_path / 'c', 0.6, seed=1)
  stored = json.loads((old / 'config.json').read_text())
  del stored['optim']['b1']  # a key that runs of then had not
  (old / 'config.json').write_text(json.dumps(stored))
  assert labels(tmp_path) == {tmp_path.name: [0, 1, 3]}
  # A run named twice, by whatever path, is one.
  assert labels(tmp_path, tmp_path / 'a' / '..' / 'b') == labels(tmp_path)


def test_groups_are_called_by_what_tells_them_apart(tmp_path):
  lr = {'optim.lr': 1e-3}
  make(tmp_path / 'a', 0.5)
  make(tmp_path / 'b', 0.5, **lr)
  make(tmp_path / 'c', 0.5, **lr, seed=1)
  assert labels(tmp_path) == {'lr=5e-06': [0], 'lr=0.001': [0, 1]}
  make(tmp_path / 'd', 0.5, **lr, **{'data.batch_size': 60})
  make(tmp_path / 'e', 0.5, **lr, **{'eval.hold_out': 5})
  wide = runs_lib.groups(runs_lib.load([tmp_path]))[-1].label
  assert wide == 'batch_size=180, hold_out=5, lr=0.001'


def test_long_labels_give_way_to_folders(tmp_path):
  cache = {'model.backbone': 'vit_' + 60 * 'x'}
  for parent in ('one', 'two'):
    changed = cache if parent == 'two' else {}
    for seed in (0, 1):
      make(tmp_path / parent / f's{seed}', 0.5, seed=seed, **changed)
  assert set(labels(tmp_path / 'one', tmp_path / 'two')) == {'one', 'two'}
  same = [tmp_path / parent / 's0' for parent in ('one', 'two')]
  assert set(labels(*same)) == {str(path.resolve()) for path in same}


def test_unfinished_runs_are_listed_and_not_counted(three):
  folder = make(three / 'late', 0.9, finished=False, seed=7)
  found = summary.summary(runs_lib.load([three]))
  want = {'folder': str(folder), 'seed': 7, 'step': 4}
  assert found['unfinished'] == [want]
  values = found['groups'][0]['systems']['after training']['map@r']['values']
  assert list(values) == [0, 1, 2]
  text = summary.as_markdown(found)
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
  runs = runs_lib.load([make(tmp_path / 'a', 0.5, timing=timing)])
  found = summary.summary(runs)
  time = found['groups'][0]['time']
  # 1000 images in 100 s, 4000 in the 100 s that weren't evaluation.
  assert time['images_per_second'] == pytest.approx(25.0)
  assert time['hours'] == pytest.approx(0.1)
  split = [time[part] for part in progress.PARTS]
  assert split == pytest.approx([80 / 360, 0.0, 0.5, 100 / 360, 0.0])
  line = '| a | 0.10 | 25 | 22.2% | 0.0% | 50.0% | 27.8% | 0.0% |'
  assert line in summary.as_markdown(found)


def test_report_is_written_whole(three, tmp_path):
  make(three / 'other', 0.8, **{'loss.hier_weight': 0.0})
  runs = runs_lib.load([three])
  out = tmp_path / 'new' / 'out'
  text = summary.as_markdown(summary.summary(runs))
  summary.write(runs, out)
  assert '## Time' not in text
  for line in (
    '| run | system | seeds | R@1 | R@2 | MAP@R |',
    '| hier_weight=0.5 | before training | 3 | 20.00 ± 0.00 | 20.00 ± 0.00 |',
    '| hier_weight=0.5 | after training | 3 | 60.00 ± 10.00 | 60.00 ± 10.00 |',
    '| hier_weight=0.5 | R@1 | 60.00 | 10.00 | 34.63 to 81.31 | 50.00 | 60.00',
    '| hier_weight=0.0 | R@1 | 80.00 |  |  | 80.00 |  |  |',
  ):
    assert line in text, line
  names = ['curves.png', 'report.json', 'report.md']
  assert sorted(p.name for p in out.iterdir()) == names
  stored = json.loads((out / 'report.json').read_text())
  assert stored == json.loads(json.dumps(summary.summary(runs)))
  assert (out / 'report.md').read_text().startswith(text)
  first = (out / 'curves.png').read_bytes()
  assert first.startswith(b'\x89PNG')
  summary.write(runs, out)
  assert (out / 'curves.png').read_bytes() == first


def test_a_run_of_one_epoch_is_seen(tmp_path):
  (groups,) = [runs_lib.groups(runs_lib.load([make(tmp_path / 'a', 0.5)]))]
  for axes in curves.figure(groups, 'recall@1', 'R@1').axes:
    (line,) = axes.lines
    assert line.get_marker() == 'o' and line.get_markersize() > 0


def test_curves_are_means_with_a_band_over_seeds(three):
  groups = runs_lib.groups(runs_lib.load([three]))
  loss, retrieval = curves.figure(groups, 'recall@1', 'R@1').axes
  (line,) = loss.lines
  # Epoch 1: steps 1 and 2. Epoch 2: step 3 alone, since step 4 was skipped.
  np.testing.assert_allclose(line.get_xydata(), [[1, 4.5], [2, 3.0]])
  (line,) = retrieval.lines
  np.testing.assert_allclose(line.get_xydata(), [[0, 20], [2, 60]])
  (band,) = retrieval.collections
  (path,) = band.get_paths()
  ends = {tuple(np.round(p, 9)) for p in path.vertices}
  assert ends == {(0, 20), (2, 50), (2, 70)}
  names = [loss.get_xlabel(), loss.get_ylabel(), retrieval.get_ylabel()]
  assert names == [
    'epoch',
    'training loss, mean of an epoch',
    'R@1 on the test split (%)',
  ]


def test_runs_without_metrics_have_no_curve(three):
  for path in three.glob('*/metrics.jsonl'):
    path.unlink()
  groups = runs_lib.groups(runs_lib.load([three]))
  loss, retrieval = curves.figure(groups, 'recall@1', 'R@1').axes
  for axes in (loss, retrieval):
    assert axes.lines[0].get_xydata().shape == (0, 2)


def test_folders_without_runs_are_named(three, tmp_path):
  (tmp_path / 'empty').mkdir()
  dirs = [tmp_path / 'empty', three, tmp_path / 'nowhere']
  with pytest.raises(UserError, match=r'2 of 3 folders hold no run: .*empty, '):
    runs_lib.load(dirs)


def test_nothing_finished(tmp_path):
  for name in 'ab':
    make(tmp_path / name, 0.5, finished=False)
  with pytest.raises(UserError, match='none of 2 runs is finished'):
    runs_lib.load([tmp_path])


def test_two_runs_of_one_seed(three):
  make(three / 'again', 0.6, seed=1)
  with pytest.raises(UserError, match=r'1 pairs of runs.*again.*\(seed 1\)'):
    runs_lib.load([three])


@pytest.mark.parametrize(
  ('name', 'text', 'message'),
  [
    (
      'config.json',
      '{"epo',
      r'config.json is no JSON .*; expected what',
    ),
    ('config.json', '{"epoch": 3}', "config.json: unknown config key 'epoch'"),
    ('config.json', '{"epochs": "3"}', 'config.json: '),
    ('results.json', '[1]', 'results.json holds a list and no object'),
    ('results.json', '{}', "results.json has no row 'after training'"),
  ],
)
def test_files_that_cannot_be_read(three, name, text, message):
  for run in ('run0', 'run2'):
    (three / run / name).write_text(text)
  match = f'2 of 3 runs cannot be read: .*{message}'
  with pytest.raises(UserError, match=match):
    runs_lib.load([three])


def test_without_matplotlib_its_extra_is_named(three, monkeypatch, tmp_path):
  monkeypatch.setitem(sys.modules, 'matplotlib', None)
  with pytest.raises(UserError, match=r"pip install 'hier_jax\[plots\]'"):
    summary.write(runs_lib.load([three]), tmp_path / 'out')
  assert not (tmp_path / 'out').exists()


def test_a_folder_that_cannot_be_written_to_is_named(three, tmp_path):
  (tmp_path / 'file').write_text('')
  with pytest.raises(UserError, match=r'file/curves.png cannot be written'):
    summary.write(runs_lib.load([three]), tmp_path / 'file')
