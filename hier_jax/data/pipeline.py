"""Batches of views by grain: threads, bounded buffers, no hidden state.

Slot j of step s holds the same record and the same view whatever the number of
processes and threads, and wherever the run began. So n processes make exactly
the batch of one process, and resuming is a seek.
"""

import functools
import os
import threading
from collections.abc import Callable, Iterator

import grain
import numpy as np

from hier_jax.data import transforms
from hier_jax.data.cache import Decoded, Images
from hier_jax.data.datasets import Split
from hier_jax.data.sampler import Sampler, Stream, generator
from hier_jax.errors import UserError

Batch = dict[str, np.ndarray]

# Records a thread makes at a time: grain costs about 0.5 ms a task, which
# for one small image is more than the image itself.
_CHUNK = 32
# More of them only wait for the interpreter's lock.
_THREADS = min(16, os.cpu_count() or 1)


def train_batches(
  split: Split,
  sampler: Sampler,
  view: transforms.TrainView | transforms.DeviceView,
  *,
  seed: int,
  num_steps: int,
  start_step: int = 0,
  images: Images | None = None,
  process_index: int = 0,
  process_count: int = 1,
  num_threads: int = _THREADS,
  buffer_size: int = 2,
) -> Iterator[Batch]:
  """Yields this process's part of the batches of a run.

  Args:
    split: the labels, and the images where `images` is None.
    sampler: draws the rows of each global batch of B.
    view: makes the training view of an image.
    seed: seed of the views.
    num_steps: how many batches to yield.
    start_step: the step to begin at; skipping to it is free.
    images: of the split, see `cache.open_images`.
    process_index: which of the processes this is.
    process_count: the number of processes, a divisor of B.
    num_threads: threads that decode; 0 decodes in the caller's.
    buffer_size: batches made ahead; more where that leaves threads idle.

  Returns:
    An iterator over dicts of 'image' uint8 [b, size, size, 3], 'label' int32
    [b] and 'index' int64 [b], the rows in `split`, with b = B /
    process_count. Process p has the slots from p b to (p + 1) b. With a
    `DeviceView`, 'image' holds crops in the upper left corner, and there are
    'extent' int32 [b, 2], their heights and widths, and 'flip' bool [b].

  Raises:
    UserError: when `process_count` does not divide B, and, from the
      iterator, for an image that cannot be decoded.
  """
  slots = _slots(sampler.batch_size, process_index, process_count)
  rows_of = functools.lru_cache(maxsize=32)(sampler)

  source = Decoded(split) if images is None else images

  def empty() -> Batch:
    batch = _empty(len(slots), view.size)
    if isinstance(view, transforms.DeviceView):
      batch['extent'] = np.zeros((len(slots), 2), np.int32)
      batch['flip'] = np.zeros(len(slots), bool)
    return batch

  def fill(batch: Batch, step: int, slots: np.ndarray) -> None:
    rows = rows_of(step)[slots]
    batch['label'][:], batch['index'][:] = split.labels[rows], rows
    for i, (row, slot) in enumerate(zip(rows, slots, strict=True)):
      rng = generator(seed, Stream.VIEW, step, int(slot))
      if isinstance(view, transforms.DeviceView):
        crop, batch['flip'][i] = view(source.array(row), rng)
        height, width = batch['extent'][i] = crop.shape[:2]
        batch['image'][i, :height, :width] = crop
      else:
        batch['image'][i] = view(source.image(row), rng)

  steps = range(start_step, start_step + num_steps)
  return _run(empty, fill, steps, slots, num_threads, buffer_size)


def eval_batches(
  split: Split,
  view: transforms.EvalView,
  *,
  batch_size: int,
  process_index: int = 0,
  process_count: int = 1,
  num_threads: int = _THREADS,
  buffer_size: int = 2,
) -> Iterator[Batch]:
  """Yields this process's part of a pass over a split, in order.

  Every process yields the same number of full batches. The end is padded with
  mask False, image 0, and label and index -1.

  Args:
    split: the images.
    view: makes the evaluation view of an image.
    batch_size: B, of all processes together.
    process_index: which of the processes this is.
    process_count: the number of processes, a divisor of B.
    num_threads: threads that decode; 0 decodes in the caller's.
    buffer_size: batches made ahead; more where that leaves threads idle.

  Returns:
    An iterator over dicts as of `train_batches`, with 'mask' bool [b].

  Raises:
    UserError: as `train_batches`.
  """
  slots = _slots(batch_size, process_index, process_count)

  images = Decoded(split)

  def empty() -> Batch:
    batch = _empty(len(slots), view.size)
    return batch | {'mask': np.zeros(len(slots), bool)}

  def fill(batch: Batch, step: int, slots: np.ndarray) -> None:
    index = step * batch_size + slots
    batch['mask'][:] = index < len(split)
    rows = index[batch['mask']]
    for i, row in enumerate(rows):
      batch['image'][i] = view(images.image(row))
    batch['label'][: len(rows)] = split.labels[rows]
    batch['index'][: len(rows)] = rows

  steps = range(-(-len(split) // batch_size))
  return _run(empty, fill, steps, slots, num_threads, buffer_size)


def _slots(batch_size: int, index: int, count: int) -> np.ndarray:
  """Returns a process's slots of the global batch, int64 [b]."""
  if batch_size % count:
    raise UserError(
      f'batch size {batch_size} is not divisible by {count} processes: take '
      'a multiple of their number'
    )
  if not 0 <= index < count:
    raise UserError(f'process {index} is not one of {count}: count from 0')
  size = batch_size // count
  return np.arange(index * size, (index + 1) * size)


def _empty(size: int, side: int) -> Batch:
  return {
    'image': np.zeros((size, side, side, 3), np.uint8),
    'label': np.full(size, -1, np.int32),
    'index': np.full(size, -1, np.int64),
  }


class _Unfinished:
  """Batches whose chunks are being made, each into its place.

  To join chunks made apart would take longer than to make them of cached
  images.

  Args:
    empty: makes a batch to write into.
    num_chunks: of a batch.
  """

  def __init__(self, empty: Callable[[], Batch], num_chunks: int) -> None:
    self._empty, self._num_chunks = empty, num_chunks
    self._batches: dict[int, tuple[Batch, set[int]]] = {}
    self._lock = threading.Lock()

  def get(self, step: int, chunk: int) -> Batch:
    """Returns the batch of a step; forgets it with its last chunk."""
    with self._lock:
      if step not in self._batches:
        self._batches[step] = self._empty(), set()
      batch, begun = self._batches[step]
      begun.add(chunk)
      if len(begun) == self._num_chunks:
        del self._batches[step]
    return batch


def _run(
  empty: Callable[[], Batch],
  fill: Callable[[Batch, int, np.ndarray], None],
  steps: range,
  slots: np.ndarray,
  num_threads: int,
  buffer_size: int,
) -> Iterator[Batch]:
  """Yields the batch of each step, filled in chunks by threads."""
  n = -(-len(slots) // _CHUNK)
  chunks = np.array_split(np.arange(len(slots)), n)
  unfinished = _Unfinished(empty, n)

  def make(i: int) -> Batch:
    step, chunk = divmod(i, n)
    batch = unfinished.get(step, chunk)
    places = slice(chunks[chunk][0], chunks[chunk][-1] + 1)
    part = {key: values[places] for key, values in batch.items()}
    fill(part, step, slots[places])
    return batch

  options = grain.ReadOptions(
    num_threads=num_threads,
    prefetch_buffer_size=max(num_threads, buffer_size * n),
  )
  dataset = grain.MapDataset.range(steps.start * n, steps.stop * n).map(make)
  whole = dataset.to_iter_dataset(options).batch(n, batch_fn=lambda b: b[0])
  return iter(whole)
