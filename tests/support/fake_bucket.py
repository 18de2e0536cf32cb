"""Buckets in memory, behind gs:// paths; they have no folders."""

import importlib.util

from etils.epath import backend
from fsspec.implementations import memory


class Buckets(memory.MemoryFileSystem):
  """As an object store has it: no folder is made, and no file appended to."""

  protocol = ('gs', 'gcs')
  cachable = False
  store = {}  # noqa: RUF012
  pseudo_dirs = ['']  # noqa: RUF012

  @classmethod
  def _strip_protocol(cls, path):
    path = str(path).removeprefix('gs://').removeprefix('gcs://')
    return f'/{path.strip("/")}' if path.strip('/') else ''

  def mkdir(self, path, create_parents=True, **kwargs):
    """Does nothing."""

  def makedirs(self, path, exist_ok=False):
    """Does nothing."""

  def _open(self, path, mode='rb', **kwargs):
    if 'a' in mode:
      raise NotImplementedError('objects cannot be appended to')
    return super()._open(path, mode, **kwargs)


def use(monkeypatch):
  """Has gs:// paths lie in empty buckets until the test ends."""
  find = importlib.util.find_spec
  monkeypatch.setattr(
    importlib.util, 'find_spec', lambda name: name == 'gcsfs' or find(name)
  )
  buckets = Buckets()
  Buckets.store.clear()
  monkeypatch.setattr(
    backend.fsspec_backend, 'fs', lambda path: buckets, raising=True
  )
  return Buckets.store
