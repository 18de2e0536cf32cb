"""Derivatives of compiled functions against differences, in float64."""

import functools

import jax
import numpy as np

# Central differences are wrong by about its square.
_STEP = 1e-5


def noise(seed, tree):
  """Normal numbers in the shapes of a tree of arrays."""
  rng = np.random.default_rng(seed)
  return jax.tree.map(lambda a: rng.standard_normal(np.shape(a)), tree)


def derivatives(f, direction, *args):
  """f's value, derivative along a direction, and gradients of noise's dot."""
  out, push = jax.linearize(f, *args)
  pull = jax.linear_transpose(push, *args)
  return out, push(*direction), pull(noise(1, out))


def gradients(f, direction, *args):
  """As `derivatives`, of a function without a forward mode."""
  del direction
  out, pull = jax.vjp(f, *args)
  return out, None, pull(noise(1, out))


def _dot(a, b):
  pairs = zip(*map(jax.tree.leaves, (a, b)), strict=True)
  return sum(np.vdot(x, y) for x, y in pairs)


def check(f, *args, order=1, forward=True, tolerance=1e-6):
  """Asserts that derivatives agree with differences, forward and reverse.

  All of a function is one program: it is run at three points of a line.

  Args:
    f: a function of arrays of floats.
    *args: arrays, taken as float64.
    order: 2 for the derivatives of the derivatives too, in all four ways.
    forward: False for functions that have no forward mode.
    tolerance: of an entry as a share of it, or of 1 where it is smaller.
  """
  with jax.enable_x64(True):
    args = [np.asarray(a, np.float64) for a in args]
    direction = noise(0, args)
    kinds = derivatives if forward else gradients
    for _ in range(order):
      f = functools.partial(kinds, f, direction)
    run = jax.jit(f)
    (_, tangent, pulled), (after, *_), (before, *_) = jax.device_get(
      [
        run(*(a + k * d for a, d in zip(args, direction, strict=True)))
        for k in (0, _STEP, -_STEP)
      ]
    )
  slope = jax.tree.map(lambda a, b: (a - b) / (2 * _STEP), after, before)
  near = functools.partial(
    np.testing.assert_allclose, rtol=tolerance, atol=tolerance
  )
  if forward:
    jax.tree.map(near, tangent, slope)
  near(_dot(pulled, direction), _dot(noise(1, slope), slope))
