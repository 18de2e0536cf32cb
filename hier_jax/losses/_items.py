"""The items that a query ranks, and sums over them one item at a time.

The rank of each item of a query's class is a sum over the gallery. The
`[b, n, n]` terms are never stored: the losses rank one item of all queries at a
time, forward and backward. Memory is a few tables `[b, n]`; time grows with b n
m, where m is the largest number of items that a query of the batch ranks. Only
first derivatives in reverse mode are supported.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.typing import ArrayLike

from hier_jax.losses import _batch
from hier_jax.losses._memory import Memory

__all__ = ['of_item', 'over_items', 'scored']


# A term: scores, options, tables and items to `[b, width]`.
Term = Callable[[jax.Array, Any, Any, jax.Array], jax.Array]


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _sum_over_items(
  term: Term,
  width: int,
  scores: jax.Array,
  options: Any,
  tables: Any,
  number: jax.Array,
) -> jax.Array:
  """Sum `[b, width]` of `term(scores, options, tables, item)` over the items.

  Args:
    term: to `[b, width]`, item being bool `[b, n]`, one place of each row or
      none, whose term is left out.
    width: number of values of a term.
    scores: `[b, n]`.
    options: floats.
    tables: arrays that have no derivative.
    number: int `[b, n]`, the items of a row numbered from 0, and -1 elsewhere.
  """

  def add(step: jax.Array, total: jax.Array) -> jax.Array:
    item = number == step
    value = term(scores, options, tables, item)
    return total + jnp.where(jnp.any(item, 1, keepdims=True), value, 0)

  start = jnp.zeros_like(scores, shape=(scores.shape[0], width))
  return lax.fori_loop(0, jnp.max(number, initial=-1) + 1, add, start)


def _sum_forward(
  term: Term,
  width: int,
  scores: jax.Array,
  options: Any,
  tables: Any,
  number: jax.Array,
) -> tuple[jax.Array, tuple[Any, ...]]:
  total = _sum_over_items(term, width, scores, options, tables, number)
  return total, (scores, options, tables, number)


def _sum_backward(
  term: Term, width: int, inputs: tuple[Any, ...], cotangent: jax.Array
) -> tuple[Any, ...]:
  """Ranks each item again, so that none of its terms had to be kept."""
  scores, options, tables, number = inputs

  def add(step: jax.Array, total: Any) -> Any:
    item = number == step
    _, pull = jax.vjp(lambda s, o: term(s, o, tables, item), scores, options)
    slopes = pull(jnp.where(jnp.any(item, 1, keepdims=True), cotangent, 0))
    return jax.tree.map(jnp.add, total, slopes)

  start = jax.tree.map(jnp.zeros_like, (scores, options))
  stop = jnp.max(number, initial=-1) + 1
  return *lax.fori_loop(0, stop, add, start), None, None


_sum_over_items.defvjp(_sum_forward, _sum_backward)


# Outside of `jit` each call would compile its loop anew.
@functools.partial(jax.jit, static_argnames=('term', 'width'))
def over_items(
  term: Term,
  scores: jax.Array,
  options: Any,
  tables: Any,
  items: jax.Array,
  width: int = 1,
) -> jax.Array:
  """`_sum_over_items` at the places where `items`, bool `[b, n]`, is true."""
  options = jax.tree.map(lambda x: jnp.asarray(x, scores.dtype), options)
  number = jnp.where(items, jnp.cumsum(items, 1, dtype=jnp.int32) - 1, -1)
  return _sum_over_items(term, width, scores, options, tables, number)


def of_item(table: jax.Array, item: jax.Array) -> jax.Array:
  """The item's entry `[b, 1]` of a table `[b, n]`."""
  return jnp.sum(jnp.where(item, table, 0), 1, keepdims=True)


def scored(
  z: ArrayLike,
  labels: ArrayLike,
  c: ArrayLike | None,
  where: ArrayLike | None,
  memory: Memory | None,
  axis_name: str | None,
) -> tuple[jax.Array, jax.Array, jax.Array]:
  """Scores `[b, n]`, which are of the query's class, and which count at all."""
  batch = _batch.make(
    z, labels, where=where, memory=memory, axis_name=axis_name
  )
  scores = _batch.similarity(batch.anchors, batch.others, c)
  return scores, batch.positive, batch.positive | batch.negative
