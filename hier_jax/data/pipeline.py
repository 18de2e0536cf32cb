"""Batches of views by grain: threads, bounded buffers, no hidden state.

Slot j of step s holds the same record and the same view whatever the number
of processes or threads and wherever the run began, so that n processes make
exactly the batch of one, and resuming is a seek.
"""

import functools
import os
from collections.abc import Callable, Iterator, Sequence

import grain
import numpy as np
from PIL import Image

from hier_jax.data import transforms
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
  view: transforms.TrainView,
  *,
  seed: int,
  num_steps: int,
  start_step: int = 0,
  process_index: int = 0,
  process_count: int = 1,
  num_threads: int = _THREADS,
  buffer_size: int = 2,
) -> Iterator[Batch]:
  """Yields this process's part of the batches of a run.

  Args:
    split: the images.
    sampler: draws the rows of each global batch of B.
    view: makes the training view of an image.
    seed: decides the views.
    num_steps: how many batches to yield.
    start_step: the step to begin at, at no cost.
    process_index: which of the processes this is.
    process_count: the number of processes, a divisor of B.
    num_threads: threads that decode; 0 decodes in the caller's.
    buffer_size: batches made ahead; more where that leaves threads idle.

  Returns:
    An iterator over dicts of 'image' uint8 [b, size, size, 3], 'label' int32
    [b] and 'index' int64 [b], the rows in `split`, with b = B /
    process_count. Process p has the slots from p b to (p + 1) b.

  Raises:
    UserError: when `process_count` does not divide B, and, from the
      iterator, for an image that cannot be decoded.
  """
  slots = _slots(sampler.batch_size, process_index, process_count)
  rows_of = functools.lru_cache(maxsize=32)(sampler)

  def make(step: int, slots: np.ndarray) -> Batch:
    rows = rows_of(step)[slots]
    images = [
      view(_image(split, row), generator(seed, Stream.VIEW, step, int(slot)))
      for row, slot in zip(rows, slots, strict=True)
    ]
    return {
      'image': np.stack(images),
      'label': split.labels[rows],
      'index': rows,
    }

  steps = range(start_step, start_step + num_steps)
  return _run(make, steps, slots, num_threads, buffer_size)


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

  Every process yields the same number of full batches. What is missing at
  the end is padded: mask False, image 0, label and index -1.

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

  def make(step: int, slots: np.ndarray) -> Batch:
    index = step * batch_size + slots
    mask = index < len(split)
    rows = index[mask]
    image = np.zeros((len(slots), view.size, view.size, 3), np.uint8)
    for i, row in enumerate(rows):
      image[i] = view(_image(split, row))
    label = np.full(len(slots), -1, np.int32)
    label[mask] = split.labels[rows]
    return {
      'image': image,
      'label': label,
      'index': np.where(mask, index, -1),
      'mask': mask,
    }

  steps = range(-(-len(split) // batch_size))
  return _run(make, steps, slots, num_threads, buffer_size)


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


def _image(split: Split, row: int) -> Image.Image:
  row = int(row)
  return transforms.decode(
    split.source[row]['image'], f'image {row} of {split.name}'
  )


def _run(
  make: Callable[[int, np.ndarray], Batch],
  steps: range,
  slots: np.ndarray,
  num_threads: int,
  buffer_size: int,
) -> Iterator[Batch]:
  """Yields `make(step, slots)` of each step, made in chunks by threads."""
  chunks = np.array_split(slots, -(-len(slots) // _CHUNK))
  n = len(chunks)
  dataset = grain.MapDataset.range(steps.start * n, steps.stop * n)
  options = grain.ReadOptions(
    num_threads=num_threads,
    prefetch_buffer_size=max(num_threads, buffer_size * n),
  )
  parts = dataset.map(lambda i: make(i // n, chunks[i % n]))
  return iter(parts.to_iter_dataset(options).batch(n, batch_fn=_join))


def _join(parts: Sequence[Batch]) -> Batch:
  return {key: np.concatenate([p[key] for p in parts]) for key in parts[0]}
