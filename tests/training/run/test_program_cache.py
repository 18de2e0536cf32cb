import os
import subprocess
import sys

import jax
import pytest

from hier_jax import cli
from hier_jax.errors import UserError
from hier_jax.training.run import program_cache
from tests.support import places

ROOT = places.ROOT
# A step on two devices, whose state is donated; prints bits and events.
START = """
import collections, jax, numpy as np
jax.config.update('jax_num_cpu_devices', 2)
from hier_jax.training.run import program_cache
program_cache.keep_programs()
events = collections.Counter()
jax.monitoring.register_event_listener(lambda name, **_: events.update([name]))

def step(state, batch):
  return state + jax.lax.pmean(jax.numpy.tanh(batch @ batch.T).sum(), 'i')

mapped = jax.pmap(
  step, 'i', in_axes=(None, 0), out_axes=None, donate_argnums=0)
state, batch = np.ones(3, 'f4'), np.linspace(0, 1, 24, dtype='f4')
state = mapped(state, batch.reshape(2, 3, 4))
print(state.tobytes().hex())
for event in 'compile_requests_use_cache', 'cache_hits', 'cache_misses':
  print(events['/jax/compilation_cache/' + event])
"""


def start(tmp_path):
  """Bits of a process's result; its programs, hits, and misses."""
  ran = subprocess.run(
    [sys.executable, '-c', START],
    env={k: v for k, v in os.environ.items() if not k.startswith('JAX_')}
    | {'JAX_PLATFORMS': 'cpu', 'XDG_CACHE_HOME': str(tmp_path)},
    cwd=ROOT,
    capture_output=True,
    text=True,
    check=True,
  )
  assert not ran.stderr
  bits, *counts = ran.stdout.split()
  return bits, *map(int, counts)


@pytest.fixture
def no_cache(monkeypatch, tmp_path):
  """As a user's process is: JAX's options at their defaults."""
  names = (
    'jax_compilation_cache_dir',
    'jax_compilation_cache_max_size',
    'jax_persistent_cache_min_compile_time_secs',
  )
  before = {name: getattr(jax.config, name) for name in names}
  jax.config.update('jax_compilation_cache_dir', None)
  monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path))
  yield tmp_path / 'hier_jax' / 'programs'
  for name, value in before.items():
    jax.config.update(name, value)


def test_second_process_compiles_nothing_and_computes_the_same(tmp_path):
  bits, programs, hits, misses = start(tmp_path)
  assert (programs, hits, misses) == (1, 0, 1)
  assert start(tmp_path) == (bits, 1, 1, 0)


def test_program_that_was_torn_is_kept_anew(tmp_path):
  bits, *_ = start(tmp_path)
  # As a process leaves it that is killed while it writes.
  (torn,) = tmp_path.rglob('*-cache')
  torn.write_bytes(torn.read_bytes()[:100])
  torn.with_name(torn.name.removesuffix('-cache') + '-atime').unlink()
  assert start(tmp_path) == (bits, 1, 0, 1)
  assert start(tmp_path) == (bits, 1, 1, 0)


def test_folder_of_the_user_is_used(no_cache):
  program_cache.keep_programs()
  assert jax.config.jax_compilation_cache_dir == str(no_cache)
  assert no_cache.is_dir()


def test_home_is_where_no_folder_is_named(no_cache, monkeypatch, tmp_path):
  monkeypatch.delenv('XDG_CACHE_HOME')
  monkeypatch.setenv('HOME', str(tmp_path / 'home'))
  program_cache.keep_programs()
  expected = tmp_path / 'home' / '.cache' / 'hier_jax' / 'programs'
  assert jax.config.jax_compilation_cache_dir == str(expected)


def test_choice_of_the_user_stays(no_cache, tmp_path):
  chosen = str(tmp_path / 'chosen')
  jax.config.update('jax_compilation_cache_dir', chosen)
  program_cache.keep_programs()
  assert jax.config.jax_compilation_cache_dir == chosen
  assert not no_cache.exists()


def test_cache_that_is_switched_off_stays_off(no_cache):
  jax.config.update('jax_enable_compilation_cache', False)
  try:
    program_cache.keep_programs()
  finally:
    jax.config.update('jax_enable_compilation_cache', True)
  assert jax.config.jax_compilation_cache_dir is None


def test_folder_that_cannot_be_written_is_said_and_left(
  no_cache, monkeypatch, tmp_path, capsys
):
  (tmp_path / 'file').touch()
  monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path / 'file'))
  program_cache.keep_programs()
  assert jax.config.jax_compilation_cache_dir is None
  said = capsys.readouterr().err
  assert said.startswith('compiled programs are not kept (NotADirectoryError:')
  assert said.endswith(
    'JAX_COMPILATION_CACHE_DIR=FOLDER keeps them elsewhere\n'
  )


def test_the_folder_is_its_owners_alone(no_cache):
  program_cache.keep_programs()
  for folder in (no_cache, no_cache.parent):
    assert folder.stat().st_mode & 0o777 == 0o700


def _foreign(folder, monkeypatch):
  monkeypatch.setattr(os, 'geteuid', lambda: folder.stat().st_uid + 1)


@pytest.mark.parametrize('depth', ['programs', 'hier_jax'])
@pytest.mark.parametrize(
  ('forge', 'reason'),
  [
    (lambda folder, _: folder.chmod(0o720), 'others may write to'),
    (lambda folder, _: folder.chmod(0o702), 'others may write to'),
    (_foreign, 'belongs to user'),
  ],
)
def test_a_folder_of_others_is_not_used(
  no_cache, forge, reason, depth, monkeypatch, capsys
):
  no_cache.mkdir(parents=True)
  forge(no_cache if depth == 'programs' else no_cache.parent, monkeypatch)
  program_cache.keep_programs()
  assert jax.config.jax_compilation_cache_dir is None
  assert reason in capsys.readouterr().err


def test_a_link_is_not_used(no_cache, tmp_path, capsys):
  no_cache.parent.mkdir(mode=0o700)
  (tmp_path / 'elsewhere').mkdir(mode=0o700)
  no_cache.symlink_to(tmp_path / 'elsewhere')
  program_cache.keep_programs()
  assert jax.config.jax_compilation_cache_dir is None
  assert 'is a link' in capsys.readouterr().err


def test_train_keeps_its_programs(monkeypatch, capsys):
  def called():
    raise UserError('called')

  monkeypatch.setattr(program_cache, 'keep_programs', called)
  argv = ['hier-jax', 'train', '--config=quickstart', '--dry_run']
  assert cli.main(argv) == 2
  assert capsys.readouterr().err == 'hier-jax: error: called\n'
