"""A whole run in small: its devices, its interruptions, its complaints."""

import dataclasses
import functools
import json
import os
import re
import signal

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hier_jax.data import datasets
from hier_jax.errors import UserError
from hier_jax.evaluation import retrieval_metrics
from hier_jax.models import embedder
from hier_jax.models.weights import pretrained
from hier_jax.training.distributed import mapping
from hier_jax.training.logs import progress
from hier_jax.training.logs import records as records_lib
from hier_jax.training.run import dry_run, evaluator, from_checkpoint, loop
from hier_jax.training.run.checkpoint import Checkpoints
from hier_jax.training.step import state as state_lib
from hier_jax.training.step import train_step as step_lib
from tests.support import training_data


@pytest.fixture(autouse=True)
def colours(monkeypatch):
  made = training_data.splits()
  monkeypatch.setattr(datasets, 'load', lambda name, **_: made)
  return made


def losses_on(devices, backbone, steps=20):
  """Losses of the first steps on so many devices."""
  config = training_data.config(
    **{
      'model.backbone': backbone,
      'optim.lr': 1e-4,
      'loss.hier.triplets_per_anchor': 100,
    }
  )
  model = embedder.create(**config.model.to_dict(), axis_name=mapping.AXIS)
  optimizer = training_data.optimizer(config)
  state = state_lib.create(config, model, optimizer, num_classes=16)
  step = mapping.map_step(
    step_lib.make_train_step(config, model, optimizer),
    devices=jax.local_devices()[:devices],
  )
  rng = np.random.default_rng(0)
  found = []
  for _ in range(steps):
    batch = {
      'image': rng.integers(0, 256, (16, 8, 8, 3)).astype(np.uint8),
      'label': rng.permutation(16)[:8].repeat(2).astype(np.int32),
    }
    state, metrics = step(state, batch)
    found.append(float(metrics['loss']))
  return np.array(found)


@pytest.mark.parametrize('backbone', ['vit_test_patch4', 'resnet_test'])
def test_losses_do_not_depend_on_the_number_of_devices(backbone):
  one, four = losses_on(1, backbone), losses_on(4, backbone)
  np.testing.assert_allclose(four, one, rtol=1e-5)


def final_state(workdir, config):
  model = embedder.create(**config.model.to_dict(), axis_name=mapping.AXIS)
  optimizer = training_data.optimizer(config)
  state = state_lib.create(config, model, optimizer, num_classes=16)
  with Checkpoints(workdir / 'checkpoints', keep=2) as checkpoints:
    return checkpoints.latest_step, checkpoints.restore(state)


def assert_same_run(a, b, config):
  for name in ('metrics.jsonl', 'results.json', 'config.json'):
    assert (a / name).read_bytes() == (b / name).read_bytes(), name
  (step_a, state_a), (step_b, state_b) = (
    final_state(workdir, config) for workdir in (a, b)
  )
  assert step_a == step_b == 12
  same = jax.tree.map(lambda x, y: bool(jnp.all(x == y)), state_a, state_b)
  assert all(jax.tree.leaves(same))


def terminated(monkeypatch, config, workdir, call):
  """What a run returns that gets SIGTERM in so manyth batch it embeds."""
  mapped, calls = mapping.map_embed, []

  def map_embed(*args, **kwargs):
    embed = mapped(*args, **kwargs)

    def called(variables, images):
      calls.append(None)
      if len(calls) == call:
        os.kill(os.getpid(), signal.SIGTERM)
      return embed(variables, images)

    return called

  with monkeypatch.context() as patch:
    patch.setattr(mapping, 'map_embed', map_embed)
    found = loop.train(config, workdir)
  assert len(calls) == call
  return found


@pytest.mark.parametrize(
  'settings',
  [
    {'model.backbone': 'resnet_test'},
    {
      'loss.metric': 'multi_similarity',
      'loss.memory.size': 32,
      'eval.hold_out': 4,
      'eval.every_epochs': 1,
      'data.batch_size': 12,
    },
  ],
  ids=['resnet', 'memory'],
)
def test_interrupted_run_ends_bitwise_as_the_uninterrupted(
  tmp_path, monkeypatch, settings
):
  config = training_data.config(**settings)
  whole, cut = tmp_path / 'whole', tmp_path / 'cut'
  loop.train(config, whole)

  write = records_lib.MetricsLog.write

  def at_step(step, signal):
    def writing(self, record):
      write(self, record)
      if record['step'] == step:
        os.kill(os.getpid(), signal)

    return writing

  with monkeypatch.context() as patch:
    patch.setattr(records_lib.MetricsLog, 'write', at_step(8, signal.SIGINT))
    with pytest.raises(KeyboardInterrupt):
      loop.train(config, cut)
  with monkeypatch.context() as patch:
    # A step's record is written while the next runs, and that one is the last.
    patch.setattr(records_lib.MetricsLog, 'write', at_step(7, signal.SIGTERM))
    assert loop.train(config, cut) is None
  assert final_state(cut, config)[0] == 8
  assert not (cut / 'results.json').exists()
  assert (cut / 'metrics.jsonl').read_bytes() != (
    whole / 'metrics.jsonl'
  ).read_bytes()
  if config.eval.hold_out is not None:
    # Validations of one batch at 9 and 12, three of the last, then the best.
    assert terminated(monkeypatch, config, cut, 2 + 3 + 2) is None
    assert not (cut / 'results.json').exists()
  loop.train(config, cut)
  assert_same_run(whole, cut, config)
  loop.train(config, cut)  # a finished run only prints its table again
  assert_same_run(whole, cut, config)


def test_sigterm_stops_within_a_batch_of_an_evaluation(tmp_path, monkeypatch):
  # Three batches each: before training, after step 6, and after 12, the last.
  config = training_data.config()
  whole, cut = tmp_path / 'whole', tmp_path / 'cut'
  loop.train(config, whole)
  # What is cut is done again. Between them one looks at the first batch.
  for call, saved in ((2, None), (3 + 1 + 2, 6), (3 + 1 + 1, 12)):
    assert terminated(monkeypatch, config, cut, call) is None
    with Checkpoints(cut / 'checkpoints') as checkpoints:
      assert checkpoints.latest_step == saved
    assert not (cut / 'results.json').exists()
  loop.train(config, cut)
  assert_same_run(whole, cut, config)


def test_a_first_batch_that_cannot_be_is_named(tmp_path, monkeypatch):
  said = []
  monkeypatch.setattr(
    progress.Progress, 'say', lambda _, text: said.append(text)
  )
  create = loop.state_lib.create
  monkeypatch.setattr(
    loop.state_lib,
    'create',
    lambda *args, num_classes=16: create(*args[:3], num_classes=10),
  )
  config = training_data.config()
  with pytest.raises(UserError, match=r'labels\[\d+\] is 1\d, .* in 0\.\.9'):
    loop.train(config, tmp_path / 'run')
  assert not any('compil' in line for line in said)


def test_records_and_results(tmp_path, capsys, monkeypatch):
  said = []
  monkeypatch.setattr(
    progress.Progress, 'say', lambda _, text: said.append(text)
  )
  config = training_data.config()
  rows = loop.train(config, tmp_path / 'run')
  lines = (tmp_path / 'run' / 'metrics.jsonl').read_text().splitlines()
  records = [json.loads(line) for line in lines]
  train = [r for r in records if r['kind'] == 'train']
  assert [r['step'] for r in train] == list(range(1, 13))
  for record in train:
    # 0.5 is the default weight of HIER.
    total = record['metric'] + 0.5 * record['hier']
    assert record['loss'] == pytest.approx(total, rel=1e-6)
  evals = [(r['name'], r['step']) for r in records if r['kind'] == 'eval']
  assert evals == [('before training', 0), ('step 6', 6), ('step 12', 12)]
  assert list(rows) == ['before training', 'after training']
  first, second = (line for line in said if line.startswith('compil'))
  assert first == 'compiling the training step ...'
  assert re.fullmatch(r'compiled the training step in \d+\.\d s', second)
  table = capsys.readouterr().out
  assert 'after training' in table
  assert f'{100 * rows["after training"]["recall@1"]:.1f}' in table


def test_the_best_on_held_out_classes_is_kept_and_tested(
  tmp_path, monkeypatch, capsys
):
  scores = iter([0.2, 0.5, 0.3, 0.5, 0.4, 0.9])
  ranked = evaluator.retrieval.retrieval_metrics

  def judged(embeddings, labels, **settings):
    found = ranked(embeddings, labels, **settings)
    if len(labels) == 12:  # the four classes held out
      found['map@r'] = next(scores)
    return found

  monkeypatch.setattr(evaluator.retrieval, 'retrieval_metrics', judged)
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
  assert terminated(monkeypatch, config, workdir, 12 + 3 + 2) is None
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


def test_a_data_sets_own_validation_split_is_used(tmp_path, colours):
  colours['train'], colours['val'] = datasets.hold_out(colours['train'], 4)
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


class Watched:
  """A value that notes how many steps had begun when it was read."""

  def __init__(self, value, step, begun, read):
    self.value, self.step, self.begun, self.read = value, step, begun, read

  def __array__(self, *args, **kwargs):
    self.read.append((self.step, len(self.begun)))
    return np.asarray(self.value)


def test_no_step_is_waited_for_before_the_next_is_logged(tmp_path, monkeypatch):
  begun, read = [], []
  mapped = mapping.map_step

  def map_step(*args, **kwargs):
    step = mapped(*args, **kwargs)

    def watched(state, batch):
      state, metrics = step(state, batch)
      begun.append(None)
      now = len(begun)
      return state, {
        name: Watched(value, now, begun, read)
        for name, value in metrics.items()
      }

    return watched

  monkeypatch.setattr(mapping, 'map_step', map_step)
  config = training_data.config(
    log_every=3, **{'eval.every_epochs': 4, 'checkpoint.every_epochs': 4}
  )
  loop.train(config, tmp_path / 'run')
  assert {step for step, _ in read} == set(range(1, 13))
  # The last are read at the evaluation that ends the run.
  early = [(s, now) for s, now in read if now < min(s + 3, 12)]
  assert not early


def test_begins_with_pretrained_weights(tmp_path, capsys):
  path = tmp_path / 'weights.safetensors'
  config = training_data.config(epochs=1, pretrained=str(path))
  model = embedder.create(**config.model.to_dict())
  optimizer = training_data.optimizer(config)
  drawn = state_lib.create(config, model, optimizer, num_classes=16)
  want = jax.tree.map(lambda a: a + 0.1, drawn.params['model']['backbone'])
  pretrained.save(path, {'params': want}, architecture='vit_test_patch4')
  loaded = state_lib.read_pretrained(str(path), model, backbone='x')
  state = state_lib.with_pretrained(drawn, loaded, config.optim)
  chex.assert_trees_all_equal(state.params['model']['backbone'], want)
  chex.assert_trees_all_equal(
    state.params['model']['head'], drawn.params['model']['head']
  )
  rows = loop.train(config, tmp_path / 'run')
  assert 'pretrained weights: ' in capsys.readouterr().out
  assert loop.train(config, tmp_path / 'run') == rows
  assert 'pretrained weights: ' not in capsys.readouterr().out
  without = loop.train(training_data.config(epochs=1), tmp_path / 'without')
  assert without['before training'] != rows['before training']
  with pytest.raises(UserError, match='is no file'):
    loop.train(
      training_data.config(epochs=1, pretrained='vit_huge'), tmp_path / 'none'
    )


@pytest.mark.parametrize(
  'run', [loop.train, dry_run.describe], ids=['train', 'dry_run']
)
def test_weights_are_checked_before_anything_is_compiled_or_written(
  tmp_path, monkeypatch, run
):
  monkeypatch.setattr(loop.workdirs, 'claimed', lambda *_: 1 / 0)
  monkeypatch.setattr(mapping, 'compile_step', lambda *_, **__: 1 / 0)
  model = embedder.create(**training_data.config().model.to_dict())
  shapes = jax.eval_shape(
    functools.partial(model.init, train=False),
    jax.random.key(0),
    jax.ShapeDtypeStruct((1, 8, 8, 3), np.uint8),
  )
  backbone = jax.tree.map(lambda a: np.zeros(a.shape), shapes['params'])
  wrong = tmp_path / 'wrong.safetensors'
  pretrained.save(
    wrong,
    {'params': backbone['backbone'] | {'norm': {}}},
    architecture='vit_test_patch4',
  )
  for name, message in (
    ('vit_huge', "pretrained is 'vit_huge': vit_huge is no file"),
    (str(tmp_path / 'none.safetensors'), 'none.safetensors does not exist'),
    (str(wrong), 'does not fit the backbone: 2 missing'),
    ('hub', "pretrained is 'hub': there are no published weights"),
  ):
    with pytest.raises(UserError, match=message):
      run(training_data.config(pretrained=name), tmp_path / 'run')
  assert not (tmp_path / 'run').exists()


def test_a_run_becomes_as_long_as_one_that_was_meant_to_be(tmp_path):
  short, long = (
    training_data.config(
      epochs=epochs,
      **{
        'data.batch_size': 12,
        'eval.hold_out': 4,
        'eval.every_epochs': 1,
      },
    )
    for epochs in (2, 4)
  )
  loop.train(short, tmp_path / 'cut')
  rows = loop.train(long, tmp_path / 'cut')
  assert rows == loop.train(long, tmp_path / 'whole')
  # The checksum of the last state's arrays.
  last = [
    json.loads((path / 'checkpoints/12/_CHECKPOINT_METADATA').read_text())
    for path in (tmp_path / 'cut', tmp_path / 'whole')
  ]
  assert last[0]['custom_metadata'] == last[1]['custom_metadata']


def test_a_moved_run_is_evaluated_with_data_that_was_moved(
  tmp_path, monkeypatch, colours, capsys
):
  places = []

  def load(name, data_dir=None, **_):
    assert os.path.isabs(data_dir)
    places.append(os.path.realpath(data_dir))
    if places[-1] != str(tmp_path / 'data'):
      raise UserError('data set is not prepared')
    return colours

  monkeypatch.setattr(datasets, 'load', load)
  monkeypatch.chdir(tmp_path)
  config = training_data.config(epochs=1, **{'data.data_dir': 'data'})
  rows = loop.train(config, 'run')
  (tmp_path / 'elsewhere').mkdir()
  monkeypatch.chdir(tmp_path / 'elsewhere')
  (tmp_path / 'run').rename('moved')
  task = from_checkpoint.read_task('moved')
  # What the config leads to is told.
  assert f'data are read from {tmp_path}/data' in capsys.readouterr().err
  want = retrieval_metrics(task.queries.embeddings, task.queries.labels, c=0.1)
  assert rows['after training'].items() >= want.items()
  # The same run goes on from another folder.
  config.data.data_dir = '../data'
  assert loop.train(config, 'moved') == rows
  from_checkpoint.read_task('moved', data_dir=tmp_path / 'data')
  assert set(places) == {str(tmp_path / 'data')} and len(places) == 4
  with pytest.raises(
    UserError, match=r'not prepared. If the data .*--data_dir'
  ):
    from_checkpoint.read_task('moved', data_dir='/nowhere')


def test_queries_are_ranked_against_a_gallery_of_their_own(
  tmp_path, monkeypatch, colours
):
  # Names do not tell classes apart, and the gallery lacks the first class.
  test = dataclasses.replace(
    colours['test'], names={'label': ['x'] * 16}, levels=()
  )
  first = np.arange(len(test)) % 3 == 0
  made = {
    'train': colours['train'],
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


def test_without_hier_there_are_no_hierarchical_proxies(tmp_path):
  config = training_data.config(**{'loss.hier_weight': 0.0, 'epochs': 1})
  loop.train(config, tmp_path / 'run')
  records = (tmp_path / 'run' / 'metrics.jsonl').read_text()
  assert 'hier' not in records
  model = embedder.create(**config.model.to_dict())
  optimizer = training_data.optimizer(config)
  state = state_lib.create(config, model, optimizer, num_classes=16)
  assert list(state.params['loss']) == ['class_proxies']


def test_another_runs_workdir_is_refused_and_untouched(tmp_path):
  workdir = tmp_path / 'run'
  loop.train(training_data.config(epochs=1), workdir)
  before = {p: p.stat().st_mtime_ns for p in sorted(workdir.rglob('*'))}
  with pytest.raises(UserError, match=r'optim.lr is 0.01 there and 0.02 here'):
    loop.train(training_data.config(epochs=1, **{'optim.lr': 0.02}), workdir)
  assert {p: p.stat().st_mtime_ns for p in sorted(workdir.rglob('*'))} == before


def test_a_folder_of_other_things_is_refused(tmp_path):
  (tmp_path / 'thesis.tex').write_text('dear')
  with pytest.raises(UserError, match=r'not empty and holds no config.json'):
    loop.train(training_data.config(), tmp_path)
  assert [p.name for p in tmp_path.iterdir()] == ['thesis.tex']


def test_loss_that_is_not_finite_stops_the_run(tmp_path):
  config = training_data.config(**{'optim.lr': 1e30})
  with pytest.raises(UserError, match=r'the loss is nan at step \d+'):
    loop.train(config, tmp_path / 'run')
  with Checkpoints(tmp_path / 'run' / 'checkpoints', keep=2) as checkpoints:
    assert checkpoints.latest_step is None


def test_unreadable_image_is_named(tmp_path, colours):
  colours['train'].source[5]['image'] = b'not an image'
  with pytest.raises(UserError, match='image 5 of colours:train'):
    loop.train(training_data.config(), tmp_path / 'run')


def test_broken_checkpoint_is_named(tmp_path):
  config = training_data.config(epochs=1)
  loop.train(config, tmp_path / 'run')
  folder = tmp_path / 'run' / 'checkpoints' / '3'
  assert folder.is_dir()
  for path in (folder / 'state').rglob('*'):
    if path.is_file():
      path.write_bytes(b'')
  with pytest.raises(UserError, match=r'checkpoint 3 in .* cannot be restored'):
    loop.train(config, tmp_path / 'run')


def test_a_run_killed_before_its_first_checkpoint_begins_anew(
  tmp_path, monkeypatch
):
  config = training_data.config(epochs=1)
  loop.train(config, tmp_path / 'whole')
  with monkeypatch.context() as patch:
    patch.setattr(loop._Run, '_batches', lambda self: 1 / 0)
    with pytest.raises(ZeroDivisionError):
      loop.train(config, tmp_path / 'cut')
  loop.train(config, tmp_path / 'cut')
  whole, cut = (tmp_path / w / 'metrics.jsonl' for w in ('whole', 'cut'))
  assert whole.read_bytes() == cut.read_bytes()
