"""Linen layers whose inputs or outputs live on the ball.

Every layer computes in float32, or in float64 if its inputs are float64;
parameters start in float32 and are cast to that type. Every layer has its own
curvature, the attribute `c`. A network that learns its curvature makes one with
`Curvature` and passes it to the calls of its layers as `learned_c`.
"""

from __future__ import annotations

import math

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax
from jax.typing import ArrayLike
from jaxtyping import Array, Float, Real

from hier_jax import numerics, poincare
from hier_jax.errors import UserError
from hier_jax.poincare import _analytic

__all__ = ['BallHead', 'Curvature', 'HypDistance', 'HypLinear', 'HypMLR']

# One row a class or point: variance 1 / d of rows of length d.
_ROWS = nn.initializers.variance_scaling(
  1.0, 'fan_in', 'normal', in_axis=-1, out_axis=-2
)


def _param(module, name, init, shape, dtype):
  """A parameter, float32 when it is made, in the dtype of the computation."""
  return module.param(name, init, shape, jnp.float32).astype(dtype)


class Curvature(nn.Module):
  """A learnable curvature c = softplus(raw) > 0.

  Attributes:
    initial: first value of the curvature, positive.

  Example:
    >>> import jax
    >>> from hier_jax import layers
    >>> c, _ = layers.Curvature(0.5).init_with_output(jax.random.key(0))
    >>> print(f'{float(c):.3f}')
    0.500
  """

  initial: float = 1.0

  @nn.compact
  def __call__(self) -> Float[Array, '']:
    """The curvature, a float32 scalar."""
    c = self.initial
    # The parameter starts at this number: it is read wherever it lies.
    c = float(c) if isinstance(c, jax.Array) else c
    numerics.check_positive(initial=c)
    raw = c + math.log(-math.expm1(-c))
    init = nn.initializers.constant(raw)
    return jax.nn.softplus(_param(self, 'raw', init, (), jnp.float32))


class BallHead(nn.Module):
  """Backbone features to points of the Poincare ball (HIER, section 3.1).

  The head applies a LayerNorm without scale and bias, a linear map with
  orthogonal rows, and `poincare.to_ball`. The paper's tangent vectors are much
  longer than its clip radius, so every embedding ends up on the clip sphere;
  `radial_scale` frees the radii.

  Attributes:
    dim: size d of the embedding.
    c: curvature of the ball; 0 for Euclidean space, None for unit vectors,
      which are compared by cosine.
    clip_radius: longest tangent vector; None for no clip.
    last_norm: whether the head begins with the LayerNorm.
    radial_scale: None for the paper's tangent vectors u. A positive number
      makes them s u / sqrt(d), with a learned s = exp(log_radial_scale) that
      starts at this number. After the LayerNorm, s is their mean length at the
      start, whatever d is; choose it below the clip radius.

  Example:
    >>> import jax
    >>> from hier_jax import layers, poincare
    >>> features = jax.random.normal(jax.random.key(0), (2, 64))
    >>> head = layers.BallHead(8, c=1.0, clip_radius=2.0)
    >>> z, _ = head.init_with_output(jax.random.key(1), features)
    >>> print(z.shape, bool((jax.numpy.linalg.norm(z, axis=1) < 1).all()))
    (2, 8) True
  """

  dim: int
  c: float | None = 0.1
  clip_radius: float | None = poincare.CLIP_RADIUS
  last_norm: bool = True
  radial_scale: float | None = None

  @nn.compact
  def __call__(
    self,
    features: Float[Array, '*batch F'],
    learned_c: Real[ArrayLike, ''] | None = None,
  ) -> Float[Array, '*batch {self.dim}']:
    """Features `[..., F]` to embeddings `[..., d]`.

    Args:
      features: `[..., F]`, as a backbone returns them.
      learned_c: curvature in place of the attribute; None keeps the attribute.

    Raises:
      UserError: `radial_scale` is not positive, or stands with c None.
    """
    c = self.c if learned_c is None else learned_c
    sphere = c is None
    x = numerics.widened(features)
    if self.last_norm:
      x = nn.LayerNorm(epsilon=1e-5, use_bias=False, use_scale=False)(x)
    x = nn.Dense(
      self.dim,
      dtype=x.dtype,
      kernel_init=nn.initializers.orthogonal(),
      # Accelerators round what they multiply to fewer bits by default.
      precision=lax.Precision.HIGHEST,
      name='linear',
    )(x)
    if self.radial_scale is not None:
      x = x * self._scale(self.radial_scale, sphere, x.dtype)
    if c is None:
      return numerics.unit(x)
    return poincare.to_ball(x, c=c, clip_radius=self.clip_radius)

  def _scale(self, scale, sphere, dtype):
    if not (scale > 0 and math.isfinite(scale)):
      raise UserError(
        f'radial_scale is {scale}; choose a positive length, or None'
      )
    if sphere:
      raise UserError(
        f'radial_scale is {scale}, but with c None embeddings are unit'
        ' vectors and have no radius: set it to None'
      )
    # Its logarithm keeps it positive, and steps proportional to it.
    init = nn.initializers.constant(math.log(scale))
    log = _param(self, 'log_radial_scale', init, (), dtype)
    return jnp.exp(log) / self.dim**0.5


class HypLinear(nn.Module):
  """The linear map of the ball: (M (x) x) (+) b.

  Ganea, Becigneul and Hofmann, "Hyperbolic Neural Networks" (NeurIPS 2018),
  section 3.2. M is a Euclidean matrix and b = exp0(bias), so any optimizer can
  train both.

  Attributes:
    features: size e of the output.
    c: curvature; an ordinary linear map at 0.
    use_bias: whether b is added.
    kernel_init: initializer of the kernel `[d, e]`.

  Example:
    >>> import jax
    >>> from hier_jax import layers
    >>> x = jax.numpy.zeros((2, 4))  # The bias begins at 0, so 0 stays 0.
    >>> y, _ = layers.HypLinear(3).init_with_output(jax.random.key(0), x)
    >>> print(y.shape, bool((y == 0).all()))
    (2, 3) True
  """

  features: int
  c: float = 1.0
  use_bias: bool = True
  kernel_init: nn.initializers.Initializer = nn.initializers.lecun_normal()

  @nn.compact
  def __call__(
    self,
    x: Float[Array, '*batch d'],
    learned_c: Real[ArrayLike, ''] | None = None,
  ) -> Float[Array, '*batch {self.features}']:
    """Points `[..., d]` to points `[..., e]`.

    Args:
      x: points `[..., d]`.
      learned_c: curvature in place of the attribute; None keeps the attribute.
    """
    c = self.c if learned_c is None else learned_c
    x = numerics.widened(x)
    shape = (x.shape[-1], self.features)
    kernel = _param(self, 'kernel', self.kernel_init, shape, x.dtype)
    y = poincare.matvec(kernel.T, x, c=c)
    if self.use_bias:
      zeros = nn.initializers.zeros
      bias = _param(self, 'bias', zeros, (self.features,), x.dtype)
      y = poincare.mobius_add(y, poincare.exp0(bias, c=c), c=c)
    return y


class HypMLR(nn.Module):
  """Multinomial logistic regression: logits from distances to hyperplanes.

  The logit of class k is lambda_p |a| times the signed distance to the geodesic
  hyperplane through p with normal a at p.

  'hnn' (Ganea, Becigneul and Hofmann, NeurIPS 2018, section 3.1): p =
  exp0(point) and a = (1 - c|p|^2) kernel, transported from 0.
  'hnn++' (Shimizu, Mukuta and Harada, "Hyperbolic Neural Networks++", ICLR
  2021, section 3.1): p = exp0(bias z / |z|) and a = z / cosh(sqrt(c) bias)^2
  with z the kernel's row, which frees the hyperplane of redundant parameters
  and takes one matmul.

  Attributes:
    classes: number k of classes.
    c: curvature; 4 (<a, x> - <a, p>) at 0.
    form: 'hnn++' or 'hnn'.
    kernel_init: initializer of the kernel `[k, d]`.

  Example:
    >>> import jax
    >>> from hier_jax import layers
    >>> x = jax.numpy.zeros((2, 4))  # Hyperplanes begin as ones through 0.
    >>> logits, _ = layers.HypMLR(5).init_with_output(jax.random.key(0), x)
    >>> print(logits.shape, bool((logits == 0).all()))
    (2, 5) True
  """

  classes: int
  c: float = 1.0
  form: str = 'hnn++'
  kernel_init: nn.initializers.Initializer = _ROWS

  @nn.compact
  def __call__(
    self,
    x: Float[Array, '*batch d'],
    learned_c: Real[ArrayLike, ''] | None = None,
  ) -> Float[Array, '*batch {self.classes}']:
    """Points `[..., d]` to logits `[..., k]`.

    Args:
      x: points `[..., d]`.
      learned_c: curvature in place of the attribute; None keeps the attribute.

    Raises:
      ValueError: for an unknown `form`.
    """
    if self.form not in ('hnn', 'hnn++'):
      raise ValueError(f"form is {self.form!r}, expected 'hnn++' or 'hnn'")
    c = self.c if learned_c is None else learned_c
    x = numerics.widened(x)
    shape = (self.classes, x.shape[-1])
    kernel = _param(self, 'kernel', self.kernel_init, shape, x.dtype)
    scale = 2 * numerics.norm(kernel)[:, 0]
    zeros = nn.initializers.zeros
    if self.form == 'hnn':
      point = _param(self, 'point', zeros, shape, x.dtype)
      rows = x.reshape(-1, x.shape[-1])
      distance = poincare.hyperplane_matrix(
        rows, poincare.exp0(point, c=c), kernel, c=c, signed=True
      ).reshape(*x.shape[:-1], self.classes)
    else:
      bias = _param(self, 'bias', zeros, (self.classes,), x.dtype)
      distance = _distance_along(x, numerics.unit(kernel), bias, c)
    return distance * jnp.broadcast_to(scale, distance.shape)


def _distance_along(x, direction, offset, c):
  """Signed distances to the hyperplanes at right angles to rays from 0.

  asinh(l_x sqrt(c) <x, u> cosh(2 sqrt(c) r) - (l_x - 1) sinh(2 sqrt(c) r))
  / sqrt(c), written in c r^2 so that the limit c = 0 exists.

  Args:
    x: points `[..., d]`.
    direction: unit vectors u `[k, d]`.
    offset: r `[k]`; the hyperplane meets its ray at exp0(r u).
    c: curvature, a scalar.

  Returns:
    `[..., k]`.
  """
  factor = poincare.conformal_factor(x, c=c)[..., None]
  c = jnp.asarray(c, x.dtype)
  s = 4 * c * offset**2
  row = lambda a: a.reshape((1,) * (x.ndim - 1) + a.shape)
  height = jnp.matmul(x, direction.T, precision=lax.Precision.HIGHEST)
  along = row(_analytic.cosh(s)) * height
  level = row(2 * offset * _analytic.sinhc(s))
  return _analytic.asinh_length(factor * along - (factor - 1) * level, c)


class HypDistance(nn.Module):
  """Geodesic distances to a second input, or to points that are learned.

  Attributes:
    points: number k of learned points, exp0 of a parameter; None for none.
    c: curvature; Euclidean distances at 0.
    point_init: initializer of the points' tangent vectors `[k, d]`.

  Example:
    >>> import jax
    >>> from hier_jax import layers
    >>> x = jax.numpy.full((2, 4), 0.1)
    >>> layers.HypDistance().apply({}, x, x).tolist()
    [0.0, 0.0]
    >>> d, _ = layers.HypDistance(3).init_with_output(jax.random.key(0), x)
    >>> d.shape
    (2, 3)
  """

  points: int | None = None
  c: float = 1.0
  point_init: nn.initializers.Initializer = _ROWS

  @nn.compact
  def __call__(
    self,
    x: Float[Array, '*#batch d'],
    y: Float[Array, '*#batch d'] | None = None,
    learned_c: Real[ArrayLike, ''] | None = None,
  ) -> Float[Array, '*distances']:
    """Distances of points `[..., d]`.

    Args:
      x: points `[..., d]`.
      y: points `[..., d]`, where the layer has none of its own.
      learned_c: curvature in place of the attribute; None keeps the attribute.

    Returns:
      `[...]` to y, or `[..., k]` to the learned points.

    Raises:
      ValueError: where both or neither of `points` and y are given.
    """
    if (self.points is None) == (y is None):
      raise ValueError(
        'HypDistance takes either points= or a second input, got'
        f' points={self.points} and {"no" if y is None else "a"} second input'
      )
    c = self.c if learned_c is None else learned_c
    x = numerics.widened(x)
    if y is not None:
      return poincare.dist(x, numerics.widened(y), c=c)
    shape = (self.points, x.shape[-1])
    point = _param(self, 'point', self.point_init, shape, x.dtype)
    points = poincare.exp0(point, c=c)
    rows = x.reshape(-1, x.shape[-1])
    distance = poincare.dist_matrix(rows, points, c=c)
    return distance.reshape(*x.shape[:-1], self.points)
