"""The sums of the LCA loss over triplets, and their gradients, chunk by chunk.

Kim, Jeong and Kwak, "HIER: Metric Learning Beyond Class Labels via Hierarchical
Regularization" (CVPR 2023, arXiv 2212.14258), equations 5 and 6.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from hier_jax.losses import _lca_kernel, _lca_picks, _sharding
from hier_jax.losses import _noise as noise_lib

__all__ = ['Settings', 'lca_sums']

# Elements of a chunk, triplets times proxies: on CPU what XLA shares out among
# the cores and their caches hold, elsewhere what fills the machine.
CHUNK = {'cpu': 2**18, 'gpu': 2**23}
CHUNK_ELSEWHERE = 2**21


class Settings(NamedTuple):
  """What is static of the sums.

  Attributes:
    estimator: one of `_lca_picks.ESTIMATORS`.
    shared_noise: whether both picks of a triplet see the same noise.
    axis_name: mapped axis whose devices hold a share of the triplets each.
    by_apart: whether the number of triplets whose picks differ is
      differentiated: it has a slope where the picks are soft.
    rows: rows of `dist` of each group of triplets.
  """

  estimator: str
  shared_noise: bool
  axis_name: object
  by_apart: bool = False
  rows: tuple[int, ...] = ()


def _count(picks, weight, group, member, size):
  """How often each group picked each proxy, `[G, P]`."""
  groups = member.shape[0]
  if picks[0].ndim == 2:
    weights = jnp.where(member, weight, 0)
    return jnp.matmul(weights, sum(picks), precision=lax.Precision.HIGHEST)
  pick = jnp.concatenate([group * size + pick for pick in picks])
  weight = jnp.tile(weight, len(picks))
  pick = jnp.where(weight > 0, pick, groups * size)
  count = jnp.zeros(groups * size, weight.dtype)
  return count.at[pick].add(weight, mode='drop').reshape(groups, size)


def _group_sums(paid, apart, picks, weight, group, groups, size):
  """The loss, the counts of picks and the number apart, of each group."""
  numbers = jnp.arange(groups, dtype=jnp.int32)
  member = group[None] == numbers[:, None]
  used = _count(picks, weight, group, member, size)
  # A product of matrices: other sums are kernels of their own on a CPU.
  loss, apart = jnp.matmul(
    jnp.stack([apart * paid, apart]),
    member.T.astype(weight.dtype),
    precision=lax.Precision.HIGHEST,
  )
  return loss, used, apart


def _chunk(rows, weight, group, rates, temperature, margin, settings):
  """Losses of some triplets and their derivatives.

  Args:
    rows: distances of i, j and k to the proxies, three `[t, P]`.
    weight: `[t]`.
    group: int32 `[t]`, which of the G groups each triplet is of.
    rates: (pick, draw) -> reciprocal exponential noise `[t, P]`.
    temperature: temperature.
    margin: of the hinges.
    settings: `Settings`.

  Returns:
    the summed loss of each group `[G]`, how often it picked each proxy
    `[G, P]`, the number of its triplets whose picks differ `[G]`; and the
    derivatives by `rows` of the first, summed over the groups, and, where the
    settings ask for it, of the last.
  """
  d_i, d_j, d_k = rows
  near = jnp.maximum(d_i, d_j)
  far = jnp.maximum(near, d_k)
  draws = [functools.partial(rates, pick) for pick in (0, 1)]
  lower, slope_near = _lca_picks.pick(
    near, temperature, draws[0], settings.estimator
  )
  upper, slope_far = _lca_picks.pick(
    far, temperature, draws[1], settings.estimator
  )
  same = _lca_picks.coincide(lower, upper).astype(weight.dtype)
  apart = weight * (1 - same)
  # How much farther a point is from the lower ancestor than from the upper.
  to_lower, to_upper = (_lca_picks.along(rows, pick) for pick in (lower, upper))
  sign = jnp.array([1, 1, -1], d_i.dtype)[:, None]
  hinges = jax.nn.relu(sign * (to_lower - to_upper) + margin)
  paid = jnp.sum(hinges, 0)
  c_i, c_j, c_k = pull = sign * jnp.where(hinges > 0, apart[None], 0)

  def v(to_pick):
    # Relative to the pick: a softmax has no slope along a constant, and what is
    # left of one would drown the last digits of the slope.
    i, j, k = (d - a[:, None] for d, a in zip(rows, to_pick, strict=True))
    return c_i[:, None] * i + c_j[:, None] * j + c_k[:, None] * k

  by_lower, by_upper = v(to_lower), -v(to_upper)
  grads = []
  if lower.ndim == 2:
    # The chance that soft picks differ has a slope too.
    closer = [weight[:, None] * (p - same[:, None]) for p in (upper, lower)]
    by_lower, by_upper = (
      by_lower - paid[:, None] * closer[0],
      by_upper - paid[:, None] * closer[1],
    )
    if settings.by_apart:
      slopes = -slope_near(closer[0]), -slope_far(closer[1])
      grads.append(_lca_picks.by_rows(rows, temperature, *slopes))
  slopes = slope_near(by_lower), slope_far(by_upper)
  by_rows = _lca_picks.by_rows(rows, temperature, *slopes)
  num_proxies = near.shape[1]
  one_hot = functools.partial(
    _lca_picks.dense, size=num_proxies, dtype=near.dtype
  )
  step = one_hot(lower) - one_hot(upper)
  by_rows = [
    by + c[:, None] * step for by, c in zip(by_rows, pull, strict=True)
  ]
  sums = _group_sums(
    paid, apart, (lower, upper), weight, group, len(settings.rows), num_proxies
  )
  return sums, [by_rows, *grads]


def _at(values, rows):
  """values[rows] of rows that exist: what makes sure of it is kernels."""
  return values.at[rows].get(
    mode='promise_in_bounds', wrap_negative_indices=False
  )


def _seeds(noise, triplets, settings):
  """Of the noise of each triplet; or its Gumbel noise `[2, T, P]` as it is."""
  if jnp.issubdtype(noise[0].dtype, jnp.floating):
    return None, jnp.concatenate(noise, 1)
  rank, _ = _sharding.position(settings.axis_name)
  sizes = [group.weight.shape[0] for group in triplets]
  seeds = noise_lib.triplet_seeds(
    noise,
    [rank * n for n in sizes],
    sizes,
    2 * _lca_picks.num_draws(settings.estimator),
  )
  return seeds, None


@functools.partial(jax.custom_jvp, nondiff_argnums=(5,))
def _one_pass(dist, triplets, noise, temperature, margin, settings):
  """The sums over the triplets and their gradients in `dist`, chunk by chunk.

  The loss is a scalar, so its gradient can be made beside it: all that outlives
  a chunk is one matrix of the size of `dist`.

  Returns:
    the sums that `_chunk` returns; and the gradients `[n, P]` of the loss and,
    where the settings ask for it, of the triplets whose picks differ.
  """
  num_proxies = dist.shape[1]
  seeds, gumbel = _seeds(noise, triplets, settings)
  group = np.repeat(
    np.arange(len(triplets), dtype=np.int32), [len(t.weight) for t in triplets]
  )
  starts = np.cumsum([0, *settings.rows[:-1]])
  nodes = jnp.concatenate(
    [
      int(start) + jnp.stack([t.anchor, t.positive, t.negative])
      for start, t in zip(starts, triplets, strict=True)
    ],
    1,
  )
  ijkg = jnp.concatenate([nodes, group[None]])
  weights = jnp.concatenate([t.weight for t in triplets])
  if _lca_kernel.fits(dist, settings.estimator, given=seeds is None):
    paid, picks, grad = _lca_kernel.triplet_gradients(
      dist,
      nodes,
      weights,
      seeds,
      temperature,
      margin,
      shared_noise=settings.shared_noise,
    )
    apart = jnp.where(picks[0] != picks[1], weights, 0)
    groups = jnp.asarray(group), len(triplets), num_proxies
    return _group_sums(paid, apart, picks, weights, *groups), [grad]
  total = weights.shape[0]
  elements = CHUNK.get(jax.default_backend(), CHUNK_ELSEWHERE)
  steps = max(1, -(-total * num_proxies // elements))
  size = -(-total // steps)
  # The triplets that count come first, so that the loop can end after them. A
  # sort of whole numbers compiles in a third of the time of a running sum.
  place = jnp.arange(total, dtype=jnp.int32)
  order = lax.sort(jnp.where(weights > 0, place, total), is_stable=False)
  order = jnp.pad(order, (0, steps * size - total), constant_values=total)
  nowhere = dist.shape[0]

  def body(step, carry):
    sums, grads = carry
    rows = lax.dynamic_slice_in_dim(order, step * size, size)
    counts, rows = rows < total, jnp.minimum(rows, total - 1)
    *ijk, own_group = _at(ijkg.T, rows).T
    weight = _at(weights, rows) * counts
    own = None if seeds is None else _at(seeds, rows)

    def rates(pick, draw):
      stream = 2 * draw + (0 if settings.shared_noise else pick)
      if own is None:
        return jnp.exp(gumbel[stream, rows])
      return noise_lib.exponential_rates(own[:, stream], num_proxies)

    chosen = [_at(dist, node) for node in ijk]
    more, by_rows = _chunk(
      chosen,
      weight,
      own_group,
      rates,
      temperature,
      margin,
      settings,
    )
    # On a GPU, additions to one row take turns, even additions of zeros.
    ijk = [jnp.where(weight > 0, node, nowhere) for node in ijk]
    added = []
    for grad, by_ijk in zip(grads, by_rows, strict=True):
      for node, by_row in zip(ijk, by_ijk, strict=True):
        grad = grad.at[node].add(
          by_row, mode='drop', wrap_negative_indices=False
        )
      added.append(grad)
    return jax.tree.map(jnp.add, sums, more), added

  if jax.default_backend() != 'gpu':
    # There the host would wait for a loop whose end depends on data, and what
    # is launched after it for the host: for longer than the whole loop takes.
    steps = jnp.sum(order[:: max(size, 1)] < total, dtype=jnp.int32)
  zero = jnp.zeros(len(triplets), dist.dtype)
  sums = zero, jnp.zeros((len(triplets), num_proxies), dist.dtype), zero
  grads = [jnp.zeros_like(dist)] * (1 + settings.by_apart)
  varying = functools.partial(_sharding.varying, axis_name=settings.axis_name)
  return lax.fori_loop(0, steps, body, jax.tree.map(varying, (sums, grads)))


@_one_pass.defjvp
def _one_pass_jvp(settings, primals, tangents):
  del settings, primals, tangents
  raise TypeError(
    'the LCA loss has first derivatives in reverse mode alone (jax.grad,'
    ' jax.vjp): its gradient cannot be differentiated again'
  )


@functools.partial(jax.custom_vjp, nondiff_argnums=(5,))
def lca_sums(dist, triplets, noise, temperature, margin, settings):
  """The sums over the triplets, see `_one_pass`, differentiable in `dist`."""
  return _one_pass(dist, triplets, noise, temperature, margin, settings)[0]


def _lca_sums_fwd(dist, triplets, noise, temperature, margin, settings):
  sums, grads = _one_pass(dist, triplets, noise, temperature, margin, settings)
  # What is made of them would otherwise decide how the chunks lay them out.
  return sums, lax.optimization_barrier(grads)


def _lca_sums_bwd(settings, grads, cotangents):
  by_loss, _, by_apart = cotangents
  # No triplet of one group names rows of another.
  group = np.repeat(np.arange(len(settings.rows)), settings.rows)
  grad = sum(
    g * by[group][:, None]
    for g, by in zip(grads, (by_loss, by_apart), strict=False)
  )
  return grad, None, None, None, None


lca_sums.defvjp(_lca_sums_fwd, _lca_sums_bwd)
