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
CHUNK = {'cpu': 2**17, 'gpu': 2**23}
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


def _start(groups, size, dtype):
  """What the sums over no triplets are, see `_added`."""
  return jnp.zeros((3, groups), dtype), jnp.zeros((groups, size), dtype)


def _added(sums, paid, apart, picks, weight, group):
  """Sums over triplets, to which those over some more are added.

  Args:
    sums: the losses, the numbers apart and the numbers of triplets of all
      groups, `[3, G]`; and how often each group picked each proxy, `[G, P]`.
    paid: `[t]`.
    apart: `[t]`.
    picks: int32 `[2, t]`, or soft `[2, t, P]`.
    weight: `[t]`.
    group: int32 `[t]`, which of the G groups each triplet is of.
  """
  totals, used = sums
  groups, size = used.shape
  product = functools.partial(jnp.matmul, precision=lax.Precision.HIGHEST)
  member = group[:, None] == jnp.arange(groups, dtype=jnp.int32)[None]
  member = member.astype(weight.dtype)
  # A product of matrices: other sums are kernels of their own on a CPU.
  totals = totals + product(jnp.stack([apart * paid, apart, weight]), member)
  if picks.ndim == 3:
    return totals, used + product((member * weight[:, None]).T, sum(picks))
  row = jnp.where(weight > 0, group, groups) * size
  used = used.ravel()
  used = used.at[row[None] + picks].add(
    jnp.broadcast_to(weight, picks.shape),
    mode='drop',
    wrap_negative_indices=False,
  )
  return totals, used.reshape(groups, size)


def _chunk(dist, nodes, weight, rates, temperature, margin, settings):
  """Losses of some triplets and their derivatives.

  Both picks are made at once, and the rows of all three points: on a CPU the
  number of kernels is most of what a program costs to compile.

  Args:
    dist: distances to the proxies, `[n, P]`.
    nodes: int32 `[3, t]`, rows of i, j and k, which exist.
    weight: `[t]`.
    rates: draw -> reciprocal exponential noise of both picks, `[2, t, P]`, or
      `[1, t, P]` for the same of both.
    temperature: temperature.
    margin: of the hinges.
    settings: `Settings`.

  Returns:
    what each triplet pays where its picks differ `[t]`; how much they differ
    `[t]`, weighed; the picks, int32 `[2, t]` or soft `[2, t, P]`; and the
    derivatives by the rows `[3, t, P]` of the summed loss and, where the
    settings ask for it, of the sum of what differs.
  """
  rows = [_at(dist, node) for node in nodes]
  near = jnp.maximum(rows[0], rows[1])
  upper = np.array([False, True])[:, None, None]
  farthest = jnp.maximum(near[None], jnp.where(upper, rows[2][None], -jnp.inf))
  picks, slope = _lca_picks.pick(
    farthest, temperature, rates, settings.estimator
  )
  same = _lca_picks.coincide(*picks).astype(weight.dtype)
  apart = weight * (1 - same)
  to_pick = [
    _lca_picks.along(dist, node, row, picks)
    for node, row in zip(nodes, rows, strict=True)
  ]
  # How much farther a point is from the lower ancestor than from the upper.
  signs = 1, 1, -1
  hinges = [
    jax.nn.relu(sign * (lower - upper) + margin)
    for sign, (lower, upper) in zip(signs, to_pick, strict=True)
  ]
  paid = hinges[0] + hinges[1] + hinges[2]
  pull = [
    sign * jnp.where(hinge > 0, apart, 0)
    for sign, hinge in zip(signs, hinges, strict=True)
  ]
  # Relative to the pick: a softmax has no slope along a constant, and what is
  # left of one would drown the last digits of the slope.
  i, j, k = (
    c[None, :, None] * (row[None] - at[..., None])
    for c, row, at in zip(pull, rows, to_pick, strict=True)
  )
  by_pick = jnp.where(upper, -1.0, 1.0).astype(dist.dtype) * (i + j + k)
  grads = []
  if picks.ndim == 3:
    # The chance that soft picks differ has a slope too.
    closer = weight[None, :, None] * (picks[::-1] - same[None, :, None])
    by_pick = by_pick - paid[None, :, None] * closer
    if settings.by_apart:
      slopes = -slope(closer)
      grads.append(_stacked(_lca_picks.by_rows(rows, temperature, *slopes)))
  by_rows = _lca_picks.by_rows(rows, temperature, *slope(by_pick))
  one_hot = _lca_picks.dense(picks, dist.shape[1], dist.dtype)
  step = one_hot[0] - one_hot[1]
  by_rows = _stacked(
    [by + c[:, None] * step for by, c in zip(by_rows, pull, strict=True)]
  )
  return paid, apart, picks, [by_rows, *grads]


def _stacked(by_rows):
  """Three `[t, P]` as `[3, t, P]`, several times faster than jnp.stack."""
  i, j, k = (by[None] for by in by_rows)
  place = np.arange(3, dtype=np.int32)[:, None, None]
  return jnp.where(place == 0, i, jnp.where(place == 1, j, k))


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


def _table(nodes, group, seeds):
  """What a chunk needs of its triplets, a row of 32-bit words for each.

  A matrix for each of them would be a gather, and a kernel, for each of them.
  """
  words = [*nodes, group]
  table = jnp.stack([lax.bitcast_convert_type(w, jnp.uint32) for w in words], 1)
  if seeds is None:
    return table
  return jnp.concatenate([table, seeds.reshape(len(table), -1)], 1)


def _split_table(rows):
  """Nodes int32 `[3, t]`, groups `[t]` and seeds `[t, draws, 2, 2]`."""
  words = lax.bitcast_convert_type(rows[:, :4], jnp.int32)
  return words[:, :3].T, words[:, 3], rows[:, 4:].reshape(len(rows), -1, 2, 2)


@functools.partial(jax.custom_jvp, nondiff_argnums=(5,))
def _one_pass(dist, triplets, noise, temperature, margin, settings):
  """The sums over the triplets and their gradients in `dist`, chunk by chunk.

  The loss is a scalar, so its gradient can be made beside it: all that outlives
  a chunk is one matrix of the size of `dist`.

  Returns:
    the sums of `_added`; and the gradients `[n, P]` of the loss and, where the
    settings ask for it, of the triplets whose picks differ.
  """
  num_proxies = dist.shape[1]
  seeds, gumbel = _seeds(noise, triplets, settings)
  group = np.repeat(
    np.arange(len(triplets), dtype=np.int32), [len(t.weight) for t in triplets]
  )
  starts = np.cumsum([0, *settings.rows[:-1]], dtype=np.int32)
  fields = [(t.anchor, t.positive, t.negative) for t in triplets]
  nodes = jnp.stack([jnp.concatenate(f) for f in zip(*fields, strict=True)])
  nodes = nodes + starts[group][None]
  weights = jnp.concatenate([t.weight for t in triplets])
  sums = _start(len(triplets), num_proxies, dist.dtype)
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
    groups = jnp.asarray(group)
    return _added(sums, paid, apart, picks, weights, groups), [grad]
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
  table = _table(nodes, group, seeds)

  def body(step, carry):
    sums, grads = carry
    rows = lax.dynamic_slice_in_dim(order, step * size, size)
    counts, rows = rows < total, jnp.minimum(rows, total - 1)
    ijk, own_group, own_seeds = _split_table(_at(table, rows))
    weight = _at(weights, rows) * counts
    picks = 1 if settings.shared_noise else 2

    def rates(draw):
      if seeds is None:
        return jnp.exp(gumbel[:picks, rows])
      own = own_seeds[:, draw, :picks].swapaxes(0, 1).reshape(-1, 2)
      found = noise_lib.exponential_rates(own, num_proxies)
      return found.reshape(picks, size, num_proxies)

    paid, apart, picked, by_rows = _chunk(
      dist, ijk, weight, rates, temperature, margin, settings
    )
    sums = _added(sums, paid, apart, picked, weight, own_group)
    # On a GPU, additions to one row take turns, even additions of zeros.
    ijk = jnp.where(weight > 0, ijk, nowhere)
    grads = [
      grad.at[ijk].add(by, mode='drop', wrap_negative_indices=False)
      for grad, by in zip(grads, by_rows, strict=True)
    ]
    return sums, grads

  if jax.default_backend() != 'gpu':
    # There the host would wait for a loop whose end depends on data, and what
    # is launched after it for the host: for longer than the whole loop takes.
    steps = jnp.sum(order[:: max(size, 1)] < total, dtype=jnp.int32)
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
  """The sums over triplets, differentiable in `dist`.

  Returns:
    the losses, the numbers of triplets apart and the numbers of triplets of all
    groups, `[3, G]`; and how often each group picked each proxy, `[G, P]`.
  """
  return _one_pass(dist, triplets, noise, temperature, margin, settings)[0]


def _lca_sums_fwd(dist, triplets, noise, temperature, margin, settings):
  sums, grads = _one_pass(dist, triplets, noise, temperature, margin, settings)
  # What is made of them would otherwise decide how the chunks lay them out.
  return sums, lax.optimization_barrier(grads)


def _lca_sums_bwd(settings, grads, cotangents):
  by_totals, _ = cotangents
  # No triplet of one group names rows of another.
  group = np.repeat(np.arange(len(settings.rows)), settings.rows)
  grad = sum(
    g * by[group][:, None] for g, by in zip(grads, by_totals, strict=False)
  )
  return grad, None, None, None, None


lca_sums.defvjp(_lca_sums_fwd, _lca_sums_bwd)
