"""Proxies that are drawn as anchors, where there are many.

With all P proxies as anchors, the distances of all P to all P are needed. With
N drawn anchors, and N proxies of another draw as negatives, triplets name only
these and some of the anchors' N k nearest. Only the distances of these rows are
computed, so time and memory grow linearly with P.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from hier_jax import mining
from hier_jax.losses import _hier_triplets, _sharding
from hier_jax.losses._hier_triplets import places

__all__ = ['Drawn', 'distances_of_rows', 'draw', 'number']

# Up to the first number of proxies all are anchors; of more, the second number
# is drawn.
_MANY, _DRAWN = 512, 256
# Elements of the rows that are made at a time.
_CHUNK = 2**19


def number(proxy_anchors: int | None, num_proxies: int, k: int) -> int:
  """How many of the proxies are anchors; the arguments are `losses.hier`'s."""
  if proxy_anchors is None:
    drawn = _MANY if num_proxies <= _MANY else _DRAWN
  else:
    drawn = mining.integer('proxy_anchors', proxy_anchors)
  if drawn >= num_proxies:
    return num_proxies
  if drawn <= k:
    raise ValueError(
      f'{drawn} of {num_proxies} proxies are drawn as anchors (proxy_anchors),'
      f' but each can have {k - 1} neighbors among them (k = {k}): draw more'
      ' than k, so that negatives are left'
    )
  return drawn


class Drawn(NamedTuple):
  """The drawn proxies, and the rows that a device's triplets can name.

  Attributes:
    term: `_hier_triplets.Term` of the anchors.
    mined: `_hier_triplets.Mined` of this device's share of the anchors.
    proxies: int32 `[R]`, the proxy of each row: first what negatives are drawn
      from, then the anchors, then what else is needed, and P for no proxy.
    dist: `[R, P]`, distances of these proxies to all; of P, zeros.
  """

  term: _hier_triplets.Term
  mined: _hier_triplets.Mined
  proxies: jax.Array
  dist: jax.Array


def _steps(total, width):
  """Rows of a chunk, and the number of chunks."""
  size = total if jax.default_backend() == 'gpu' else -(-_CHUNK // width)
  size = max(1, min(size, total))
  return size, -(-total // size)


def _order(used, size, steps):
  """The places that are used, first and in order, filled up; their chunks."""
  total = used.shape[0]
  order = jnp.sort(jnp.where(used, places(total), total))
  if jax.default_backend() != 'gpu':
    # A GPU would wait for its host to decide when a loop ends.
    steps = -(-jnp.sum(used, dtype=jnp.int32) // size)
  return jnp.pad(order, (0, -total % size), constant_values=total), steps


def _nearest(dist, k):
  return lax.top_k(jnp.exp(-lax.stop_gradient(dist)), k)[1]


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1, 2))
def distances_of_rows(distance, k, axis_name, points, c, index):
  """Distances of some points to all, chunk by chunk, and who is nearest.

  Args:
    distance: (x, y, c) -> distances of all pairs; it closes over no array.
    k: number of nearest points.
    axis_name: mapped axis whose devices have rows of their own.
    points: `[P, d]`.
    c: curvature, or None.
    index: int32 `[R]`, the points, and P where there is none, in any order.

  Returns:
    distances `[R, P]`, differentiable in points and c where their gradient is
    not zero; and int32 `[R, k]`. Both are zeros where there is no point.
  """
  return _forward(distance, k, axis_name, points, c, index)[0]


def _forward(distance, k, axis_name, points, c, index):
  num_points, total = points.shape[0], index.shape[0]
  size, steps = _steps(total, num_points)
  order, steps = _order(index < num_points, size, steps)
  varying = functools.partial(_sharding.varying, axis_name=axis_name)

  def body(step, carry):
    rows = lax.dynamic_slice_in_dim(order, step * size, size)
    own = jnp.take(index, rows, mode='clip')
    found = distance(jnp.take(points, own, axis=0, mode='clip'), points, c)
    put = lambda whole, part: whole.at[rows].set(part, mode='drop')
    return jax.tree.map(put, carry, (found, _nearest(found, k)))

  empty = (
    jnp.zeros((total, num_points), points.dtype),
    jnp.zeros((total, k), jnp.int32),
  )
  made = lax.fori_loop(0, steps, body, jax.tree.map(varying, empty))
  return made, (points, c, index)


def _backward(distance, k, axis_name, residuals, cotangents):
  del k
  points, c, index = residuals
  by_dist, _ = cotangents
  size, steps = _steps(*by_dist.shape)
  # Of the rows that could be named few are.
  order, steps = _order(jnp.any(by_dist != 0, 1), size, steps)

  def body(step, carry):
    rows = lax.dynamic_slice_in_dim(order, step * size, size)
    own = jnp.take(index, rows, mode='clip')
    part = jnp.take(by_dist, rows, axis=0, mode='fill', fill_value=0)
    row = jnp.take(points, own, axis=0, mode='clip')
    by_row, by_all, by_c = jax.vjp(distance, row, points, c)[1](part)
    by_points, summed = carry
    by_points = by_points.at[own].add(by_row, mode='drop') + by_all
    return by_points, jax.tree.map(jnp.add, summed, by_c)

  zeros = jax.tree.map(jnp.zeros_like, (points, c))
  varying = functools.partial(_sharding.varying, axis_name=axis_name)
  by_points, by_c = lax.fori_loop(0, steps, body, jax.tree.map(varying, zeros))
  return by_points, by_c, None


distances_of_rows.defvjp(_forward, _backward)


def draw(key, rho, count, k, c, distance, axis_name):
  """Draws anchors and negatives, and mines the anchors' neighbors among all.

  Both are drawn without replacement, and apart from each other: were anchors
  their negatives, these would depend on how many of the drawn are anchors, by
  which a mean over triplets is divided.

  Args:
    key: PRNG key, the same on all devices.
    rho: `[P, d]`, the proxies' points.
    count: number N of proxies that are drawn.
    k: number of nearest neighbors that make reciprocal ones.
    c: curvature, or None.
    distance: (x, y, c) -> distances of all pairs; it closes over no array.
    axis_name: mapped axis over whose devices the anchors are spread.

  Returns:
    `Drawn`.
  """
  num_proxies = rho.shape[0]
  negatives, anchors = (
    jax.random.choice(key, places(num_proxies), (count,), replace=False)
    for key in jax.random.split(key)
  )
  drawn = jnp.concatenate([negatives, anchors])
  rank, devices = _sharding.position(axis_name)
  share = -(-count // devices)
  own = rank * share + places(share)
  of_drawn = distance(rho[drawn], rho, c)
  near_drawn = _nearest(of_drawn, k)
  near = jnp.take(near_drawn[count:], own, axis=0, mode='clip')
  # The nearest that are not drawn themselves.
  needed = jnp.zeros(num_proxies, bool).at[near].set(True)
  needed = needed.at[drawn].set(False)
  others = jnp.sort(jnp.where(needed, places(num_proxies), num_proxies))
  others = others[: min(num_proxies - count, share * k)]
  of_others, near_others = distances_of_rows(
    distance, k, axis_name, rho, c, others
  )
  index = jnp.concatenate([drawn, others])
  # Of two rows of a proxy the first, which can be a negative's.
  row_of = jnp.full(num_proxies, index.size, jnp.int32)
  row_of = row_of.at[index].min(places(index.size), mode='drop')
  # Who counts whom among its nearest, as `mining.reciprocal_neighbors` does.
  rows = row_of[near]
  theirs = jnp.concatenate([near_drawn, near_others])[rows]
  itself = jnp.take(anchors, own, mode='clip')[:, None]
  returned = jnp.any(theirs == itself[..., None], -1)
  reciprocal = returned & (near != itself) & (own < count)[:, None]
  mined = _hier_triplets.Mined(
    row_of[itself[:, 0]],
    jnp.sort(jnp.where(reciprocal, rows, index.size), axis=1),
    jnp.sum(reciprocal, 1, dtype=jnp.int32),
    count,
  )
  term = _hier_triplets.Term(rho[anchors], None, None, rank * share)
  return Drawn(term, mined, index, jnp.concatenate([of_drawn, of_others]))
