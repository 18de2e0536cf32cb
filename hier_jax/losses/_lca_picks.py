"""How the LCA loss picks proxies, and the slopes of its picks.

Kim, Jeong and Kwak, "HIER: Metric Learning Beyond Class Labels via Hierarchical
Regularization" (CVPR 2023, arXiv 2212.14258), equation 4. A pick is proxies
int32 `[t]`, or a soft choice `[t, P]`.
"""

import functools

import jax.numpy as jnp
from jax import lax

from hier_jax import numerics

__all__ = [
  'ESTIMATORS',
  'along',
  'by_rows',
  'coincide',
  'dense',
  'num_draws',
  'pick',
  'rao_slope',
]

ESTIMATORS = ('gumbel', 'gumbel_rao', 'softmax', 'argmax')
# Draws of the noise that 'gumbel_rao' averages over.
RAO_DRAWS = 8


def num_draws(estimator):
  """Independent draws of the noise that each pick takes."""
  if estimator in ('softmax', 'argmax'):
    return 0
  return 1 + (RAO_DRAWS if estimator == 'gumbel_rao' else 0)


def _first_largest(values):
  """Index of the first largest place of each row."""
  # Several times faster than argmax on CPU.
  place = lax.broadcasted_iota(jnp.float32, values.shape, values.ndim - 1)
  largest = values == jnp.max(values, -1, keepdims=True)
  # Minima of floats compile in half the time; they are exact up to 2^24.
  first = jnp.min(jnp.where(largest, place, values.shape[-1]), -1)
  return first.astype(jnp.int32)


def dense(pick, size, dtype):
  """A pick as float `[..., P]`: a soft one itself, an index one-hot."""
  if jnp.issubdtype(pick.dtype, jnp.floating):
    return pick
  place = lax.broadcasted_iota(jnp.int32, (*pick.shape, size), pick.ndim)
  return (place == pick[..., None]).astype(dtype)


def along(dist, node, row, picks):
  """The distances `[2, t]` of both picks to one point of each triplet.

  Args:
    dist: `[n, P]`.
    node: int32 `[t]`, rows of `dist` that exist.
    row: `[t, P]`, these rows.
    picks: proxies int32 `[2, t]`, or soft choices `[2, t, P]`.
  """
  if picks.ndim == 3:
    return jnp.sum(row[None] * picks, -1)
  inside = dict(mode='promise_in_bounds', wrap_negative_indices=False)
  return dist.at[node[None], picks].get(**inside)


def coincide(a, b):
  """The chance `[t]`, or whether, two picks are the same proxy."""
  return jnp.sum(a * b, -1) if a.ndim == 2 else a == b


def _slope(unnormalized, v):
  """Derivative of softmax . v by the logits, given exp of the logits."""
  scale = 1 / jnp.sum(unnormalized, -1, keepdims=True)
  mean = jnp.sum(unnormalized * v, -1, keepdims=True) * scale
  return unnormalized * ((v - mean) * scale)


def rao_slope(weight, picked, rates, v):
  """`_slope` of w / E, averaged over the E under which `picked` wins.

  Paulus, Maddison and Krause, "Rao-Blackwellizing the Straight-Through
  Gumbel-Softmax Gradient Estimator" (ICLR 2021, arXiv 2010.04838), with
  exponential noise: the winner's E / w is exponential with rate sum(w), and
  beyond it each other's is exponential with its own w.
  """
  total = jnp.sum(weight, -1, keepdims=True)
  picked = dense(picked, v.shape[-1], v.dtype) > 0

  def one(draw, summed):
    rate = rates(draw)
    fresh = jnp.sum(jnp.where(picked, rate, 0), -1, keepdims=True)
    least = 1 / (total * fresh)
    others = weight / (weight * least + 1 / rate)
    noisy = jnp.where(picked, 1 / least, others)
    return summed + _slope(noisy, v)

  zero = numerics.varying_as(jnp.zeros_like(v), v)
  summed = lax.fori_loop(1, 1 + RAO_DRAWS, one, zero)
  return summed / RAO_DRAWS


def pick(farthest, temperature, rates, estimator):
  """Picks the proxies whose farthest point is near.

  Args:
    farthest: `[..., P]`, distance of each proxy to the farthest of its points.
    temperature: temperature.
    rates: draw -> reciprocal exponential noise `[..., P]`.
    estimator: one of `ESTIMATORS`.

  Returns:
    the picks, proxies int32 `[...]` or soft choices `[..., P]`, and a function
    from a vector `[..., P]` to the derivative of pick . vector by the logits
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
  return picked, functools.partial(rao_slope, weight, picked, rates)


def _share(a, b, slope):
  """What of the slope of max(a, b) is a's, half of it where they are equal."""
  return slope * (0.5 * ((a > b).astype(a.dtype) + (a >= b)))


def by_rows(rows, temperature, by_near, by_far):
  """From derivatives by the logits, -distance / t, to those by rows."""
  d_i, d_j, d_k = rows
  near = jnp.maximum(d_i, d_j)
  by_near, by_far = -by_near / temperature, -by_far / temperature
  to_k = _share(d_k, near, by_far)
  by_near += by_far - to_k
  to_j = _share(d_j, d_i, by_near)
  return by_near - to_j, to_j, to_k
