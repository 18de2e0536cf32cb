"""JAX's threefry keys, whose numbers XLA compiles quickly on a CPU.

There JAX makes a loop of the rounds, which XLA takes apart into a dozen kernels
a draw, each compiled by itself: HIER's draws took 3 s of CPU to compile. In one
piece a draw is one kernel, and runs ten times faster.
"""

import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend import random as implementations
from jax.typing import ArrayLike

from hier_jax import numerics

__all__ = ['unrolled']

# Salmon, Moraes, Dror and Shaw, "Parallel Random Numbers: As Easy as 1, 2, 3"
# (SC 2011), table 2 and section 3.3.
_ROTATIONS = (13, 15, 26, 6), (17, 29, 16, 24)
_PARITY = 0x1BD11BDA


def _threefry(key: jax.Array, low: jax.Array) -> tuple[jax.Array, jax.Array]:
  """Threefry-2x32 of the counters (0, low) under a key uint32 `[2]`."""
  keys = key[0], key[1], key[0] ^ key[1] ^ jnp.uint32(_PARITY)
  a, b = jnp.broadcast_to(keys[0], low.shape), low + keys[1]
  for group in range(5):
    for bits in _ROTATIONS[group % 2]:
      a = a + b
      b = a ^ (b << jnp.uint32(bits) | b >> jnp.uint32(32 - bits))
    a = a + keys[(group + 1) % 3]
    b = b + keys[(group + 2) % 3] + jnp.uint32(group + 1)
  return a, b


def _counters(shape: Sequence[int]) -> jax.Array:
  return jnp.arange(math.prod(shape), dtype=jnp.uint32).reshape(shape)


def _keys(key: jax.Array, low: jax.Array) -> jax.Array:
  # Else a key would be made anew wherever one that is derived from it is made,
  # and the work doubles in each round of each of them.
  return jnp.stack(numerics.made_once(*_threefry(key, low)), -1)


def _split(key: jax.Array, shape: Sequence[int]) -> jax.Array:
  return _keys(key, _counters(shape))


def _fold_in(key: jax.Array, data: ArrayLike) -> jax.Array:
  return _keys(key, jnp.asarray(data).astype(jnp.uint32))


def _bits(key: jax.Array, width: int, shape: Sequence[int]) -> jax.Array:
  high, low = _threefry(key, _counters(shape))
  if width == 64:
    return high.astype(jnp.uint64) << 32 | low.astype(jnp.uint64)
  return (high ^ low).astype(f'uint{width}')


_UNROLLED = implementations.define_prng_impl(
  key_shape=(2,),
  seed=implementations.threefry_prng_impl.seed,
  split=_split,
  random_bits=_bits,
  fold_in=_fold_in,
  name='threefry2x32_unrolled',
  tag='fryu',
)


def unrolled(key: jax.Array) -> jax.Array:
  """A key that draws the same numbers, faster on a CPU.

  Args:
    key: PRNG key, typed; it comes back as it is where it is not JAX's default
      threefry, or the numbers are not drawn on a CPU.
  """
  # JAX's type of its options names none of them.
  config: Any = jax.config
  if (
    jax.default_backend() != 'cpu'
    or not config.jax_threefry_partitionable
    or jax.random.key_impl(key) != 'threefry2x32'
  ):
    return key
  data = jax.random.key_data(key)
  return jax.random.wrap_key_data(data, impl=_UNROLLED)
