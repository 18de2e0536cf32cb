"""What the command line says and the code it exits with."""

import errno
import json
import os
import pathlib
import re
import signal
import subprocess
import sys

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hier_jax import cli, cli_flags, models
from hier_jax.data import datasets
from hier_jax.models.weights import pretrained
from hier_jax.training.config import checks
from hier_jax.training.run import dry_run
from tests.support import archives, training_data

CONFIG = """
from hier_jax.errors import UserError
from tests import training_data

def get_config(preset=None):
  if preset not in (None, 'short'):
    raise UserError(f'unknown preset {preset!r}: expected short')
  return training_data.config(epochs=1)
"""


@pytest.fixture
def config_file(tmp_path, monkeypatch):
  made = training_data.splits(noise=250)
  monkeypatch.setattr(datasets, 'load', lambda name, **_: made)
  path = tmp_path / 'config.py'
  path.write_text(CONFIG)
  return path


def run(*args):
  return cli.main(['hier-jax', *map(str, args)])


def test_train_prints_a_table_and_evaluate_the_same(
  config_file, tmp_path, capsys
):
  workdir, out = tmp_path / 'run', tmp_path / 'figures.json'
  code = run('train', '--config', f'{config_file}:short', '--workdir', workdir)
  assert code == 0
  assert 'after training' in capsys.readouterr().out
  results = json.loads((workdir / 'results.json').read_text())
  for path in (workdir, workdir / 'checkpoints' / '3'):
    assert run('evaluate', path, '--out', out) == 0
    found = json.loads(out.read_text())
    want = results['after training']
    assert want['map@r'] != results['before training']['map@r'] < 1
    assert {key: found[key] for key in want if key in found} == {
      key: value
      for key, value in want.items()
      if '@' in key or 'num' in key or key in ('distance', 'ties')
    }
    assert found['c'] == 0.1
    # The tree is the data set's own.
    assert 0 < found['hierarchy/kind/recall@1'] <= 1
    assert 1 <= found['proxies/used'] <= 24
    assert 0 < found['hierarchy/tree/kind/purity'] <= 1
    assert f'{found["map@r"]:.4f}' in capsys.readouterr().out
  assert run('report', workdir, '--out', tmp_path / 'report') == 0
  mean = f'{100 * results["after training"]["map@r"]:.2f}'
  assert mean in capsys.readouterr().out
  assert (tmp_path / 'report' / 'curves.png').exists()
  splits = ['--query', 'train', '--gallery', 'test']
  # Train and test have no class in common.
  assert run('evaluate', workdir, *splits) == 2
  assert 'none of the 48 queries has a positive' in capsys.readouterr().err
  for path, flags, message in (
    (workdir, ['--query', 'val'], "has no split 'val'; it has train, test"),
    (workdir / 'checkpoints' / '7', [], 'does not exist'),
  ):
    assert run('evaluate', path, *flags) == 2
    assert message in capsys.readouterr().err


def test_dry_run_describes_and_writes_nothing(config_file, tmp_path, capsys):
  before = set(tmp_path.iterdir())
  args = ['--config.optim.warmup_epochs=2', '--config.epochs=4']
  assert run('train', '--config', config_file, '--dry_run', *args) == 0
  out = capsys.readouterr().out
  assert '"backbone": "vit_test_patch4"' in out
  rows = {
    line.split()[0]: line.split()[1:] for line in out.splitlines() if line
  }
  # 24 proxies of 16 numbers, at 50 times lr * 16 / 180 of 1e-2.
  assert rows['hierarchical_proxies'] == ['384'] + ['0.0444'] * 3
  assert rows['backbone'][1:] == ['0', '0.000889', '0.000889']
  assert '3 steps an epoch, 4 epochs, 12 steps' in out
  assert 'batch of 16 (8 classes x 2 images): 4 on each of 4' in out
  assert 'temporaries' in out
  assert set(tmp_path.iterdir()) == before


@pytest.mark.parametrize(
  ('args', 'message'),
  [
    (['--config.optim.lrr=3'], "--config.optim.lrr; did you mean 'optim.lr'?"),
    (['--config.learning_rate=3'], "did you mean 'optim.lr'?"),
    (['--config.optimm.lr', '3'], "did you mean 'optim.lr'?"),
    (['--config.optim.lr.x=3'], "did you mean 'optim.lr'?"),
    (['--config.zzz=3'], 'hier_jax/training/config/default.py has all keys'),
    (['--config.optim.lr=abc'], '--config.optim.lr=abc: expected float'),
    (['--config.epochs=None'], '--config.epochs=None: expected int'),
    (['--config.optim.ema_decay=x'], 'ema_decay=x: expected float or None'),
    (['--config.optim.freeze=a', '--config.optim.freeze=b'], 'already defined'),
    (['--config.eval.recall_at=a'], "recall_at is ('a',), must be whole num"),
    (['--workdr=x'], "unknown flag --workdr; did you mean 'workdir'?"),
    (['--seeds'], 'Missing value for flag --seeds'),
    (['--seeds=a'], '--seeds is a, expected integers'),
    (
      ['--config.loss.hier.temperature=-1'],
      'config.loss.hier.temperature is -1.0',
    ),
    (['--config.data.batch_size=18'], 'does not divide among 4 devices'),
    (['--config.data.name=cub9000'], 'unknown data set'),
    (['--nonsense'], 'nonsense'),
    (['stray'], "unexpected argument 'stray'"),
  ],
)
def test_a_mistake_is_one_line_and_code_2(
  config_file, tmp_path, capsys, monkeypatch, args, message
):
  if 'unknown data set' in message:
    monkeypatch.undo()
  workdir = tmp_path / 'run'
  flags = ['--config', config_file, '--workdir', workdir]
  assert run('train', *flags, *args) == 2
  error = capsys.readouterr().err.strip()
  assert error.startswith('hier-jax: error: ')
  assert message in error
  assert '\n' not in error
  assert not workdir.exists()


@pytest.mark.parametrize(
  ('args', 'message'),
  [
    (['nonsense'], "unknown verb 'nonsense'; the known ones are train"),
    (['trian'], "unknown verb 'trian'; did you mean 'train'?"),
    (['train'], 'train needs --config FILE[:PRESET] and --workdir'),
    (['train', '--workdir', 'x', '--config', 'no.py'], 'no.py cannot be read'),
    (['train', '--config', '--workdir', 'x'], 'is followed by --workdir'),
    (['train', '--config', 'a.py', '--workdir', ''], '--workdir is empty'),
    (['train', '--nodry_run=3'], '--nodry_run=3 does not take an argument'),
    (['evaluate', 'a.npz', '--recall_at', ''], '--recall_at is empty'),
    (['report', ''], 'a path is empty'),
    ([''], "unknown verb ''; the known ones are train"),
    (['evaluate', ''], 'a path is empty'),
    (['convert', 'a.npz', ''], 'a path is empty'),
  ],
)
def test_missing_arguments_are_named(capsys, args, message):
  assert run(*args) == 2
  assert message in capsys.readouterr().err


def test_unknown_preset_is_named(config_file, tmp_path, capsys):
  flags = ['--config', f'{config_file}:long', '--workdir', tmp_path / 'run']
  assert run('train', *flags) == 2
  error = capsys.readouterr().err
  assert error == "hier-jax: error: unknown preset 'long': expected short\n"


def test_traceback_on_request(config_file, tmp_path):
  flags = ['--config', config_file, '--workdir', tmp_path / 'run']
  with pytest.raises(cli.UserError, match='temperature'):
    run('train', *flags, '--config.loss.hier.temperature=-1', '--traceback')


@pytest.mark.parametrize('verb', cli_flags.VERBS)
def test_help_of_a_verb_has_its_flags_with_their_meaning(verb, capsys):
  assert run(verb, '--help') == 0
  usage, flags = capsys.readouterr().out.split('flags:\n')
  assert f'  hier-jax {verb} ' in usage
  lines = flags.splitlines()
  at = [i for i, line in enumerate(lines) if line.startswith('  --')]
  assert '  --traceback' in lines and len(at) > 1
  assert all(lines[i + 1].startswith(' ' * 6) for i in at)
  # What may follow a verb in its usage is explained.
  named = set(re.findall(r'--(\w+)', usage)) - {'config'}
  assert named <= {lines[i].split()[0].removeprefix('--') for i in at}
  capsys.readouterr()
  assert run('--help') == 0
  assert usage.removeprefix('usage:\n').strip() in capsys.readouterr().out


def test_version(capsys):
  assert run('--version') == 0
  assert re.match(
    r'hier_jax [\w. ]+, jax \d.*, Python 3', capsys.readouterr().out
  )


def test_a_workdir_that_is_a_file_is_refused_at_once(config_file, capsys):
  flags = ['--config', config_file, '--workdir', config_file]
  assert run('train', *flags) == 2
  assert f'{config_file} is a file' in capsys.readouterr().err


def test_optional_keys_take_none_and_their_own_type(
  config_file, capsys, monkeypatch
):
  def describe(config, workdir):
    checks.validate(config)
    return config.to_json()

  monkeypatch.setattr(dry_run, 'describe', describe)
  args = ['train', '--config', config_file, '--dry_run', '--config.epochs=2']
  args += ['--config.model.mean=1,1,1', '--noconfig.eval.pixels']
  for key in ('model.clip_radius', 'data.train_view.scale', 'optim.clip_norm'):
    args.append(f'--config.{key}=None')
  assert run(*args) == 0
  found = json.loads(capsys.readouterr().out)
  assert found['model']['clip_radius'] is None
  assert found['data']['train_view']['scale'] is None
  assert found['model']['mean'] == [1, 1, 1]
  # A file may have set it to None before.
  config_file.write_text(
    config_file.read_text().replace(
      'epochs=1', "**{'data.train_view.scale': None}"
    )
  )
  assert run(*args[:4], '--config.data.train_view.scale=0.2,1.0') == 0
  found = json.loads(capsys.readouterr().out)
  assert found['data']['train_view']['scale'] == [0.2, 1.0]


def write_embeddings(path):
  np.savez(path, embeddings=np.eye(4), labels=[0, 0, 1, 1])
  return path


def test_what_evaluate_found_is_not_lost(tmp_path, capsys, monkeypatch):
  path = write_embeddings(tmp_path / 'a b é.npz')
  monkeypatch.setattr(pathlib.Path, 'replace', no_room)
  out = tmp_path / 'new' / 'out.json'
  assert run('evaluate', path, '--out', out) == 2
  told = capsys.readouterr()
  assert 'recall@1' in told.out
  assert f'{out} cannot be written (OSError: No space left' in told.err
  assert told.err.count('\n') == 1


def no_room(*_):
  raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.parametrize(
  ('args', 'message'),
  [
    (['evaluate', 'a.npz', '--out', 'a.npz'], 'a.npz is an input'),
    (['evaluate', 'a.npz', '--out', 'b.npz'], "b.npz ends with '.npz'"),
    (['evaluate', 'a.npz', '--out', 'a.npz/b.json'], 'which is no folder'),
    (
      ['evaluate', 'run', '--out', 'run/config.json'],
      'config.json is an input',
    ),
    (['evaluate', 'run', '--query', 'x', '--out', 'run'], 'run is an input'),
    (
      ['evaluate', 'i.faiss.npz', '--gallery', 'i.npz', '--export', 'faiss'],
      'i.faiss.npz is an input',
    ),
    (['report', 'run', '--out', 'a.npz'], 'a.npz is a file'),
    (['data', 'info', 'emoji', '--sheet', 'a.jpg'], "a.jpg ends with '.jpg'"),
    (['convert', 'a.safetensors', 'x.npz'], "x.npz ends with '.npz'"),
    (['convert', 'a.safetensors', 'a.safetensors'], 'is an input'),
    (['convert', 'a.safetensors', 'a.npz/b.safetensors'], 'is no folder'),
  ],
)
def test_outputs_are_checked_before_anything_is_read(
  tmp_path, monkeypatch, capsys, args, message
):
  monkeypatch.chdir(tmp_path)
  for name in ('a.npz', 'a.safetensors', 'i.npz', 'i.faiss.npz'):
    pathlib.Path(name).write_text('no embeddings and no weights')
  pathlib.Path('run').mkdir()
  pathlib.Path('run/config.json').write_text('{')
  before = {p: p.read_text() for p in tmp_path.rglob('*') if p.is_file()}
  assert run(*args) == 2
  assert message in capsys.readouterr().err
  after = {p: p.read_text() for p in tmp_path.rglob('*') if p.is_file()}
  assert before == after


def test_help(capsys):
  assert run('--help') == 0
  assert 'train --config FILE[:PRESET] --workdir DIR' in capsys.readouterr().out
  assert run() == 2


def test_data_prepares_and_describes(tmp_path, capsys):
  folder = tmp_path / 'images'
  for i, name in enumerate(('red', 'green', 'blue', 'grey')):
    for k in range(2):
      archives.write_image(folder / name / f'{k}.png', 40 * i + k)
  args = ['folder/mine', '--data_dir', tmp_path / 'data']
  assert run('data', 'info', *args) == 2
  assert 'data prepare' in capsys.readouterr().err
  assert run('data', 'prepare', *args, '--from', folder) == 0
  prepared = capsys.readouterr().out
  assert 'train: ' in prepared
  sheet = tmp_path / 'sheet.png'
  assert run('data', 'info', *args, '--sheet', sheet) == 0
  said = f'contact sheet written to {sheet}\n'
  assert capsys.readouterr().out == prepared + said
  assert sheet.read_bytes().startswith(b'\x89PNG')
  for wrong, message in (
    (['info', *args, '--from', folder], '--from goes with data prepare only'),
    (['prepare'], 'found prepare'),
    (['show', 'emoji'], 'found show emoji'),
    (['prepare', 'cub', '--from', folder], "unknown data set 'cub'"),
  ):
    assert run('data', *wrong) == 2
    assert message in capsys.readouterr().err


def test_convert_there_and_back(tmp_path, capsys):
  ours, timm, back = (tmp_path / f'{x}.safetensors' for x in 'abc')
  model = models.create_backbone('vit_test_patch4', image_size=8)
  images = jnp.zeros((1, 8, 8, 3))
  variables = model.init(jax.random.key(0), images, train=False)
  pretrained.save(ours, variables, architecture='vit_test_patch4')
  assert run('convert', ours, timm, '--timm') == 0
  assert 'vit_test_patch4: ' in capsys.readouterr().out
  assert run('convert', timm, back) == 0
  assert 'layout timm' in capsys.readouterr().out
  found = pretrained.load(back, model).variables
  chex.assert_trees_all_equal(found, variables)
  assert run('convert', ours) == 2
  assert 'convert needs a SOURCE' in capsys.readouterr().err


def test_a_reader_that_leaves_is_no_error():
  program = (
    'import sys; from hier_jax import cli;'
    "sys.exit(cli.main(['hier-jax', '--help']))"
  )
  read, write = os.pipe()
  os.close(read)
  done = subprocess.run(
    [sys.executable, '-c', program], stdout=write, stderr=subprocess.PIPE
  )
  os.close(write)
  assert (done.returncode, done.stderr) == (128 + signal.SIGPIPE, b'')


@pytest.mark.parametrize('folder', [None, 'empty', '5.orbax-checkpoint-tmp'])
def test_evaluate_of_an_untrained_run_writes_nothing(tmp_path, capsys, folder):
  """Nor the bundled data set where a stranger's config says."""
  workdir, data_dir = tmp_path / 'run', tmp_path / 'data'
  workdir.mkdir()
  if folder is not None:
    (workdir / 'checkpoints' / folder).mkdir(parents=True)
  config = training_data.config(**{'data.data_dir': str(data_dir)})
  (workdir / 'config.json').write_text(config.to_json())
  before = sorted(tmp_path.rglob('*'))
  assert run('evaluate', workdir) == 2
  assert 'holds no checkpoints: train it first' in capsys.readouterr().err
  assert sorted(tmp_path.rglob('*')) == before


def test_data_takes_images_up_to_the_limit_of_the_user(tmp_path, capsys):
  for name in 'abcd':
    archives.write_image(tmp_path / 'images' / name / '1.png')
  limit = ['--max_megapixels', '9e-5']
  args = ['folder/mine', '--data_dir', tmp_path / 'data']
  prepare = ['prepare', *args, '--from', tmp_path / 'images']
  assert run('data', *prepare, *limit) == 2
  message = '12 x 8 pixels, more than max_megapixels, 9e-05, allows'
  assert message in capsys.readouterr().err
  assert run('data', *prepare) == 0
  assert run('data', 'info', *args, *limit) == 2
  assert message in capsys.readouterr().err
