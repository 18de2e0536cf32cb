"""Embeddings of a split of images, batch by batch on all processes."""

from collections.abc import Callable
from typing import Any

import numpy as np

from hier_jax.data import pipeline
from hier_jax.data.datasets import Split
from hier_jax.data.transforms import EvalView
from hier_jax.training.distributed import mapping, processes

__all__ = ['embed_split']


def embed_split(
  split: Split,
  embed: Callable[[np.ndarray], Any],
  view: EvalView,
  *,
  batch_size: int,
  num_threads: int,
) -> tuple[np.ndarray, np.ndarray]:
  """Rows `[n, d]` of `embed(images)` over a split, and `split.numbers` `[n]`.

  Args:
    split: `datasets.Split`.
    embed: maps this process's images `[b, H, W, 3]` uint8 to rows `[b, d]`.
    view: `transforms.EvalView` of the images.
    batch_size: images that all processes embed at a time.
    num_threads: threads of this process that decode images.
  """
  rows, labels = [], []
  for batch in pipeline.eval_batches(
    split,
    view,
    batch_size=batch_size,
    process_index=processes.index(),
    process_count=processes.count(),
    num_threads=num_threads,
  ):
    mask = mapping.gather_rows(batch['mask'])
    rows.append(mapping.gather_rows(embed(batch['image']))[mask])
    labels.append(mapping.gather_rows(batch['label'])[mask])
  return np.concatenate(rows), split.numbers[np.concatenate(labels)]
