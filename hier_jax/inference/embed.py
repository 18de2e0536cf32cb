"""Embedding many images, in work that may be interrupted."""

import collections
import contextlib
import functools
import itertools
import os
import time
from collections.abc import Generator, Sequence
from typing import NamedTuple

import jax
import numpy as np
import tqdm

import hier_jax
from hier_jax.data import threads, transforms
from hier_jax.errors import UserError, listed, plain
from hier_jax.evaluation.embedding_files import Embedded
from hier_jax.inference import parts as parts_lib
from hier_jax.inference.model import Model
from hier_jax.inference.parts import Part, Parts
from hier_jax.inference.sources import Source

__all__ = ['Embeddings', 'embed_images', 'resumable']

# Pillow decodes without the interpreter's lock.
_THREADS = min(16, os.cpu_count() or 1)
# Images that a device embeds at a time.
_ON_CPU, _ON_ACCELERATOR = 32, 128
# Between two parts of unfinished work.
_SECONDS = 30.0
# Batches that devices work at while the next one is decoded.
_AHEAD = 2


class Embeddings(NamedTuple):
  """The embedded images of a source, and those that could not be read.

  Attributes:
    embedded: rows of the images that could be read, with ids and labels.
    unread: (id, reason) for each image that could not be read.
    resumed: number of images that earlier, interrupted work had done.
  """

  embedded: Embedded
  unread: list[tuple[str, str]]
  resumed: int


def embed_images(
  model: Model,
  source: Source,
  *,
  parts: Parts | None = None,
  batch_size: int | None = None,
  num_threads: int = _THREADS,
  progress: bool = False,
) -> Embeddings:
  """Embeds the images of a source; leaves out images that cannot be read.

  Threads decode images while the devices work. All batches have the same shape,
  so only one program is compiled; the last batch is padded.

  Args:
    model: the model that embeds.
    source: its images.
    parts: keeps finished work if it is interrupted, and nothing of work that
      is no good; None keeps nothing.
    batch_size: images at a time over all local devices, rounded up to a
      multiple of their number; None for 32 per device on CPU and 128 on
      accelerators. It never exceeds the number of images.
    num_threads: threads that decode.
    progress: whether to show a bar with the time left, on stderr.

  Raises:
    UserError: no image can be read, or embeddings are NaN or infinite.
  """
  try:
    return _embedded(model, source, parts, batch_size, num_threads, progress)
  except UserError as error:
    # It would come again, unless it is of a full disk.
    if parts is not None and not isinstance(error, OSError):
      parts.remove()
    raise


def _embedded(model, source, parts, batch_size, num_threads, progress):
  """As `embed_images`, which removes work that is no good."""
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
  pending: list[Part] = []
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
) -> Generator[Part, None, None]:
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
  """Images in groups of `size` readable ones, and where each group ends."""
  seen, readable, number = [], 0, -1
  for number, view in views:
    seen.append((number, view))
    readable += not isinstance(view, str)
    if readable == size:
      yield number + 1, seen
      seen, readable = [], 0
  if seen:
    yield number + 1, seen


def _finished(stop, items, bad, rows) -> Part:
  """Waits for the rows of a batch."""
  rows = np.zeros((0, 0), np.float32) if rows is None else np.asarray(rows)
  return Part(
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
  why = getattr(cause, 'strerror', None) or cause or error
  return plain(str(why))


def _batch_size(wanted, num_images) -> int:
  devices = jax.local_device_count()
  each = _ON_CPU if jax.default_backend() == 'cpu' else _ON_ACCELERATOR
  size = min(wanted or each * devices, max(num_images, 1))
  return -(-size // devices) * devices


def _check_finite(part: Part, source: Source) -> None:
  bad = ~np.isfinite(part.rows).all(1)
  if bad.any():
    ids = [source.ids[number] for number in part.items[bad]]
    raise UserError(
      f'the model makes NaN or Inf of {len(ids)} images of {source.title}:'
      f' {listed(ids)}; nothing was written: is it a run that diverged?'
    )


def _concatenated(found: Sequence[Part]) -> Part:
  join = lambda arrays: np.concatenate(
    [a for a in arrays if len(a)] or [next(iter(arrays))]
  )
  return Part(
    found[-1].stop,
    *(join([part[i] for part in found]) for i in range(1, len(Part._fields))),
  )


def _joined(model, source, found, start) -> Embeddings:
  part = _concatenated(found)
  unread = [
    (source.ids[number], str(why))
    for number, why in zip(part.unread, part.reasons, strict=True)
  ]
  if not len(part.items):
    named = [f'{plain(name)} ({why})' for name, why in unread]
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


def resumable(
  out: str | os.PathLike, model: Model, source: Source
) -> contextlib.AbstractContextManager[Parts]:
  """The `Parts` of embedding a source into a file; see `parts.resumable`."""
  key = f'{model.digest[:16]}{source.digest[:16]}'
  return parts_lib.resumable(out, key)
