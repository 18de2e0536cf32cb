"""Clipping, projecting, and the way of tangent vectors at 0 to the ball."""

import functools
import os

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hier_jax import poincare
from tests.support import exact_geometry


def test_project_and_clip_leave_inner_points_alone():
  x = np.float32([[0.3, 0.4], [3.0, 4.0]])
  projected = poincare.project(x, c=1.0, margin=0.1)
  np.testing.assert_allclose(
    projected, np.float32([[0.3, 0.4], [0.54, 0.72]]), rtol=1e-6
  )
  np.testing.assert_array_equal(poincare.project(x, c=0), x)
  clipped = np.asarray(poincare.clip_norm(x, 1.0))
  np.testing.assert_array_equal(clipped[0], x[0])
  assert 0.9999 < np.linalg.norm(clipped[1]) < 1.0


@pytest.mark.parametrize('dtype', [jnp.float32, jnp.bfloat16, jnp.float16])
def test_project_leaves_no_point_outside_after_rounding(dtype):
  if dtype == jnp.float16 and 'SSE4_2' in os.environ.get('XLA_FLAGS', ''):
    pytest.skip('XLA cannot link its conversion of float16 for SSE4.2')
  rng = np.random.default_rng(6)
  x = (3 * exact_geometry.directions(rng, 500, 3)).astype(dtype)
  x = np.asarray(poincare.project(x, c=1.0), np.float32)
  assert np.all(np.sum(x**2, -1) < 1)


def test_riemannian_gradient_is_identity_forward_and_scales_backward():
  x = np.float32([[0.6, 0.0], [0.0, 0.8]])
  out, vjp = jax.vjp(lambda x: poincare.riemannian_gradient(x, c=1.0), x)
  np.testing.assert_array_equal(out, x)
  want = np.repeat(np.float32([[0.64**2 / 4], [0.36**2 / 4]]), 2, 1)
  np.testing.assert_allclose(vjp(np.ones_like(x))[0], want, rtol=1e-6)


@functools.cache
def to_ball_and_its_steps(clip_radius):
  """Of vectors, cotangents and a curvature: values and gradients of both."""

  def steps(u, c):
    v = u if clip_radius is None else poincare.clip_norm(u, clip_radius)
    x = poincare.project(poincare.exp0(v, c=c), c=c)
    return poincare.riemannian_gradient(x, c=c)

  def both(u, weight, c):
    for f in (
      lambda u: poincare.to_ball(u, c=c, clip_radius=clip_radius),
      lambda u: steps(u, c),
    ):
      x, pull = jax.vjp(f, u)
      yield x, pull(weight)[0]

  return jax.jit(lambda *args: tuple(both(*args)))


@pytest.mark.parametrize('clip_radius', [None, 0.5, 2.3])
@pytest.mark.parametrize('c', [0, 1e-3, 0.1, 1.0, 1e4])
def test_to_ball_is_its_steps_at_once(c, clip_radius):
  """Gradients too: of vectors short, clipped, saturated and of length 0."""
  rng = np.random.default_rng(0)
  length = np.append(0, np.logspace(-8, 12, 47))[:, None]
  u = (length * exact_geometry.directions(rng, 48, 5)).astype(np.float32)
  weight = rng.standard_normal(u.shape).astype(np.float32)
  (got, grad), (want, want_grad) = jax.device_get(
    to_ball_and_its_steps(clip_radius)(u, weight, np.float32(c))
  )
  norm = lambda a: np.linalg.norm(a, axis=1)
  np.testing.assert_array_less(norm(got - want), 5e-7 * norm(want) + 1e-37)
  # 1 - c|x|^2 is rounded at 1, of an x that is; its square is a factor of the
  # gradient.
  eps = float(np.finfo(np.float32).eps)
  tolerance = 1e-6 + 16 * eps / (1 - c * norm(want) ** 2)
  error = norm(grad - want_grad)
  np.testing.assert_array_less(error, tolerance * norm(want_grad))
