"""The loss of triplets by the lowest common ancestors (LCA) picked for them.

Kim, Jeong and Kwak, "HIER: Metric Learning Beyond Class Labels via Hierarchical
Regularization" (CVPR 2023, arXiv 2212.14258), equations 4 to 6.
"""

from __future__ import annotations

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.typing import ArrayLike
from jaxtyping import Array, Float, PRNGKeyArray, Real

from hier_jax import numerics
from hier_jax.losses import _checks, _sharding
from hier_jax.losses import _noise as noise_lib
from hier_jax.mining import Triplets

__all__ = ['ESTIMATORS', 'lca', 'lca_losses']

ESTIMATORS = ('gumbel', 'gumbel_rao', 'softmax', 'argmax')
# Elements of a chunk, triplets times proxies: on CPU what XLA shares out among
# the cores and their caches hold, elsewhere what fills the machine.
_CHUNK = {'cpu': 2**18, 'gpu': 2**23}
_CHUNK_ELSEWHERE = 2**21
# Draws of the noise that 'gumbel_rao' averages over.
_RAO_DRAWS = 8


class _Settings(NamedTuple):
  estimator: str
  shared_noise: bool
  axis_name: object
  # Whether the number of triplets whose picks differ is differentiated: it has
  # a slope where the picks are soft.
  by_apart: bool = False
  # Rows of `dist` of each group of triplets.
  rows: tuple[int, ...] = ()

  def draws(self):
    """Independent draws of the noise that each pick takes."""
    if self.estimator in ('softmax', 'argmax'):
      return 0
    return 1 + (_RAO_DRAWS if self.estimator == 'gumbel_rao' else 0)


def _first_largest(values):
  """Index of the first largest place of each row."""
  # Several times faster than argmax on CPU.
  place = lax.broadcasted_iota(jnp.int32, values.shape, 1)
  largest = values == jnp.max(values, -1, keepdims=True)
  return jnp.min(jnp.where(largest, place, values.shape[1]), -1)


def _dense(pick, size, dtype):
  """A pick as float `[t, P]`: a soft one itself, an index one-hot."""
  if pick.ndim == 2:
    return pick
  place = lax.broadcasted_iota(jnp.int32, (pick.shape[0], size), 1)
  return (place == pick[:, None]).astype(dtype)


def _along(points, pick):
  """The distances `[3, t]` of the pick, of three distances `[t, P]`."""
  if pick.ndim == 2:
    return jnp.stack([jnp.sum(d * pick, -1) for d in points])
  place = jnp.arange(pick.shape[0], dtype=jnp.int32), pick
  return jnp.stack([d.at[place].get(mode='promise_in_bounds') for d in points])


def _coincide(a, b):
  """The chance `[t]`, or whether, two picks are the same proxy."""
  return jnp.sum(a * b, -1) if a.ndim == 2 else a == b


def _count(picks, weight, member, size):
  """How often each group picked each proxy, `[G, P]`."""
  groups = member.shape[0]
  if picks[0].ndim == 2:
    weights = jnp.where(member, weight, 0)
    return jnp.matmul(weights, sum(picks), precision=lax.Precision.HIGHEST)
  group = _first_largest(member.T)
  pick = jnp.concatenate([group * size + pick for pick in picks])
  weight = jnp.tile(weight, len(picks))
  pick = jnp.where(weight > 0, pick, groups * size)
  count = jnp.zeros(groups * size, weight.dtype)
  return count.at[pick].add(weight, mode='drop').reshape(groups, size)


def _slope(unnormalized, v):
  """Derivative of softmax . v by the logits, given exp of the logits."""
  scale = 1 / jnp.sum(unnormalized, -1, keepdims=True)
  mean = jnp.sum(unnormalized * v, -1, keepdims=True) * scale
  return unnormalized * ((v - mean) * scale)


def _rao_slope(weight, picked, rates, v):
  """`_slope` of w / E, averaged over the E under which `picked` wins.

  Paulus, Maddison and Krause, "Rao-Blackwellizing the Straight-Through
  Gumbel-Softmax Gradient Estimator" (ICLR 2021, arXiv 2010.04838), with
  exponential noise: the winner's E / w is exponential with rate sum(w), and
  beyond it each other's is exponential with its own w.
  """
  total = jnp.sum(weight, -1, keepdims=True)
  picked = _dense(picked, v.shape[1], v.dtype) > 0

  def one(draw, summed):
    rate = rates(draw)
    fresh = jnp.sum(jnp.where(picked, rate, 0), -1, keepdims=True)
    least = 1 / (total * fresh)
    others = weight / (weight * least + 1 / rate)
    noisy = jnp.where(picked, 1 / least, others)
    return summed + _slope(noisy, v)

  zero = numerics.varying_as(jnp.zeros_like(v), v)
  summed = lax.fori_loop(1, 1 + _RAO_DRAWS, one, zero)
  return summed / _RAO_DRAWS


def _pick(farthest, temperature, rates, estimator):
  """Picks the proxies whose farthest point is near.

  Args:
    farthest: `[t, P]`, distance of each proxy to the farthest of its points.
    temperature: temperature.
    rates: draw -> reciprocal exponential noise `[t, P]`.
    estimator: one of `ESTIMATORS`.

  Returns:
    the pick, proxies int32 `[t]` or a soft choice `[t, P]`, and a function
    from a vector `[t, P]` to the derivative of pick . vector by the logits
    -farthest / temperature.
  """
  # Relative to the nearest, so that no temperature underflows what matters.
  nearest = jnp.min(farthest, -1, keepdims=True)
  weight = jnp.exp((nearest - farthest) / temperature)
  if estimator == 'softmax':
    soft = weight / jnp.sum(weight, -1, keepdims=True)
    return soft, functools.partial(_slope, weight)
  if estimator == 'argmax':
    return _first_largest(-farthest), functools.partial(_slope, weight)
  noisy = weight * rates(0)
  picked = _first_largest(noisy)
  if estimator == 'gumbel':
    return picked, functools.partial(_slope, noisy)
  return picked, functools.partial(_rao_slope, weight, picked, rates)


def _share(a, b, slope):
  """What of the slope of max(a, b) is a's, half of it where they are equal."""
  return slope * (0.5 * ((a > b).astype(a.dtype) + (a >= b)))


def _by_rows(rows, temperature, by_near, by_far):
  """From derivatives by the logits, -distance / t, to those by rows."""
  d_i, d_j, d_k = rows
  near = jnp.maximum(d_i, d_j)
  by_near, by_far = -by_near / temperature, -by_far / temperature
  to_k = _share(d_k, near, by_far)
  by_near += by_far - to_k
  to_j = _share(d_j, d_i, by_near)
  return by_near - to_j, to_j, to_k


def _chunk(rows, weight, member, rates, temperature, margin, settings):
  """Losses of some triplets and their derivatives.

  Args:
    rows: distances of i, j and k to the proxies, three `[t, P]`.
    weight: `[t]`.
    member: bool `[G, t]`, whether a triplet is of a group.
    rates: (pick, draw) -> reciprocal exponential noise `[t, P]`.
    temperature: temperature.
    margin: of the hinges.
    settings: `_Settings`.

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
  lower, slope_near = _pick(near, temperature, draws[0], settings.estimator)
  upper, slope_far = _pick(far, temperature, draws[1], settings.estimator)
  same = _coincide(lower, upper).astype(weight.dtype)
  apart = weight * (1 - same)
  # How much farther a point is from the lower ancestor than from the upper.
  to_lower, to_upper = (_along(rows, pick) for pick in (lower, upper))
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
      grads.append(_by_rows(rows, temperature, *slopes))
  slopes = slope_near(by_lower), slope_far(by_upper)
  by_rows = _by_rows(rows, temperature, *slopes)
  num_proxies = near.shape[1]
  one_hot = functools.partial(_dense, size=num_proxies, dtype=near.dtype)
  step = one_hot(lower) - one_hot(upper)
  by_rows = [
    by + c[:, None] * step for by, c in zip(by_rows, pull, strict=True)
  ]
  used = _count((lower, upper), weight, member, num_proxies)
  loss, apart = (
    jnp.sum(jnp.where(member, a[None], 0), 1) for a in (apart * paid, apart)
  )
  return (loss, used, apart), [by_rows, *grads]


def _seeds(noise, triplets, settings):
  """Of the noise of each triplet; or its Gumbel noise `[2, T, P]` as it is."""
  if jnp.issubdtype(noise[0].dtype, jnp.floating):
    return None, jnp.concatenate(noise, 1)
  rank, _ = _sharding.position(settings.axis_name)
  sizes = [group.weight.shape[0] for group in triplets]
  seeds = noise_lib.triplet_seeds(
    noise, [rank * n for n in sizes], sizes, 2 * settings.draws()
  )
  return seeds, None


@functools.partial(jax.custom_jvp, nondiff_argnums=(5,))
def _one_pass(dist, triplets, noise, temperature, margin, settings):
  """The sums over the triplets and their gradients in `dist`, chunk by chunk.

  The loss is a scalar, so its gradient can be made beside it: all that outlives
  a chunk is one matrix of the size of `dist`.

  Returns:
    the sums, those of `_chunk`; and the gradients `[n, P]` of the loss and,
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
  weights = jnp.concatenate([t.weight for t in triplets])
  total = weights.shape[0]
  elements = _CHUNK.get(jax.default_backend(), _CHUNK_ELSEWHERE)
  steps = max(1, -(-total * num_proxies // elements))
  size = -(-total // steps)
  # The triplets that count, so that the loop can end after them.
  counts = weights > 0
  number = jnp.sum(counts, dtype=jnp.int32)
  # As jnp.nonzero has them, which takes twice as long, to compile too.
  place = jnp.where(
    counts, jnp.cumsum(counts, dtype=jnp.int32) - 1, steps * size
  )
  order = jnp.zeros(steps * size, jnp.int32)
  order = order.at[place].set(jnp.arange(total, dtype=jnp.int32), mode='drop')
  nowhere, places = dist.shape[0], jnp.arange(size, dtype=jnp.int32)
  groups = jnp.arange(len(triplets), dtype=jnp.int32)

  def body(step, carry):
    sums, grads = carry
    rows = lax.dynamic_slice_in_dim(order, step * size, size)
    ijk = nodes[:, rows]
    weight = weights[rows] * (step * size + places < number)
    member = jnp.asarray(group)[rows][None] == groups[:, None]

    def rates(pick, draw):
      stream = 2 * draw + (0 if settings.shared_noise else pick)
      if seeds is None:
        return jnp.exp(gumbel[stream, rows])
      return noise_lib.exponential_rates(seeds[rows, stream], num_proxies)

    chosen = [dist[node] for node in ijk]
    more, by_rows = _chunk(
      chosen, weight, member, rates, temperature, margin, settings
    )
    # Many additions to one row take turns on a GPU, those of zeros too.
    ijk = jnp.where(weight[None] > 0, ijk, nowhere)
    added = []
    for grad, by_ijk in zip(grads, by_rows, strict=True):
      for node, by_row in zip(ijk, by_ijk, strict=True):
        grad = grad.at[node].add(by_row, mode='drop')
      added.append(grad)
    return jax.tree.map(jnp.add, sums, more), added

  if jax.default_backend() != 'gpu':
    # There the host would wait for a loop whose end depends on data, and what
    # is launched after it for the host: for longer than the whole loop takes.
    steps = -(-number // size)
  zero = jnp.zeros(len(triplets), dist.dtype)
  sums = zero, jnp.zeros((len(triplets), num_proxies), dist.dtype), zero
  grads = [jnp.zeros_like(dist)] * (1 + settings.by_apart)
  own = functools.partial(_sharding.varying, axis_name=settings.axis_name)
  return lax.fori_loop(0, steps, body, jax.tree.map(own, (sums, grads)))


@_one_pass.defjvp
def _one_pass_jvp(settings, primals, tangents):
  del settings, primals, tangents
  raise TypeError(
    'the LCA loss has first derivatives in reverse mode alone (jax.grad,'
    ' jax.vjp): its gradient cannot be differentiated again'
  )


@functools.partial(jax.custom_vjp, nondiff_argnums=(5,))
def _lca_sums(dist, triplets, noise, temperature, margin, settings):
  return _one_pass(dist, triplets, noise, temperature, margin, settings)[0]


def _lca_sums_fwd(dist, triplets, noise, temperature, margin, settings):
  sums, grads = _one_pass(dist, triplets, noise, temperature, margin, settings)
  # What is made of them would otherwise decide how the chunks lay them out.
  return sums, lax.optimization_barrier(grads)


def _lca_sums_bwd(settings, grads, cotangents):
  by_loss, _, by_apart = cotangents
  # No triplet of one group names rows of another.
  grad = sum(
    g
    * jnp.repeat(by, np.array(settings.rows), total_repeat_length=len(g))[
      :, None
    ]
    for g, by in zip(grads, (by_loss, by_apart), strict=False)
  )
  return grad, None, None, None, None


_lca_sums.defvjp(_lca_sums_fwd, _lca_sums_bwd)


def lca(
  key: PRNGKeyArray | None,
  dist: Float[ArrayLike, 'n P'],
  triplets: Triplets,
  *,
  gumbel: Float[ArrayLike, '2 T P'] | None = None,
  temperature: Real[ArrayLike, ''] = 0.1,
  margin: Real[ArrayLike, ''] = 0.1,
  estimator: str = 'gumbel',
  shared_noise: bool = False,
  normalize_by: str = 'all',
  axis_name: str | None = None,
) -> tuple[Float[Array, ''], dict[str, Real[Array, '']]]:
  """The LCA triplet loss of given triplets (HIER, equations 4 to 6).

  For a triplet (i, j, k) two proxies are picked: LCA_ij, near both i and j, and
  LCA_ijk, near all three. i and j ought to be nearer the first, k nearer the
  second:

    [d(i, ij) - d(i, ijk) + margin]+ + [d(j, ij) - d(j, ijk) + margin]+
      + [d(k, ijk) - d(k, ij) + margin]+,  and 0 where the picks coincide.

  The pick of points with the largest distance m_p to proxy p is drawn from
  softmax(-m / tau), tau the temperature, and differentiated as if it were a
  softmax.

  Args:
    key: PRNG key of the picks; may be None where `gumbel` is given.
    dist: `[n, P]` distances, float32 or float64, of the nodes to the proxies.
    triplets: `Triplets` of T rows of `dist`; with `axis_name` this device's
      share of them.
    gumbel: Gumbel noise of the two picks, float `[2, T, P]`, which is used in
      place of the key; with the estimator 'gumbel' alone. None draws it.
    temperature: temperature of the picks (tau); may be traced. No gradient
      reaches it.
    margin: margin of the hinges; may be traced. No gradient reaches it.
    estimator: 'gumbel' picks with Gumbel noise and differentiates the softmax
      of the noisy logits (official); 'gumbel_rao' averages that derivative over
      the noise that leads to the same pick; 'argmax' picks the nearest and
      differentiates the softmax. None of these three differentiates whether the
      picks coincide. 'softmax' takes the softmax itself for the pick, p and q;
      the chance 1 - p.q that picks differ weighs a triplet, and the gradient is
      that of the loss, this weight's included.
    shared_noise: whether both picks of a triplet see the same noise.
    normalize_by: 'all' divides by the number of triplets, 'valid' by that of
      triplets whose picks differ.
    axis_name: mapped axis whose devices hold a share of the triplets each;
      `key` and `dist` must be the same on all of them.

  Returns:
    (loss, aux): the loss, a scalar, is differentiable (reverse mode, once) in
    `dist`; aux is a dict of scalars without gradient:
      'collision_rate': share of triplets whose picks coincide.
      'lca_perplexity': exp of the entropy of the picks, at most P.
      'lca_used': number of proxies picked at all.

  Raises:
    ValueError: for an unknown `estimator` or `normalize_by`, neither a key nor
      noise, or noise of another shape.

  References:
    Jang, Gu and Poole, "Categorical Reparameterization with Gumbel-Softmax"
    (ICLR 2017, arXiv 1611.01144), section 2.2; `_rao_slope` for 'gumbel_rao'.

  Example:
    >>> import jax.numpy as jnp
    >>> from hier_jax import losses, mining
    >>> dist = jnp.array([[0.0, 1.0], [0.0, 1.0], [2.0, 1.0]])
    >>> triplet = mining.Triplets(*jnp.arange(3)[:, None], weight=jnp.ones(1))
    >>> noise = jnp.zeros((2, 1, 2))  # Picks proxy 0 for i, j and 1 for all.
    >>> loss, _ = losses.lca(None, dist, triplet, gumbel=noise, margin=1.5)
    >>> print(f'{float(loss):.3f}')  # [0 - 1 + 1.5]+ from each of the three.
    1.500
  """
  dist = jnp.asarray(dist)
  if gumbel is not None:
    gumbel = jnp.asarray(gumbel)
    if not jnp.issubdtype(gumbel.dtype, jnp.floating):
      raise ValueError(f'gumbel is {gumbel.dtype}, expected floats [2, T, P]')
  elif key is None:
    raise ValueError('key is None: give a PRNG key, or gumbel= [2, T, P]')
  (term,) = lca_losses(
    [key if gumbel is None else gumbel],
    dist,
    [triplets],
    rows=dist.shape[:1],
    temperature=temperature,
    margin=margin,
    estimator=estimator,
    shared_noise=shared_noise,
    normalize_by=normalize_by,
    axis_name=axis_name,
  )
  return term


def lca_losses(
  noise,
  dist,
  triplets,
  *,
  rows,
  temperature,
  margin,
  estimator,
  shared_noise,
  normalize_by,
  axis_name,
):
  """`lca` of several groups of triplets, in one loop over all of them.

  Args:
    noise: of each group, a PRNG key or Gumbel noise `[2, T, P]`.
    dist: `[n, P]`, the groups' rows one after the other.
    triplets: of each group, places in its own rows.
    rows: number of rows of each group; they sum to n.
    temperature: see `lca`.
    margin: see `lca`.
    estimator: see `lca`.
    shared_noise: see `lca`.
    normalize_by: see `lca`.
    axis_name: see `lca`.

  Returns:
    for each group, what `lca` returns.
  """
  _checks.shape('dist', dist, None, None)
  noise = [jnp.asarray(n) for n in noise]
  for n, t in zip(noise, triplets, strict=True):
    _check(n, dist.shape[1], t, estimator, normalize_by)
  triplets = [Triplets(*map(jnp.asarray, t)) for t in triplets]
  triplets = [t._replace(weight=t.weight.astype(dist.dtype)) for t in triplets]
  if jnp.issubdtype(noise[0].dtype, jnp.floating):
    noise = [n.astype(dist.dtype) for n in noise]
  temperature, margin = (
    jnp.asarray(a, dist.dtype) for a in (temperature, margin)
  )
  by_apart = estimator == 'softmax' and normalize_by == 'valid'
  settings = _Settings(
    estimator, shared_noise, axis_name, by_apart, tuple(rows)
  )
  # A device's gradient is of its own triplets.
  dist = _sharding.varying(dist, axis_name)
  sums = _lca_sums(dist, triplets, noise, temperature, margin, settings)
  count = jnp.stack([jnp.sum(t.weight) for t in triplets])
  loss, used, apart, count = (
    _sharding.total(s, axis_name) for s in (*sums, count)
  )
  divisor = count if normalize_by == 'all' else apart
  share = used / jnp.maximum(jnp.sum(used, 1, keepdims=True), 1)
  entropy = -jnp.sum(jax.scipy.special.xlogy(share, share), 1)
  stats = {
    'collision_rate': 1 - apart / jnp.maximum(count, 1),
    'lca_perplexity': jnp.exp(entropy),
    'lca_used': jnp.sum(used > 0, 1).astype(dist.dtype),
  }
  stats = jax.tree.map(lax.stop_gradient, stats)
  if not by_apart:
    divisor = lax.stop_gradient(divisor)
  loss = loss / jnp.maximum(divisor, 1)
  groups = range(len(triplets))
  return [(loss[i], {k: v[i] for k, v in stats.items()}) for i in groups]


def _check(noise, num_proxies, triplets, estimator, normalize_by):
  if estimator not in ESTIMATORS:
    choices = ', '.join(map(repr, ESTIMATORS))
    raise ValueError(f'estimator is {estimator!r}, expected one of {choices}')
  if normalize_by not in ('all', 'valid'):
    raise ValueError(
      f"normalize_by is {normalize_by!r}, expected 'all' or 'valid'"
    )
  for name, rows in triplets._asdict().items():
    _checks.shape(f'triplets.{name}', rows, len(triplets.weight))
  shape = (2, *triplets.weight.shape, num_proxies)
  given = jnp.issubdtype(noise.dtype, jnp.floating)
  if given and (noise.shape != shape or estimator != 'gumbel'):
    raise ValueError(
      f'gumbel has shape {noise.shape} with estimator {estimator!r}: expected'
      f" shape {shape} and estimator 'gumbel', or a key alone"
    )
