"""Means of points: the gyromidpoint in closed form and the Frechet mean."""

from __future__ import annotations

# The annotations say what callers may pass. The formulas receive arrays instead
# (see `_arguments.op`), which mypy cannot know.
# mypy: disable-error-code="index"
import functools

import jax
import jax.numpy as jnp
from jax import lax
from jax.typing import ArrayLike
from jaxtyping import Array, Float, Real

from hier_jax import numerics
from hier_jax.poincare import _analytic, _arguments, _rounding
from hier_jax.poincare._riemannian import logmap


def weighted_moments(x, gap, weights, c):
  """The parts of the weighted centroid of points, without cancellation.

  With p_i = w_i / (1 - c|x_i|^2), W = sum w_i, P = sum p_i and m = sum p_i x_i
  / P, the Lorentz norm of the weighted sum of the points on the hyperboloid is
  sqrt(W^2 + 4c P sum p_i |x_i - m|^2).

  Args:
    x: points `[..., n, d]`.
    gap: `[..., n, 1]`, their 1 - c|x|^2.
    weights: `[..., n, 1]`.
    c: curvature `[..., 1]`.

  Returns:
    m `[..., d]`; W / P and that norm / P, both `[..., 1]`.
  """
  p = weights / gap
  total = jnp.sum(p, -2)
  share = p / jnp.where(total > 0, total, 1)[..., None, :]
  mean = jnp.sum(share * x, -2)
  apart = _rounding.curved_sq(x - mean[..., None, :], c)
  ratio = jnp.sum(share * gap, -2)
  spread = jnp.sum(share * apart, -2)
  return mean, ratio, numerics.sqrt(ratio**2 + 4 * spread)


def weight_columns(x, weights):
  """Weights `[..., n, 1]` of points `[..., n, d]`, all 1 for None.

  Raises:
    ValueError: for weights that are not `[..., n]`.
  """
  if weights is None:
    return jnp.ones((*x.shape[:-1], 1), x.dtype)
  if weights.shape[-1] != x.shape[-2]:
    raise ValueError(
      f'weights must be [..., n] for points [..., n, d], got {weights.shape}'
      f' and {x.shape}'
    )
  return weights[..., None]


@_arguments.op('x', scalars=('weights',), axes=2)
def midpoint(
  x: Float[ArrayLike, '*#batch n d'],
  weights: Real[ArrayLike, '*#batch n'] | None = None,
  *,
  c: Real[ArrayLike, '*#batch'],
) -> Float[Array, '*#batch d']:
  """Weighted gyromidpoint, the centroid of the hyperboloid seen in the ball.

  (1/2) (x) (sum w_i l_i x_i / sum w_i (l_i - 1)), l = 2 / (1 - c|x|^2) (Ungar
  2009, definition 6.92; Shimizu et al., "Hyperbolic Neural Networks++", ICLR
  2021, section 3.5). Equivariant under the isometries of the ball; it minimizes
  sum w_i cosh(sqrt(c) d(m, x_i)).

  Args:
    x: points of the ball, `[..., n, d]`.
    weights: weights `[..., n]`, not negative, or None for equal ones. Where all
      are 0 the result is 0.
    c: curvature, a number from 0 up, or an array `[...]`; at 0 the result is
      the weighted mean.

  Returns:
    Points of the ball, `[..., d]`.

  Example:
    >>> import numpy as np
    >>> from hier_jax import poincare
    >>> x = np.array([[0.0, 0.0], [0.8, 0.0]])
    >>> print(np.asarray(poincare.midpoint(x, c=1.0)).round(2))
    [0.5 0. ]
  """
  c = c[..., None]
  gap = _rounding.gap(x, c)
  mean, ratio, norm = weighted_moments(x, gap, weight_columns(x, weights), c)
  return 2 * mean / (2 - ratio + norm)


def _pull(m, x, weights, c):
  """The Riemannian gradient of -sum w_i d(m, x_i)^2 / 2."""
  return jnp.sum(weights * logmap(m, x, c=c), -2)


def _descend(m, x, weights, c, max_steps):
  """Majorize and minimize from m `[d]` until the steps are rounding only.

  d^2 is concave in cosh(sqrt(c) d), so the midpoint with weights
  w_i h / sinh(h), h = sqrt(c) d(m, x_i), never raises the objective.
  """

  def step(carry):
    count, m, _ = carry
    gaps = _rounding.gap(m[None], c) * _rounding.gap(x, c)
    s = _rounding.curved_sq(x - m[None], c[None]) / gaps
    # h / sinh(h) with sinh(h/2)^2 = s.
    slack = weights * _analytic.asinhc(s) / jnp.sqrt(1 + s)
    new = midpoint(x, slack[..., 0], c=c)
    return count + 1, new, jnp.max(jnp.abs(new - m))

  def go_on(carry):
    count, m, change = carry
    rounding = 4 * jnp.finfo(m.dtype).eps * jnp.max(jnp.abs(x))
    return (count < max_steps) & (change > rounding)

  own = lambda a: numerics.varying_as(a, m, x, weights, c)
  start = (own(jnp.int32(0)), own(m), own(jnp.asarray(jnp.inf, m.dtype)))
  return lax.while_loop(go_on, step, start)[1]


def _frechet(x, weights, c, max_steps):
  """Of `[n, d]`, `[n]` and a scalar."""
  total = jnp.sum(weights)
  weights = (weights / jnp.where(total > 0, total, 1))[:, None]
  return lax.custom_root(
    lambda m: _pull(m, x, weights, c),
    midpoint(x, weights[:, 0], c=c),
    lambda pull, m: lax.stop_gradient(_descend(m, x, weights, c, max_steps)),
    lambda pull, y: jnp.linalg.solve(jax.jacobian(pull)(y), y),
  )


@_arguments.op('x', scalars=('weights',), axes=2, static=('max_steps',))
def frechet_mean(
  x: Float[ArrayLike, '*#batch n d'],
  weights: Real[ArrayLike, '*#batch n'] | None = None,
  *,
  c: Real[ArrayLike, '*#batch'],
  max_steps: int = 200,
) -> Float[Array, '*#batch d']:
  """Weighted Frechet mean: the minimizer of sum w_i d(m, x_i)^2.

  The mean is found by majorization (Lou et al., "Differentiating through the
  Frechet mean", ICML 2020, algorithm 1) and differentiated implicitly in the
  points, the weights and c: memory does not grow with the number of steps, and
  the backward pass solves one d x d system.

  Args:
    x: points of the ball, `[..., n, d]`.
    weights: weights `[..., n]`, not negative, or None for equal ones. Where all
      are 0 the result is 0.
    c: curvature, a number from 0 up, or an array `[...]`; at 0 the result is
      the weighted mean.
    max_steps: the largest number of steps of the search, which stops earlier
      once a step changes the mean only by rounding.

  Returns:
    Points of the ball, `[..., d]`.

  Example:
    >>> import jax.numpy as jnp
    >>> from hier_jax import poincare
    >>> x = jnp.array([[0.0, 0.0], [0.8, 0.0]])
    >>> mean = poincare.frechet_mean(x, jnp.array([3.0, 1.0]), c=1.0)
    >>> quarter = poincare.geodesic(0.25, x[0], x[1], c=1.0)
    >>> print(jnp.allclose(mean, quarter, atol=1e-3))
    True
  """
  weights = weight_columns(x, weights)[..., 0]
  mean = functools.partial(_frechet, max_steps=max_steps)
  return jnp.vectorize(mean, signature='(n,d),(n),()->(d)')(x, weights, c)
