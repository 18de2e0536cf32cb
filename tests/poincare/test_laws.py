"""The laws of the gyrovector space and of the metric, in float64.

float32 keeps the digits that test_operations.py counts; here the formulas are
held to their laws, where rounding cannot hide a wrong one.
"""

import functools
import itertools

import hypothesis
import hypothesis.extra.numpy as st_numpy
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import strategies as st

from hier_jax import poincare

_values = st_numpy.arrays(
  np.float64, (4, 3, 4), elements=st.floats(-1, 1, allow_subnormal=False)
)
draws = st.tuples(
  _values, st.sampled_from([1e-3, 0.1, 1.0, 10.0]), st.floats(-2, 2)
)


def law(check):
  """Runs a check of (x, y, z, v, r, ops) on drawn points, within .9 radii."""

  def test(draw):
    with jax.enable_x64(True):
      values, c, r = draw
      length = np.linalg.norm(values, axis=-1, keepdims=True)
      points = values * 0.9 / np.maximum(length, 1) / np.sqrt(c)
      check(*map(jnp.asarray, points), r, Ops(c))

  test.__name__ = test.__qualname__ = check.__name__
  settings = hypothesis.settings(max_examples=40, deadline=None)
  return settings(hypothesis.given(draws)(test))


class Ops:
  """The operations at one curvature, and how near is equal."""

  def __init__(self, c):
    self.c, self.width = c, 1 / np.sqrt(c)

  def __getattr__(self, name):
    return functools.partial(getattr(poincare, name), c=self.c)

  def equal(self, a, b, tolerance=1e-9):
    np.testing.assert_allclose(
      np.asarray(a) / self.width, np.asarray(b) / self.width, 0, tolerance
    )


def isometry(x, x0, ops):
  """A rotation and a translation."""
  rotation, _ = np.linalg.qr(np.arange(16.0).reshape(4, 4) ** 2 + np.eye(4))
  return ops.mobius_add(x0, x @ rotation)


@law
def test_left_cancellation(x, y, z, v, r, ops):
  add = ops.mobius_add
  ops.equal(add(-x, add(x, y)), y)
  ops.equal(add(x, 0 * x), x)
  ops.equal(add(0 * x, x), x)
  ops.equal(add(-x, x), 0 * x)
  ops.equal(ops.mobius_sub(x, y), add(x, ops.antipode(y)))


@law
def test_gyroassociativity(x, y, z, v, r, ops):
  add = ops.mobius_add
  ops.equal(add(x, add(y, z)), add(add(x, y), ops.gyration(x, y, z)))


@law
def test_gyrocommutativity(x, y, z, v, r, ops):
  add = ops.mobius_add
  ops.equal(add(x, y), ops.gyration(x, y, add(y, x)))


@law
def test_gyrations_are_rotations(x, y, z, v, r, ops):
  turned = ops.gyration(x, y, z)
  length = lambda a: jnp.linalg.norm(a, axis=-1)
  ops.equal(length(turned), length(z))
  ops.equal(ops.gyration(y, x, turned), z)
  # The loop property, and the definition.
  ops.equal(ops.gyration(ops.mobius_add(x, y), y, z), turned)
  whole = ops.mobius_add(x, ops.mobius_add(y, z))
  ops.equal(ops.mobius_add(-ops.mobius_add(x, y), whole), turned)


@law
def test_coaddition(x, y, z, v, r, ops):
  ops.equal(ops.coadd(x, y), ops.coadd(y, x))
  ops.equal(ops.coadd(x, y), ops.mobius_add(x, ops.gyration(x, -y, y)))
  ops.equal(ops.mobius_sub(ops.coadd(x, y), y), x)
  ops.equal(ops.mobius_add(ops.cosub(x, y), y), x)


@law
def test_scalar_laws(x, y, z, v, r, ops):
  mul, add = ops.scalar_mul, ops.mobius_add
  ops.equal(mul(1.0, x), x)
  ops.equal(mul(2.0, x), add(x, x))
  ops.equal(mul(r + 0.5, x), add(mul(r, x), mul(0.5, x)))
  ops.equal(mul(r * 0.5, x), mul(r, mul(0.5, x)), 1e-7)
  ops.equal(ops.gyration(y, z, mul(r, x)), mul(r, ops.gyration(y, z, x)), 1e-7)
  ops.equal(ops.dist0(mul(r, x)), abs(r) * ops.dist0(x), 1e-6)


@law
def test_exp_and_log_are_inverse(x, y, z, v, r, ops):
  ops.equal(ops.log0(ops.exp0(v)), v)
  ops.equal(ops.exp0(ops.log0(x)), x)
  tangent = ops.transport0(x, v)
  ops.equal(ops.logmap(x, ops.expmap(x, tangent)), tangent)
  ops.equal(ops.expmap(x, ops.logmap(x, y)), y)
  ops.equal(ops.logmap(0 * x, y), ops.log0(y))
  ops.equal(ops.logmap(x, x), 0 * x)
  ops.equal(ops.norm(x, ops.logmap(x, y)), ops.dist(x, y))


@law
def test_transport_is_an_isometry_of_tangent_spaces(x, y, z, v, r, ops):
  move = ops.parallel_transport
  a, b = move(x, y, v), move(x, y, z)
  ops.equal(ops.inner(y, a, b), ops.inner(x, v, z), 1e-7 * ops.width)
  ops.equal(move(y, x, a), v)
  ops.equal(move(0 * x, x, v), ops.transport0(x, v))
  ops.equal(move(x, 0 * x, v), ops.transport0_back(x, v))
  # Along one geodesic it composes, and it keeps the geodesic's direction.
  middle = ops.geodesic(0.3, x, y)
  ops.equal(move(middle, y, move(x, middle, v)), a, 1e-7)
  ops.equal(move(x, y, ops.logmap(x, y)), -ops.logmap(y, x))


@law
def test_distance_is_a_metric_and_invariant(x, y, z, v, r, ops):
  dist = ops.dist
  ops.equal(dist(x, y), dist(y, x))
  assert jnp.all(dist(x, z) <= dist(x, y) + dist(y, z) + 1e-9 * ops.width)
  moved = [isometry(a, z, ops) for a in (x, y)]
  ops.equal(dist(*moved), dist(x, y), 1e-7)
  apart = jnp.linalg.norm(ops.mobius_add(-x, y), axis=-1)
  ops.equal(dist(x, y), 2 * ops.width * jnp.arctanh(apart / ops.width), 1e-7)
  ops.equal(dist(0 * x, x), ops.dist0(x))
  ops.equal(ops.dist_matrix(x, y).diagonal(), dist(x, y))


@law
def test_geodesics_have_unit_speed_and_equal_segments(x, y, z, v, r, ops):
  d = ops.dist(x, y)
  ops.equal(ops.geodesic(0.0, x, y), x)
  ops.equal(ops.geodesic(1.0, x, y), y)
  points = [ops.geodesic(t, x, y) for t in (0.0, 0.25, 0.5, 0.75, 1.0)]
  for a, b in itertools.pairwise(points):
    ops.equal(ops.dist(a, b), d / 4, 1e-7)
  ops.equal(points[1], ops.expmap(x, ops.logmap(x, y) / 4))
  beyond = ops.geodesic(1.5, x, y)
  ops.equal(ops.dist(x, beyond), 1.5 * d, 1e-6)
  direction = v.at[:, 0].add(2 * ops.width)
  walked = ops.geodesic_unit(r * ops.width, x, direction)
  ops.equal(ops.dist(x, walked), abs(r) * ops.width * jnp.ones(3), 1e-7)


@law
def test_hyperplanes_and_horospheres_move_with_isometries(x, y, z, v, r, ops):
  normal = v.at[:, 1].add(2 * ops.width)
  moved = ops.mobius_add(z, x), ops.mobius_add(z, y)
  # What a left translation by z does to a tangent vector at y.
  carried = ops.gyration(z, y, normal)
  side = functools.partial(ops.dist_to_hyperplane, signed=True)
  ops.equal(side(*moved, carried), side(x, y, normal), 1e-7)
  step = ops.busemann(x, normal) - ops.busemann(y, normal)
  assert jnp.all(jnp.abs(step) <= ops.dist(x, y) + 1e-9 * ops.width)


@law
def test_midpoint_is_equivariant_and_halves_geodesics(x, y, z, v, r, ops):
  pair = jnp.stack([x, y], 1)
  ops.equal(ops.midpoint(pair), ops.geodesic(0.5, x, y))
  points = jnp.stack([x, y, v], 1)
  weights = jnp.array([[0.5, 1.0, 2.0]])
  mean = ops.midpoint(points, weights)
  moved = isometry(points, z[:, None], ops)
  ops.equal(ops.midpoint(moved, weights), isometry(mean, z, ops), 1e-7)


@pytest.mark.parametrize('c', [0.1, 1.0])
def test_the_metric_is_the_second_derivative_of_half_the_squared_distance(c):
  with jax.enable_x64(True):
    x = jnp.array([0.2, -0.3, 0.1])
    half = lambda y: poincare.dist(x, y, c=c) ** 2 / 2
    near = x + jnp.array([1e-5, 2e-5, -1e-5])
    metric = poincare.conformal_factor(x, c=c) ** 2 * jnp.eye(3)
    np.testing.assert_allclose(jax.hessian(half)(near), metric, atol=1e-3)
