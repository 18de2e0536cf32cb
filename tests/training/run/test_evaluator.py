"""What a run evaluates, when, and which state it finds best."""

import dataclasses

import numpy as np
import pytest

from hier_jax.data import datasets
from hier_jax.evaluation import retrieval_metrics
from hier_jax.training.config import default
from hier_jax.training.logs import records as records_lib
from hier_jax.training.run import evaluator, from_checkpoint, loop
from tests.support import training_data, whole_runs

pytestmark = pytest.mark.usefixtures('colors', 'programs')


class State:
  """What is evaluated, in the place of a `TrainState`."""

  eval_variables = None


def make(splits, said, **options):
  """An evaluator whose embeddings are the images' means, and its log."""
  config = default.resolve(training_data.config(**{'model.c': None}))
  log = records_lib.MetricsLog('unused', enabled=False)
  made = evaluator.Evaluator(
    splits,
    lambda variables, images: images.mean((1, 2), np.float32),
    log,
    say=said.append,
    settings=config.eval,
    model=config.model,
    data=config.data,
    **{'before_batch': lambda: None} | options,
  )
  return made, log


def test_validation_comes_before_the_test_split(colors):
  said: list[str] = []
  made, log = make({**colors, 'val': colors['test']}, said)
  made.evaluate_start(State)
  made.evaluate(State, 6)
  assert [r['kind'] for r in log.records] == ['eval', 'validation']
  assert made.has_evaluated(6) and not made.has_evaluated(3)
  assert made.best_step == 6
  restored: list[int] = []
  for _ in range(2):  # the second time there is nothing left to do
    made.evaluate_end(State, 12, lambda step: restored.append(step) or State)
  assert restored == [6]
  rows = made.table(12)
  assert list(rows) == [
    'before training',
    'after training',
    'best by validation',
  ]
  assert rows['best by validation']['checkpoint'] == 6
  assert [line.partition(':')[0] for line in said] == [
    'before training',
    'step 6, validation',
    'step 12',
    'best by validation',
  ]


def test_what_is_raised_before_a_batch_ends_it(colors):
  def stop():
    raise KeyboardInterrupt

  made, log = make(colors, [], before_batch=stop)
  with pytest.raises(KeyboardInterrupt):
    made.evaluate(State, 6)
  assert not log.records


@pytest.mark.slow
def test_the_best_on_held_out_classes_is_kept_and_tested(
  tmp_path, monkeypatch, capsys
):
  scores = iter([0.2, 0.5, 0.3, 0.5, 0.4, 0.9])
  ranked = evaluator.rankings.both

  def judged(embeddings, labels, **settings):
    found = ranked(embeddings, labels, **settings)
    if len(labels) == 12:  # the four classes held out
      found['map@r'] = next(scores)
    return found

  monkeypatch.setattr(evaluator.rankings, 'both', judged)
  config = training_data.config(
    **{
      'epochs': 9,
      'data.batch_size': 12,
      'eval.batch_size': 4,
      'eval.hold_out': 4,
      'eval.every_epochs': 1,
      'eval.patience': 3,
      'checkpoint.every_epochs': 1,
      'checkpoint.keep': 1,
    }
  )
  workdir = tmp_path / 'run'
  # In its validation, of three batches as that before, the best is cut.
  assert whole_runs.terminated(monkeypatch, config, workdir, 12 + 3 + 2) is None
  assert len(records_lib.read(workdir / 'metrics.jsonl')) == 1 + 3 + 1 + 3
  rows = loop.train(config, workdir)
  # 36 images are left to train on: 3 steps an epoch. The best of epoch 2 was
  # never beaten, that of 4 was as good, and after 5 patience ended.
  steps = sorted(int(p.name) for p in (workdir / 'checkpoints').iterdir())
  assert steps == [6, 15]
  records = records_lib.read(workdir / 'metrics.jsonl')
  kinds = [(r['kind'], r['step']) for r in records if r['kind'] != 'train']
  assert kinds == [
    ('eval', 0),
    *(('validation', step) for step in (3, 6, 9, 12, 15)),
    *[('eval', 15)] * 2,
  ]
  assert list(rows) == [
    'before training',
    'after training',
    'best by validation',
  ]
  assert rows['best by validation']['checkpoint'] == 6
  assert 'best by validation' in capsys.readouterr().out
  for system, step in (('after training', 15), ('best by validation', 6)):
    task = from_checkpoint.read_task(workdir / 'checkpoints' / str(step))
    want = ranked(task.queries.embeddings, task.queries.labels, c=0.1)
    assert rows[system].items() >= want.items(), system
  val = from_checkpoint.read_task(workdir, query='val')
  assert len(val.queries.labels) == 12
  # It is finished, and stays so.
  before = (workdir / 'metrics.jsonl').read_bytes()
  assert loop.train(config, workdir) == rows
  assert (workdir / 'metrics.jsonl').read_bytes() == before


@pytest.mark.slow
def test_a_data_sets_own_validation_split_is_used(tmp_path, colors):
  colors['train'], colors['val'] = datasets.hold_out(colors['train'], 4)
  config = training_data.config(
    **{'epochs': 1, 'data.batch_size': 12, 'eval.batch_size': 4}
  )
  rows = loop.train(config, tmp_path)
  records = records_lib.read(tmp_path / 'metrics.jsonl')
  kinds = [(r['kind'], r['step']) for r in records if r['kind'] != 'train']
  assert kinds == [('eval', 0), ('validation', 3), ('eval', 3), ('eval', 3)]
  assert rows['best by validation']['checkpoint'] == 3
  val = from_checkpoint.read_task(tmp_path, query='val')
  assert np.unique(val.queries.labels).tolist() == [3, 7, 11, 15]


@pytest.mark.slow
def test_queries_are_ranked_against_a_gallery_of_their_own(
  tmp_path, monkeypatch, colors
):
  # Names do not tell classes apart, and the gallery lacks the first class.
  test = dataclasses.replace(
    colors['test'], names={'label': ['x'] * 16}, levels=()
  )
  first = np.arange(len(test)) % 3 == 0
  made = {
    'train': colors['train'],
    'query': test.select(~first, 'query'),
    'gallery': test.select(first & (test.labels > 0), 'gallery'),
  }
  monkeypatch.setattr(datasets, 'load', lambda name, **_: made)
  config = training_data.config(epochs=1)
  rows = loop.train(config, tmp_path / 'run')
  assert [row['num_queries'] for row in rows.values()] == [32] * 2
  task = from_checkpoint.read_task(tmp_path / 'run')
  assert task.queries.labels.tolist() == np.arange(16, 32).repeat(2).tolist()
  assert task.gallery.labels.tolist() == list(range(17, 32))
  want = retrieval_metrics(
    task.queries.embeddings,
    task.queries.labels,
    gallery=task.gallery.embeddings,
    gallery_labels=task.gallery.labels,
    c=0.1,
  )
  assert rows['after training'].items() >= want.items()
  alone = from_checkpoint.read_task(tmp_path / 'run', query='gallery')
  assert alone.gallery is None
