"""The implementations of the ball that the benchmarks compare.

Each as its own documentation says to call it: torch eagerly, JAX under `jit`.
"""

import dataclasses
import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from hier_jax import poincare
from hier_jax.poincare import _pairwise

# Packages that a measurement depends on, for `report.versions`.
JAX_PACKAGES = 'hier_jax', 'jax', 'jaxlib', 'hyperbolix'
PACKAGES = *JAX_PACKAGES, 'torch', 'geoopt', 'hypll', 'numpy'

# ---- JAX: distance matrices (x [n, d], y [m, d], c) -> [n, m] ---------------


def ours(backward):
  """`poincare.dist_matrix` with one of its backward passes."""
  return functools.partial(_ours, backward=backward)


def _ours(x, y, c, backward):
  return poincare.dist_matrix(x, y, c=c, backward=backward)


def _clamp(r):
  return jnp.clip(r, -1 + 1e-5, 1 - 1e-5)


@jax.custom_jvp
def _artanh(r):
  """HIER's artanh: clamped, but with the derivative of the clamped argument."""
  r = _clamp(r)
  return (jnp.log(1 + r) - jnp.log(1 - r)) / 2


@_artanh.defjvp
def _artanh_jvp(primals, tangents):
  (r,) = primals
  return _artanh(r), tangents[0] / (1 - _clamp(r) ** 2)


def _length(v):
  """Length of vectors; its slope at 0 is 0 as torch's, where JAX's is NaN."""
  sq = jnp.sum(v * v, -1)
  return jnp.where(sq == 0, 0, jnp.sqrt(jnp.where(sq == 0, 1, sq)))


def mobius_tensor(x, y, c):
  """HIER's published formula, ported literally: through (-x) (+) y `[n, m, d]`.

  1e-5 is added to the denominator of Mobius addition, which biases distances.
  """
  x = -x
  xy, y2 = x @ y.T, jnp.sum(y * y, -1)
  x2 = jnp.sum(x * x, -1, keepdims=True)
  numerator = (1 + 2 * c * xy + c * y2)[..., None] * x[:, None]
  numerator += (1 - c * x2)[..., None] * y
  denominator = 1 + 2 * c * xy + c**2 * x2 * y2
  moved = numerator / (denominator[..., None] + 1e-5)
  root = jnp.sqrt(c)
  return 2 / root * _artanh(root * _length(moved))


def _mobius_pair(x, y, c):
  xy, x2, y2 = -x @ y, x @ x, y @ y
  numerator = -(1 + 2 * c * xy + c * y2) * x + (1 - c * x2) * y
  moved = numerator / (1 + 2 * c * xy + c**2 * x2 * y2)
  root = jnp.sqrt(c)
  return 2 / root * jnp.arctanh(root * jnp.linalg.norm(moved))


def _all_pairs(pair):
  over_y = jax.vmap(pair, in_axes=(None, 0, None))
  return jax.vmap(over_y, in_axes=(0, None, None))


def mobius_vmap(x, y, c):
  """The textbook formula for one pair of points, mapped over both sides."""
  return _all_pairs(_mobius_pair)(x, y, c)


def hyperbolix_vmap():
  """The distance of two points of hyperbolix, mapped over both sides.

  Raises:
    ImportError: hyperbolix is not installed.
  """
  from hyperbolix.manifolds import poincare as peer

  ball = peer.Poincare()
  return _all_pairs(
    lambda x, y, c: ball.dist(x, y, c, version_idx=peer.VERSION_MOBIUS_DIRECT)
  )


# ---- all: what the accuracy benchmark measures ------------------------------


@dataclasses.dataclass(frozen=True)
class Library:
  """Functions from and to numpy arrays; c is a float.

  Attributes:
    name: several of one name are ways to call the same thing.
    gradient_name: likewise, where the gradient is concerned.
    distance: (x, y, c) -> `[n, m]`.
    gradient: (x, y, c, weights) -> gradient of sum(weights * distance) by x.
    exp0: (u, c) -> points.
    log0: (x, c) -> tangent vectors.
  """

  name: str
  gradient_name: str
  distance: Callable
  gradient: Callable
  exp0: Callable
  log0: Callable


def _of_jax(name, distance, exp0, log0, gradient_name=None, transform=jax.jit):
  def gradient(x, y, c, weights):
    return jax.grad(lambda x: jnp.sum(weights * distance(x, y, c)))(x)

  def on_arrays(function):
    function = transform(function)

    def call(*args):
      arrays = [a if isinstance(a, float) else jnp.asarray(a) for a in args]
      return np.asarray(function(*arrays))

    return call

  functions = map(on_arrays, (distance, gradient, exp0, log0))
  return Library(name, gradient_name or name, *functions)


def _hier_jax():
  exp0 = lambda u, c: poincare.exp0(u, c=c)
  log0 = lambda x, c: poincare.log0(x, c=c)
  return [
    _of_jax(
      'hier_jax',
      ours(backward),
      exp0,
      log0,
      f'hier_jax, {backward}',
      transform,
    )
    for backward in _pairwise.BACKWARDS
    for transform in (jax.jit, lambda function: function)
  ]


def _published():
  def scale_and_norm(v, c):
    root = jnp.sqrt(c)
    norm = jnp.maximum(jnp.linalg.norm(v, axis=-1, keepdims=True), 1e-5)
    return root, norm

  def exp0(u, c):
    root, norm = scale_and_norm(u, c)
    return jnp.tanh(root * norm) * u / (root * norm)

  def log0(x, c):
    root, norm = scale_and_norm(x, c)
    return x / norm / root * _artanh(root * norm)

  return [_of_jax("HIER's formula", mobius_tensor, exp0, log0)]


def _hyperbolix():
  distance = hyperbolix_vmap()
  from hyperbolix.manifolds.poincare import Poincare

  ball, rows = Poincare(), (0, None)
  exp0, log0 = (jax.vmap(f, rows) for f in (ball.expmap_0, ball.logmap_0))
  return [_of_jax('hyperbolix', distance, exp0, log0)]


def _of_torch(name, pairs, exp0, log0):
  """`pairs` broadcasts points `[..., d]`."""
  import torch

  def tensor(a):
    a = np.float32(a) if isinstance(a, float) else a
    # torch does not know the bfloat16 of numpy's arrays.
    return torch.tensor(a.astype(np.float32)).to(getattr(torch, a.dtype.name))

  def on_arrays(function):
    def call(*args):
      out = function(*map(tensor, args))
      return out.detach().to(torch.float32).numpy()

    return call

  def distance(x, y, c):
    return pairs(x[:, None], y[None], c)

  def gradient(x, y, c, weights):
    x.requires_grad_()
    (grad,) = torch.autograd.grad((weights * distance(x, y, c)).sum(), x)
    return grad

  functions = map(on_arrays, (distance, gradient, exp0, log0))
  return Library(name, name, *functions)


def _geoopt():
  from geoopt.manifolds.stereographic import math

  functions = (
    lambda x, y, c: math.dist(x, y, k=-c),
    lambda u, c: math.expmap0(u, k=-c),
    lambda x, c: math.logmap0(x, k=-c),
  )
  return [_of_torch('geoopt', *functions)]


def _hypll():
  from hypll.manifolds.poincare_ball.math import diffgeom

  functions = diffgeom.dist, diffgeom.expmap0, diffgeom.logmap0
  return [_of_torch('hypll', *functions)]


def load() -> tuple[list[Library], list[str]]:
  """All libraries that can be imported, and the names of those that cannot."""
  found, missing = _hier_jax(), []
  peers = {'hyperbolix': _hyperbolix, 'geoopt': _geoopt, 'hypll': _hypll}
  for name, make in peers.items():
    try:
      found += make()
    except ImportError:
      missing.append(name)
  return found + _published(), missing
