"""Embeddings of many images, by work that may be interrupted."""

import collections
import contextlib
import functools
import itertools
import os
import pathlib
import shutil
import time
from collections.abc import Generator, Sequence
from typing import NamedTuple

import filelock
import jax
import numpy as np
import tqdm

import hier_jax
from hier_jax import npz_files, paths
from hier_jax.data import cache, threads, transforms
from hier_jax.errors import UserError, listed, plain
from hier_jax.evaluation.embedding_files import Embedded
from hier_jax.inference.model import Model
from hier_jax.inference.sources import Source

__all__ = ['Embeddings', 'Parts', 'embed_images']

# Pillow decodes without the interpreter's lock.
_THREADS = min(16, os.cpu_count() or 1)
# Images that a device embeds at a time.
_ON_CPU, _ON_ACCELERATOR = 32, 128
# Between two parts of unfinished work.
_SECONDS = 30.0
# Batches that devices work at while the next one is decoded.
_AHEAD = 2


class Embeddings(NamedTuple):
  """What became of the images of a source.

  Attributes:
    embedded: the rows of those that could be read, with ids and labels.
    unread: (id, reason) of each of the others.
    resumed: how many of all were there from before.
  """

  embedded: Embedded
  unread: list[tuple[str, str]]
  resumed: int


class _Part(NamedTuple):
  """Some images of a source, from the one after those of the part before.

  Attributes:
    stop: number of the first image of the next part.
    rows: `[m, d]` of those that could be read.
    items: their numbers `[m]`.
    unread: the number of each of the others.
    reasons: why, one for each.
  """

  stop: int
  rows: np.ndarray
  items: np.ndarray
  unread: np.ndarray
  reasons: np.ndarray


class Parts:
  """Unfinished work in a folder, to go on from; used by one process at a time.

  Args:
    out: the file that the work is for. The folder lies beside it, or in the
      cache for one in an object store.
    key: what tells the work from another. What is left of another is removed.

  Raises:
    UserError: another process works for the same file.
  """

  def __init__(self, out: str | os.PathLike, key: str):
    out, key = paths.as_path(out), key
    home = cache.folder() / 'embed' if paths.is_remote(out) else out.parent
    name = key if paths.is_remote(out) else out.name
    self.folder = home / f'.{name}.parts'
    self._key = key
    with paths.writing(self.folder):
      self.folder.mkdir(parents=True, exist_ok=True)
    self._lock = filelock.FileLock(self.folder / 'lock')
    try:
      self._lock.acquire(blocking=False)
    except filelock.Timeout:
      raise UserError(
        f'another process is writing {out}: wait for it, or name another file'
      ) from None
    self.found = self._read()

  def _read(self) -> list[_Part]:
    """The parts of this work, in order; other files are removed."""
    found, stop = [], 0
    for path in sorted(self.folder.glob('*.npz')):
      part = None
      if path.name == self._name(stop):
        part = _read_part(path)
      if part is None:
        path.unlink()
      else:
        found.append(part)
        stop = part.stop
    return found

  def _name(self, start):
    return f'{start:012d}-{self._key}.npz'

  def add(self, start: int, part: _Part) -> None:
    """Keeps the part that begins with an image."""
    with (
      paths.replacing(self.folder / self._name(start)) as temporary,
      temporary.open('wb') as file,
    ):
      np.savez(file, **part._asdict())

  def release(self) -> None:
    """Lets another process go on; nothing is left of no work."""
    self._lock.release()
    if not list(self.folder.glob('*.npz')):
      self.remove()

  def remove(self) -> None:
    """Removes the folder, when the work is done or is no good."""
    self._lock.release()
    shutil.rmtree(self.folder, ignore_errors=True)


def _read_part(path: pathlib.Path) -> _Part | None:
  """None for one that was damaged: it is made again."""
  try:
    with np.load(path, allow_pickle=False) as archive:
      arrays = {name: npz_files.read_array(archive, name) for name in archive}
      stop = int(arrays.pop('stop'))
      return _Part(stop, **arrays)
  except Exception:
    return None


def embed_images(
  model: Model,
  source: Source,
  *,
  parts: Parts | None = None,
  batch_size: int | None = None,
  num_threads: int = _THREADS,
  progress: bool = False,
) -> Embeddings:
  """Embeds the images of a source; those that cannot be read are left out.

  Images are decoded by threads while the devices work. All batches have one
  shape, so that one program is compiled; the last one is padded.

  Args:
    model: what embeds.
    source: its images.
    parts: keeps what is done, also where the work is interrupted; None keeps
      nothing.
    batch_size: images at a time of all local devices, rounded up to a multiple
      of their number; None for 32 each on CPU and 128 on accelerators. Never
      more than there are images.
    num_threads: threads that decode.
    progress: whether to show a bar with the time left, on stderr.

  Raises:
    UserError: no image can be read, or embeddings are NaN or infinite.
  """
  found = [] if parts is None else list(parts.found)
  start = found[-1].stop if found else 0
  with tqdm.tqdm(
    total=len(source),
    initial=start,
    unit='image',
    desc='embedding',
    disable=not progress,
    dynamic_ncols=True,
  ) as bar:
    for part in _made(
      model, source, start, batch_size, num_threads, bar, parts
    ):
      found.append(part)
  return _joined(model, source, found, start)


def _made(model, source, start, batch_size, num_threads, bar, parts):
  """The parts from an image on; what is done is kept when it is interrupted."""
  pending: list[_Part] = []
  kept_at = time.monotonic()

  def keep():
    nonlocal start, pending, kept_at
    part = _concatenated(pending)
    if parts is not None:
      parts.add(start, part)
    start, pending, kept_at = part.stop, [], time.monotonic()
    return part

  batches = _batches(model, source, start, batch_size, num_threads)
  try:
    for part in batches:
      _check_finite(part, source)
      pending.append(part)
      bar.update(part.stop - bar.n)
      if time.monotonic() - kept_at > _SECONDS:
        yield keep()
    if pending:
      yield keep()
  except UserError:
    # It would come again.
    pending = []
    raise
  finally:
    batches.close()
    if pending:
      keep()


def _batches(
  model: Model, source: Source, start: int, batch_size, num_threads
) -> Generator[_Part, None, None]:
  """The part of each batch, in order."""
  size = _batch_size(batch_size, len(source) - start)
  numbers = range(start, len(source))
  views = zip(
    numbers,
    threads.in_order(
      functools.partial(_view, model, source), numbers, num_threads
    ),
    strict=True,
  )
  working: collections.deque = collections.deque()
  for stop, seen in _grouped(views, size):
    items = [number for number, view in seen if not isinstance(view, str)]
    images = np.zeros((size, model.view.size, model.view.size, 3), np.uint8)
    for place, (_, view) in enumerate(
      pair for pair in seen if not isinstance(pair[1], str)
    ):
      images[place] = view
    bad = [pair for pair in seen if isinstance(pair[1], str)]
    working.append((stop, items, bad, model.embed(images) if items else None))
    if len(working) > _AHEAD:
      yield _finished(*working.popleft())
  while working:
    yield _finished(*working.popleft())


def _grouped(views, size):
  """Images in groups of so many that can be read, and where each ends."""
  seen, readable, number = [], 0, -1
  for number, view in views:
    seen.append((number, view))
    readable += not isinstance(view, str)
    if readable == size:
      yield number + 1, seen
      seen, readable = [], 0
  if seen:
    yield number + 1, seen


def _finished(stop, items, bad, rows) -> _Part:
  """Waits for the rows of a batch."""
  rows = np.zeros((0, 0), np.float32) if rows is None else np.asarray(rows)
  return _Part(
    stop,
    rows[: len(items)].astype(np.float32),
    np.array(items, np.int64),
    np.array([number for number, _ in bad], np.int64),
    np.array([why for _, why in bad], np.str_),
  )


def _view(model: Model, source: Source, number: int) -> np.ndarray | str:
  """The view of an image, or why there is none."""
  try:
    image = source.image(number)
    _check_sides(*image.size, model.view.resize or model.view.size)
    return model.view(image)
  except UserError as error:
    return _why(error)
  except (MemoryError, OSError, ValueError) as error:
    return plain(str(error) or type(error).__name__)


def _check_sides(width, height, short_side):
  """Raises ValueError for an image that would become enormous.

  A line of 1 x 40,000 pixels has nine million of 224 pixels each.
  """
  long_side = short_side * max(width, height) // min(width, height)
  if long_side * short_side > 1e6 * transforms.MAX_MEGAPIXELS:
    raise ValueError(
      f'{width:,} x {height:,} pixels: too narrow to be resized to a short side'
      f' of {short_side}'
    )


def _why(error: UserError) -> str:
  cause = error.__cause__
  if type(cause).__name__ == 'UnidentifiedImageError':
    # Pillow's own words for it name an address in memory.
    return 'no known format'
  return plain(str(cause if cause is not None else error))


def _batch_size(wanted, num_images) -> int:
  devices = jax.local_device_count()
  each = _ON_CPU if jax.default_backend() == 'cpu' else _ON_ACCELERATOR
  size = min(wanted or each * devices, max(num_images, 1))
  return -(-size // devices) * devices


def _check_finite(part: _Part, source: Source) -> None:
  bad = ~np.isfinite(part.rows).all(1)
  if bad.any():
    ids = [source.ids[number] for number in part.items[bad]]
    raise UserError(
      f'the model makes NaN or Inf of {len(ids)} images of {source.title}:'
      f' {listed(ids)}; nothing was written: is it a run that diverged?'
    )


def _concatenated(found: Sequence[_Part]) -> _Part:
  join = lambda arrays: np.concatenate(
    [a for a in arrays if len(a)] or [next(iter(arrays))]
  )
  return _Part(
    found[-1].stop,
    *(join([part[i] for part in found]) for i in range(1, len(_Part._fields))),
  )


def _joined(model, source, found, start) -> Embeddings:
  part = _concatenated(found)
  unread = [
    (source.ids[number], str(why))
    for number, why in zip(part.unread, part.reasons, strict=True)
  ]
  if not len(part.items):
    named = [f'{name} ({why})' for name, why in unread]
    raise UserError(
      f'none of the {len(unread):,} images of {plain(source.title)} can be'
      f' read: {_sentence(named)}'
    )
  items = part.items.tolist()
  labels = source.labels
  about = {
    **model.about,
    'title': f'{model.about["title"]} on {source.title}',
    'source': source.title,
    **source.about,
    'hier_jax': hier_jax.__version__,
  }
  embedded = Embedded(
    part.rows,
    None if labels is None else np.array([labels[i] for i in items], np.str_),
    model.c,
    model.proxies,
    [source.ids[i] for i in items],
    about,
  )
  return Embeddings(embedded, unread, start)


def _sentence(named: Sequence[str], most: int = 5) -> str:
  more = ', ...' if len(named) > most else ''
  return ', '.join(itertools.islice(named, most)) + more


@contextlib.contextmanager
def resumable(out: str | os.PathLike, model: Model, source: Source):
  """The `Parts` of embedding a source into a file, for the time of a block.

  They are removed where the block ends well, or by an error that would come
  again, and kept where it is interrupted.
  """
  parts = Parts(out, f'{model.digest[:16]}{source.digest[:16]}')
  try:
    yield parts
  except UserError as error:
    if not isinstance(error, OSError):
      parts.remove()
    raise
  else:
    parts.remove()
  finally:
    parts.release()
