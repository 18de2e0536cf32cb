"""`hier-jax train`: flags, keys of the config, dry runs."""

import json

import pytest

from hier_jax.training.config import checks
from hier_jax.training.run import dry_run, loop
from hier_jax.viz import explore
from tests.support.command_line import run


@pytest.mark.slow
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
    (
      ['--config.optim.lrr=3'],
      "--config.optim.lrr; did you mean '--config.optim.lr'?",
    ),
    (['--config.learning_rate=3'], "did you mean '--config.optim.lr'?"),
    (['--config.optimm.lr', '3'], "did you mean '--config.optim.lr'?"),
    (['--config.optim.lr.x=3'], "did you mean '--config.optim.lr'?"),
    (['--config.zzz=3'], 'hier_jax/training/config/default.py lists all keys'),
    (['--config.optim.lr=abc'], '--config.optim.lr=abc: expected float'),
    (['--config.epochs=None'], '--config.epochs=None: expected int'),
    (['--config.optim.ema_decay=x'], 'ema_decay=x: expected float or None'),
    (['--config.optim.freeze=a', '--config.optim.freeze=b'], 'already defined'),
    (['--config.eval.recall_at=a'], "recall_at is ('a',), must be whole num"),
    (['--workdr=x'], "unknown flag --workdr; did you mean '--workdir'?"),
    (['--config.loss.metric='], '--config.loss.metric is empty: expected VAL'),
    (['--config.optim.lr'], '--config.optim.lr has no value: expected VALUE;'),
    (['--seeds'], '--seeds has no value: expected 0,1,2; see hier-jax train'),
    (['--seeds=0,1', '--config.seed=7'], '--config.seed is 7, but --seeds'),
    (['--seeds=0,0', '--dry_run'], 'seeds are [0, 0]: expected at least one'),
    (['--seeds=0,-1', '--dry_run'], 'config.seed is -1, must be at least 0'),
    (['--seeds=a'], '--seeds=a: expected integers separated by commas'),
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


def test_unknown_preset_is_named(config_file, tmp_path, capsys):
  flags = ['--config', f'{config_file}:long', '--workdir', tmp_path / 'run']
  assert run('train', *flags) == 2
  error = capsys.readouterr().err
  assert error == "hier-jax: error: unknown preset 'long': expected short\n"


def test_a_workdir_that_is_a_file_is_refused_at_once(config_file, capsys):
  flags = ['--config', config_file, '--workdir', config_file]
  assert run('train', *flags) == 2
  assert f'{config_file} is a file' in capsys.readouterr().err


def test_optional_keys_take_none_and_their_own_type(
  config_file, capsys, monkeypatch
):
  def describe(config, workdir, seeds):
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


@pytest.mark.slow
def test_a_run_ends_with_its_page_however_often_it_is_called(
  config_file, tmp_path, capsys, monkeypatch
):
  workdir = tmp_path / 'run'
  args = ['train', '--config', config_file, '--workdir', workdir]
  assert run(*args) == 0
  assert not (workdir / 'explore.html').exists()
  # It is finished: the page is all that is left to do.
  assert run(*args, '--config.explore') == 0
  page = workdir / 'explore.html'
  assert f'page written to {page}' in capsys.readouterr().out
  assert 'test color 3' in page.read_text()
  page.unlink()
  results = (workdir / 'results.json').read_bytes()

  def fail(*_, **__):
    raise ZeroDivisionError('two\nlines')

  monkeypatch.setattr(explore, 'write', fail)
  assert run(*args, '--config.explore') == 0
  told = capsys.readouterr()
  assert 'after training' in told.out
  assert f'to try again: hier-jax explore {workdir}' in told.err
  assert '(ZeroDivisionError: two lines)' in told.err
  assert not page.exists()
  assert (workdir / 'results.json').read_bytes() == results


def test_a_run_that_was_stopped_has_no_page(
  config_file, tmp_path, capsys, monkeypatch
):
  args = ['--config', config_file, '--workdir', tmp_path, '--config.explore']
  monkeypatch.setattr(loop, 'train', lambda *_: None)
  assert run('train', *args) == 0
  assert 'page' not in capsys.readouterr().out
  # One that has finished has, or it is said why not.
  monkeypatch.setattr(loop, 'train', lambda *_: {})
  assert run('train', *args) == 0
  told = capsys.readouterr()
  assert 'writing the page' in told.out
  assert f'to try again: hier-jax explore {tmp_path}' in told.err
