"""Arguments of the operations: shapes, dtypes, curvatures, what is refused."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from hier_jax import layers, lorentz, poincare

KEY, NAN = jax.random.key(0), float('nan')


def test_leading_dimensions_broadcast():
  x, y = jnp.full((3,), 0.1), jnp.full((4, 2, 3), 0.2)
  assert poincare.dist(x, y, c=1.0).shape == (4, 2)
  assert poincare.mobius_add(x, y[0], c=jnp.ones((5, 1))).shape == (5, 2, 3)
  assert poincare.geodesic(jnp.linspace(0, 1, 7), x, x, c=1.0).shape == (7, 3)
  assert poincare.dist(x, x, c=jnp.ones(6)).shape == (6,)
  assert poincare.matvec(jnp.ones((5, 3)), y, c=1.0).shape == (4, 2, 5)


def test_bad_input_is_named():
  x = jnp.zeros((3, 2))
  with pytest.raises(TypeError, match='int32'):
    poincare.exp0(jnp.zeros((3, 2), jnp.int32), c=1.0)
  with pytest.raises(
    TypeError, match=r'one dtype, got x: float32, y: bfloat16'
  ):
    poincare.dist(x, x.astype(jnp.bfloat16), c=1.0)
  with pytest.raises(ValueError, match=r'\(3, 2\), \(3, 4\)'):
    poincare.dist(x, jnp.zeros((3, 4)), c=1.0)
  with pytest.raises(
    ValueError, match=r'do not broadcast.*x: \(3, 2\), y: \(4, 2\)'
  ):
    poincare.dist(x, jnp.zeros((4, 2)), c=1.0)
  with pytest.raises(ValueError, match=r'do not broadcast.*c: \(4,\)'):
    poincare.dist(x, x, c=jnp.ones(4))
  with pytest.raises(ValueError, match=r'do not broadcast.*t: \(2,\)'):
    poincare.geodesic(jnp.ones(2), x, x, c=1.0)
  with pytest.raises(ValueError, match=r'weights.*got \(4,\) and \(3, 2\)'):
    poincare.midpoint(x, jnp.ones(4), c=1.0)
  with pytest.raises(ValueError, match=r'curvature c must be positive.*-1'):
    poincare.dist(x, x, c=-1)
  with pytest.raises(TypeError, match=r'c is None, .* 0 for its Euclidean'):
    poincare.exp0(jnp.ones(2), c=None)
  with pytest.raises(ValueError, match='nan'):
    poincare.dist(x, x, c=float('nan'))
  with pytest.raises(ValueError, match=r'got -0\.5'):
    poincare.dist(x, x, c=np.array([1.0, -0.5, 1.0]))
  with pytest.raises(ValueError, match='inf'):
    poincare.exp0(x, c=float('inf'))
  with pytest.raises(ValueError, match=r'\[n, d\] and \[m, d\]'):
    poincare.dist_matrix(x[0], x, c=1.0)
  with pytest.raises(ValueError, match='backward'):
    poincare.dist_matrix(x, x, c=1.0, backward='fast')
  with pytest.raises(ValueError, match=r'\(5, 3\), \(3, 2\)'):
    poincare.matvec(jnp.ones((5, 3)), x, c=1.0)
  with pytest.raises(ValueError, match='margin'):
    poincare.project(x, c=1.0, margin=1.5)


@pytest.mark.parametrize(
  'call',
  [
    lambda x: poincare.clip_norm(x, NAN),
    lambda x: poincare.to_ball(x, c=1.0, clip_radius=NAN),
    lambda x: poincare.random_uniform(KEY, (2,), c=1.0, radius=NAN),
    lambda x: poincare.wrapped_normal.sample(KEY, x, NAN, c=1.0),
    lambda x: poincare.wrapped_normal.log_prob(x, x, [1.0, NAN], c=1.0),
    lambda x: layers.BallHead(2, clip_radius=NAN).init(KEY, x),
  ],
)
def test_settings_that_are_nan_are_named(call):
  with pytest.raises(ValueError, match=r'(radius|scale) is .*nan.* above 0'):
    call(jnp.ones((3, 2)))
  with pytest.raises(ValueError, match=r'margin must be in .*nan'):
    poincare.project(jnp.ones(2), c=1.0, margin=NAN)


@pytest.mark.parametrize('jit', [nnx.jit, lambda f: f])
def test_curvature_may_be_a_parameter_of_nnx(jit):
  x = jnp.full((2, 3), 0.2)
  c = nnx.Param(jnp.float32(0.3))
  for f in (
    lambda c: poincare.dist(x, -x, c=c),
    lambda c: poincare.dist_matrix(x, -x, c=c),
    lambda c: poincare.to_ball(x, c=c, clip_radius=2.3),
    lambda c: lorentz.from_poincare(x, c=c),
  ):
    found, wanted = jit(f)(c), f(jnp.float32(0.3))
    chex.assert_trees_all_close(found, wanted, rtol=1e-6)


@pytest.mark.parametrize('c', ['0.1', None, [0.1], 1j])
def test_curvature_that_is_no_number_is_named(c):
  x = jnp.full((2, 3), 0.2)
  message = 'c must be a number or an array, got '
  if c is None:
    message = 'c is None, which elsewhere means cosines'
  with pytest.raises(TypeError, match=message):
    poincare.dist(x, x, c=c)


def test_traced_negative_curvature_counts_as_zero():
  x = jnp.full((2, 3), 0.2)
  f = jax.jit(lambda c: poincare.dist(x, -x, c=c))
  chex.assert_trees_all_equal(f(-1.0), f(0.0))
