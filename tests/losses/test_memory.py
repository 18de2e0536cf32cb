"""Cross-batch memory: a ring beside a deque."""

import collections

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hier_jax import losses
from tests.support import sharded

SIZE, BATCH, DIM = 26, 8, 3


def batches(number=12):
  """Embeddings, labels, and the rows that count: some batches have none."""
  rng = np.random.default_rng(0)
  for step in range(number):
    yield (
      rng.standard_normal((BATCH, DIM)).astype(np.float32),
      rng.integers(0, 99, BATCH),
      (rng.random(BATCH) < 0.7) & (step % 5 != 3),
    )


def from_oldest(memory):
  """Rows with their labels, `[filled, d + 1]`."""
  table = np.column_stack([memory.embeddings, memory.labels])
  order = (np.arange(len(table)) + int(memory.position)) % len(table)
  return table[order][np.asarray(memory.filled)[order]]


def assert_holds(memory, queue):
  rows = np.reshape([np.append(*row) for row in queue], (-1, DIM + 1))
  np.testing.assert_array_equal(from_oldest(memory), rows.astype(np.float32))


@pytest.mark.parametrize('size', [BATCH, SIZE])
def test_ring_is_a_deque(size):
  put = lambda memory, z, labels, where: losses.enqueue(
    memory, z, labels, where=where
  )
  chex.clear_trace_counter()
  jitted = jax.jit(chex.assert_max_traces(put, n=1), donate_argnums=0)
  memory, donated = (losses.init_memory(size, DIM) for _ in range(2))
  queue = collections.deque(maxlen=size)
  for z, labels, where in batches():
    queue.extend(zip(z[where], labels[where], strict=True))
    memory = put(memory, z, labels, where)
    before, donated = donated, jitted(donated, z, labels, where)
    assert before.embeddings.is_deleted()
    assert_holds(memory, queue)
    chex.assert_trees_all_equal(donated, memory)
    chex.assert_trees_all_equal_dtypes(memory, losses.init_memory(size, DIM))


@pytest.mark.parametrize('devices', [2, 4, 8])
def test_every_device_remembers_the_rows_of_all(devices):
  put = lambda *batch: losses.enqueue(*batch[:3], where=batch[3], axis_name='i')
  step = sharded.mapped(put, devices, (None, 0, 0, 0))
  memory = losses.init_memory(SIZE, DIM)
  for z, labels, where in batches():
    split = [sharded.rows_over(devices, a) for a in (z, labels, where)]
    memories = step(memory, *split)
    memory = losses.enqueue(memory, z, labels, where=where)
    for device in range(devices):
      mine = jax.tree.map(lambda a, device=device: a[device], memories)
      chex.assert_trees_all_equal(mine, memory)


def test_half_precision_rows_are_remembered_without_gradient():
  z, labels, _ = next(batches(1))
  empty = losses.init_memory(SIZE, DIM)
  memory = losses.enqueue(empty, jnp.bfloat16(z), labels)
  chex.assert_trees_all_equal_dtypes(memory, empty)
  held = lambda z: jnp.sum(losses.enqueue(empty, z, labels).embeddings)
  assert not np.any(jax.grad(held)(z))


def test_labels_of_levels_are_remembered_together():
  flat, deep = (losses.init_memory(SIZE, DIM, levels=n) for n in (None, 2))
  for z, labels, where in batches():
    levels = np.stack([labels, labels // 10], 1)
    flat = losses.enqueue(flat, z, labels, where=where)
    deep = losses.enqueue(deep, z, levels, where=where)
  chex.assert_trees_all_equal(deep._replace(labels=flat.labels), flat)
  want = np.stack([flat.labels, flat.labels // 10], 1)
  np.testing.assert_array_equal(deep.labels, want)


def test_what_does_not_fit_is_named():
  with pytest.raises(ValueError, match='a memory of 0 rows'):
    losses.init_memory(0, DIM)
  z, labels, _ = next(batches(1))
  with pytest.raises(ValueError, match='8 rows does not fit a memory of 7'):
    losses.enqueue(losses.init_memory(BATCH - 1, DIM), z, labels)
  small = losses.init_memory(SIZE, DIM - 1)
  for f in (
    lambda: losses.enqueue(small, z, labels),
    lambda: losses.sup_con(z, labels, memory=small),
  ):
    with pytest.raises(ValueError, match=r'has shape .*, expected \[any, '):
      f()
  with pytest.raises(ValueError, match='rank'):
    losses.enqueue(losses.init_memory(SIZE, DIM, levels=2), z, labels)


def test_training_loop_is_traced_once():
  @chex.assert_max_traces(n=1)
  def step(memory, batch):
    z, labels, where = batch
    loss = losses.contrastive(z, labels, where=where, memory=memory)
    return losses.enqueue(memory, z, labels, where=where), loss

  stacked = tuple(map(np.stack, zip(*batches(), strict=True)))
  start = losses.init_memory(SIZE, DIM)
  last, values = jax.lax.scan(step, start, stacked)
  chex.clear_trace_counter()
  memory, jitted = start, jax.jit(step)
  for batch, value in zip(batches(), values, strict=True):
    memory, loss = jitted(memory, batch)
    np.testing.assert_allclose(loss, value, rtol=1e-6)
  chex.assert_trees_all_equal(memory, last)
