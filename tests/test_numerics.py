"""Helpers of JAX that know no ball."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hier_jax import numerics

pytestmark = pytest.mark.optimized


@pytest.mark.parametrize('value', [np.nan, np.float32('inf'), [1, -np.inf]])
def test_settings_that_are_not_finite_are_named(value):
  with pytest.raises(ValueError, match=r'^margin is .*, expected a finite nu'):
    numerics.check_finite(slope=1, margin=value)
  with pytest.raises(ValueError, match=r'^margin is .*, expected a finite nu'):
    numerics.check_positive(slope=1, margin=value)


def test_settings_that_are_known_and_not_positive_are_named():
  numerics.check_finite(margin=-1, slope=np.zeros(2))
  for value in (0, -1.0, np.array([1.0, 0.0]), jnp.bfloat16.dtype.type(0)):
    with pytest.raises(ValueError, match=r'^scale is .* number above 0$'):
      numerics.check_positive(scale=value)
  numerics.check_positive(radius=None, scale=(np.float32(0.1), 2))
  # What a device has is not waited for, and what is traced is not known.
  numerics.check_positive(scale=[jnp.zeros(3), 1.0])
  jax.jit(lambda x: numerics.check_positive(scale=x))(-1.0)


@pytest.mark.parametrize('value', ['0.1', b'1', np.array('1'), [1, '2'], 1j])
def test_settings_that_are_text_or_complex_are_named(value):
  with pytest.raises(ValueError, match=r'^scale is .*, expected a finite num'):
    numerics.check_finite(scale=value)
  with pytest.raises(ValueError, match=r"^scale is '0.1', expected .* above 0"):
    numerics.check_positive(scale='0.1')


@pytest.mark.parametrize('dtype', [jnp.float32, jnp.bfloat16])
def test_the_first_of_the_largest_has_the_gradient(dtype):
  x = jnp.asarray([[1, 3, 3], [-2, -2, -5], [4, jnp.nan, 9]], dtype)
  for axis in (0, 1):
    f = functools.partial(numerics.largest, axis=axis)
    for run in (lambda g: g, jax.jit):
      got = run(f)(x)
      assert got.dtype == dtype
      np.testing.assert_array_equal(
        *(a.astype(float) for a in (got, x.max(axis)))
      )
  grad = jax.jit(jax.grad(lambda x: jnp.sum(numerics.largest(x, 1))))(x)
  np.testing.assert_array_equal(grad, [[0, 1, 0], [1, 0, 0], [0, 1, 0]])


@pytest.mark.parametrize('dtype', [jnp.float32, jnp.bfloat16])
def test_the_largest_of_a_product_and_sum_has_a_gradient(dtype):
  """Which may be rounded once here and twice there."""
  rng = np.random.default_rng(0)
  a, b, c = (jnp.asarray(rng.normal(size=(64, 49, 16)), dtype) for _ in 'abc')
  f = lambda a: jnp.sum(numerics.largest(jax.nn.relu(a * b + c), 1))
  for run in (lambda g: g, jax.jit):
    np.testing.assert_array_equal(
      jnp.sum(run(jax.grad(f))(a) != 0, 1), jnp.ones((64, 16))
    )


def test_what_is_made_once_is_the_same_and_differentiable():
  x = jnp.float32([[-1.5, 0, jnp.inf], [jnp.nan, 2, -jnp.inf]])
  words = jnp.uint32([[0, 1, 2], [2**32 - 1, 4, 5]])
  got = jax.jit(numerics.made_once)(x, words)
  np.testing.assert_array_equal(got[0], x)
  np.testing.assert_array_equal(got[1], words)
  f = lambda a: numerics.made_once(a, a)[1] ** 2
  for derivative in (jax.jacfwd, jax.jacrev):
    np.testing.assert_array_equal(
      jax.jit(derivative(f))(x[0, :2]),
      [
        [-3, 0],
        [0, 0],
      ],
    )


def test_what_is_made_once_is_compiled_once():
  """Though two use it: two kernels have no sine of their own."""

  def f(x):
    (y,) = numerics.made_once(jnp.sin(x))
    return jnp.outer(y, y), y[:3] + 1

  text = jax.jit(f).lower(jnp.ones(8)).compile().as_text()
  assert text.count(' sine(') == 1
