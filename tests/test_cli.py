"""What the command line says and the code it exits with."""

import pytest

from hier_jax import cli
from hier_jax.data import datasets
from tests import training_data

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
  made = training_data.splits()
  monkeypatch.setattr(datasets, 'load', lambda name, data_dir=None: made)
  path = tmp_path / 'config.py'
  path.write_text(CONFIG)
  return path


def run(*args):
  return cli.main(['hier-jax', *map(str, args)])


def test_train_prints_a_table(config_file, tmp_path, capsys):
  workdir = tmp_path / 'run'
  code = run('train', '--config', f'{config_file}:short', '--workdir', workdir)
  assert code == 0
  assert 'after training' in capsys.readouterr().out
  assert (workdir / 'results.json').exists()


@pytest.mark.parametrize(
  ('args', 'message'),
  [
    (['--config.optim.lrr=3'], 'lrr'),
    (['--config.optim.lr=abc'], "could not convert string to float: 'abc'"),
    (['--config.loss.hier.tau=-1'], 'config.loss.hier.tau is -1.0'),
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
    (['train'], 'hier-jax train needs --config FILE[:PRESET] and --workdir'),
    (['train', '--workdir', 'x', '--config', 'no.py'], 'no.py cannot be read'),
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
  with pytest.raises(cli.UserError, match='tau'):
    run('train', *flags, '--config.loss.hier.tau=-1', '--traceback')


def test_help(capsys):
  assert run('--help') == 0
  assert 'train --config FILE[:PRESET] --workdir DIR' in capsys.readouterr().out
  assert run() == 2
