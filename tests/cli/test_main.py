"""What all verbs share, and a run from training to its report."""

import errno
import json
import os
import pathlib
import re
import signal
import subprocess
import sys

import pytest

from hier_jax import cli
from hier_jax.errors import UserError
from tests.support import places
from tests.support.command_line import run


@pytest.mark.parametrize('flags', [[], ['--traceback']])
def test_places_that_may_not_be_entered_are_named(flags, monkeypatch, capsys):
  # Nothing is forbidden to root, who may run the tests.
  def forbidden(verb, path, *flags):
    raise PermissionError(errno.EACCES, 'Permission denied', path)

  monkeypatch.setattr(cli, '_run', forbidden)
  if flags:
    with pytest.raises(PermissionError):
      run('evaluate', 'vault/a.npz', *flags)
  else:
    assert run('evaluate', 'vault/a.npz') == 2
    err = capsys.readouterr().err
    assert 'error: vault/a.npz may not be read or entered' in err


@pytest.mark.slow
def test_evaluate_and_report_say_what_train_printed(
  config_file, tmp_path, capsys
):
  workdir, out = tmp_path / 'run', tmp_path / 'metrics.json'
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


@pytest.mark.parametrize(
  ('args', 'message'),
  [
    (['nonsense'], "unknown verb 'nonsense'; expected one of train, evaluate"),
    (['trian'], "unknown verb 'trian'; did you mean 'train'?"),
    (
      ['train'],
      'train needs --config NAME|FILE[:PRESET] and --workdir DIR; see',
    ),
    (['train', '--dry_run'], 'train needs --config NAME|FILE[:PRESET]; see'),
    (['train', '--config', 'no.py'], 'train needs --workdir DIR; see'),
    (['train', '--workdir', 'x', '--config', 'no.py'], 'no.py cannot be read'),
    (
      ['train', '--config', '--workdir', 'x'],
      '--config has no value: expected NAME|FILE[:PRESET], but --workdir',
    ),
    (
      ['train', '--config', 'a.py', '--workdir', ''],
      '--workdir is empty: expected DIR; see hier-jax train --help',
    ),
    (['train', '--nodry_run=3'], '--nodry_run=3 does not take an argument'),
    (['evaluate', 'a.npz', '--recall_at', ''], 'is empty: expected 1,2,4,8'),
    (['evaluate'], 'needs the workdir of a run, WORKDIR/checkpoints/STEP or'),
    (['report'], 'report needs at least one DIR, a workdir or a folder of'),
    (['report', ''], 'a path is empty'),
    (['data'], 'the name of a data set, found nothing; see hier-jax data'),
    (['convert', 'a.npz'], 'a TARGET.safetensors, found a.npz; see hier-jax'),
    ([''], "unknown verb ''; expected one of train"),
    (['evaluate', ''], 'a path is empty'),
    (['convert', 'a.npz', ''], 'a path is empty'),
  ],
)
def test_missing_arguments_are_named(capsys, args, message):
  assert run(*args) == 2
  assert message in capsys.readouterr().err


def test_traceback_on_request(config_file, tmp_path):
  flags = ['--config', config_file, '--workdir', tmp_path / 'run']
  with pytest.raises(UserError, match='temperature'):
    run('train', *flags, '--config.loss.hier.temperature=-1', '--traceback')


def test_version(capsys):
  assert run('--version') == 0
  assert re.match(
    r'hier_jax [\w. ]+, jax \d.*, Python 3', capsys.readouterr().out
  )


OF_RUN = 'would change what the run in'


@pytest.mark.parametrize(
  ('args', 'message'),
  [
    (['evaluate', 'a.npz', '--out', 'a.npz'], 'a.npz is an input'),
    (['evaluate', 'a.npz', '--out', 'b.npz'], "b.npz ends with '.npz'"),
    (['evaluate', 'a.npz', '--out', 'a.npz/b.json'], 'which is not a folder'),
    (['evaluate', 'run', '--out', 'run/config.json'], OF_RUN),
    (['evaluate', 'a.npz', '--out', 'run/results.json'], OF_RUN),
    (['tree', 'run', '--out', 'run/config.json'], OF_RUN),
    (['tree', 'run/checkpoints/5', '--out', 'run/data.json'], OF_RUN),
    (['tree', 'a.npz', '--out', 'link.json'], OF_RUN),
    (['figures', 'a.npz', '--out', 'run/checkpoints'], OF_RUN),
    (['explore', 'run', '--out', 'run/checkpoints/5/a.html'], OF_RUN),
    (['report', 'run', '--out', 'run/checkpoints'], OF_RUN),
    (['embed', 'run', 'a.png', '--out', 'run/checkpoints/a.npz'], OF_RUN),
    (['search', 'run', 'a.png', '--out', 'run/checkpoints/a.png'], OF_RUN),
    (['evaluate', 'run', '--query', 'x', '--out', 'run'], 'run is an input'),
    (
      ['evaluate', 'i.faiss.npz', '--gallery', 'i.npz', '--export', 'faiss'],
      'i.faiss.npz is an input',
    ),
    (['report', 'run', '--out', 'a.npz'], 'a.npz is a file'),
    (['data', 'info', 'emoji', '--sheet', 'a.jpg'], "a.jpg ends with '.jpg'"),
    (['convert', 'a.safetensors', 'x.npz'], "x.npz ends with '.npz'"),
    (['convert', 'a.safetensors', 'a.safetensors'], 'is an input'),
    (['convert', 'a.safetensors', 'a.npz/b.safetensors'], 'is not a folder'),
  ],
)
def test_outputs_are_checked_before_anything_is_read(
  tmp_path, monkeypatch, capsys, args, message
):
  monkeypatch.chdir(tmp_path)
  for name in ('a.npz', 'a.safetensors', 'i.npz', 'i.faiss.npz'):
    pathlib.Path(name).write_text('no embeddings and no weights')
  pathlib.Path('run/checkpoints/5').mkdir(parents=True)
  pathlib.Path('run/config.json').write_text('{')
  pathlib.Path('link.json').symlink_to('run/config.json')
  before = {p: p.read_text() for p in tmp_path.rglob('*') if p.is_file()}
  assert run(*args) == 2
  assert message in capsys.readouterr().err
  after = {p: p.read_text() for p in tmp_path.rglob('*') if p.is_file()}
  assert before == after


def test_help(capsys):
  assert run('--help') == 0
  assert (
    'train --config NAME|FILE[:PRESET] --workdir DIR' in capsys.readouterr().out
  )
  assert run() == 2
  assert capsys.readouterr().out.startswith('usage: hier-jax VERB')


@pytest.mark.parametrize('args', [['--help'], []])
def test_a_reader_that_leaves_is_no_error(args):
  read, write = os.pipe()
  os.close(read)
  done = subprocess.run(
    [sys.executable, '-m', 'hier_jax', *args],
    stdout=write,
    stderr=subprocess.PIPE,
    cwd=places.ROOT,
  )
  os.close(write)
  assert (done.returncode, done.stderr) == (128 + signal.SIGPIPE, b'')


def test_a_stdout_that_was_closed_beforehand_is_no_error(monkeypatch):
  # Python itself sets None.
  monkeypatch.setattr(sys, 'stdout', None)
  assert run('--help') == 0
