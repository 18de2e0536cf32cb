"""The sums of the LCA loss on NVIDIA GPUs: one kernel, by Pallas and Triton.

`_lca_sums` writes and reads a dozen matrices of triplets by proxies. Here a
triplet's rows of proxies stay in registers from its distances to its gradient;
only that is added up in memory, an anchor's once for all of its triplets that
stand side by side. `_lca_sums._one_pass` says what it computes, and is its
oracle in the tests.
"""

import functools
import os
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton

from hier_jax.losses import _lca_picks
from hier_jax.losses import _noise as noise_lib

__all__ = ['SWITCH', 'fits', 'triplet_gradients']

SWITCH = 'HIER_JAX_LCA_KERNEL'
# Triplets of a program, one after the other, and places of a row to a warp.
TRIPLETS = 10
_PLACES_OF_A_WARP = 512
# What stands for distances to proxies that do not exist: never picked.
_FAR = 1e30


def fits(dist: jax.Array, estimator: str, given: bool) -> bool:
  """Whether the kernel is asked for and knows the case.

  Args:
    dist: `[n, P]`.
    estimator: see `lca`.
    given: whether the noise is given, not drawn.
  """
  # The order in which it adds to rows of memory is not fixed.
  repeatable = 'deterministic' in os.environ.get('XLA_FLAGS', '')
  return (
    os.environ.get(SWITCH) == '1'
    and jax.default_backend() == 'gpu'
    and jax.devices()[0].device_kind.startswith('NVIDIA')
    and dist.dtype == jnp.float32
    and dist.shape[1] <= 2**13
    and estimator == 'gumbel'
    and not given
    and not repeatable
  )


def _first_largest(values: jax.Array, lanes: jax.Array) -> jax.Array:
  return jnp.min(jnp.where(values == jnp.max(values), lanes, values.size))


def _kernel(
  settings: Any,
  nodes: Any,
  weights: Any,
  seeds: Any,
  dist: Any,
  zeros: Any,
  grad: Any,
  paid: Any,
  picks: Any,
  *,
  triplets: int,
  shared_noise: bool,
  interpret: bool,
) -> None:
  """Some triplets, one after the other.

  Args:
    settings: `[2]`, temperature and margin.
    nodes: int32 `[3, T]`, rows of `dist`.
    weights: `[T]`.
    seeds: uint32 `[T, 2, 2]`.
    dist: `[n, P]`.
    zeros: what `grad` is before.
    grad: `[n, P]`, to be added to.
    paid: `[T]`, the hinges' sum, to be filled in.
    picks: int32 `[2, T]`, likewise.
    triplets: of a program.
    shared_noise: see `lca`.
    interpret: see `triplet_gradients`.
  """
  del zeros
  num_proxies = dist.shape[1]
  lanes = jnp.arange(pl.next_power_of_2(num_proxies), dtype=jnp.int32)
  inside = lanes < num_proxies
  temperature, margin = settings[0], settings[1]
  first = pl.program_id(0) * triplets

  def row(node: jax.Array) -> jax.Array:
    return triton.load(dist.at[node, lanes], mask=inside, other=_FAR)

  def add(node: jax.Array, values: jax.Array, counts: jax.Array) -> None:
    mask = inside & counts
    if interpret:
      # Programs take turns there, and it knows no atomic addition with a mask.
      at = grad.at[node, lanes]
      values += triton.load(at, mask=mask, other=0.0)
      triton.store(at, values, mask=mask)
    else:
      triton.atomic_add(grad, (node, lanes), values, mask=mask)

  def pick(farthest: jax.Array, t: jax.Array, stream: int) -> Any:
    weight = jnp.exp((jnp.min(farthest) - farthest) / temperature)
    start, step = seeds[t, stream, 0], seeds[t, stream, 1]
    noisy = weight * noise_lib.rates_of(start, step, lanes.astype(jnp.uint32))
    # None is the largest where one is NaN: no place beyond the row is read.
    picked = jnp.minimum(_first_largest(noisy, lanes), num_proxies - 1)
    return noisy, picked

  def slope(noisy: jax.Array, v: jax.Array) -> jax.Array:
    """Derivative of softmax(log noisy) . v by the logits."""
    scale = 1 / jnp.sum(noisy)
    return noisy * ((v - jnp.sum(noisy * v) * scale) * scale)

  def one(n: jax.Array, carry: tuple[jax.Array, ...]) -> tuple[jax.Array, ...]:
    anchor, summed = carry
    t = first + n
    i, j, k = nodes[0, t], nodes[1, t], nodes[2, t]
    rows = d_i, d_j, d_k = row(i), row(j), row(k)
    near = jnp.maximum(d_i, d_j)
    far = jnp.maximum(near, d_k)
    noisy_near, lower = pick(near, t, 0)
    noisy_far, upper = pick(far, t, 0 if shared_noise else 1)
    counts = (lower != upper) & (weights[t] > 0)
    to_lower = [dist[node, lower] for node in (i, j, k)]
    to_upper = [dist[node, upper] for node in (i, j, k)]
    signs = 1.0, 1.0, -1.0
    hinges = [
      jnp.maximum(sign * (a - b) + margin, 0.0)
      for sign, a, b in zip(signs, to_lower, to_upper, strict=True)
    ]
    pull = [
      jnp.where(counts & (hinge > 0), sign * weights[t], 0.0)
      for sign, hinge in zip(signs, hinges, strict=True)
    ]
    paid[t] = hinges[0] + hinges[1] + hinges[2]
    picks[0, t], picks[1, t] = lower, upper

    def v(to_pick: list[jax.Array]) -> jax.Array:
      moved = [d - a for d, a in zip(rows, to_pick, strict=True)]
      return pull[0] * moved[0] + pull[1] * moved[1] + pull[2] * moved[2]

    slopes = slope(noisy_near, v(to_lower)), slope(noisy_far, -v(to_upper))
    by_i, by_j, by_k = _lca_picks.by_rows(rows, temperature, *slopes)
    step = jnp.where(lanes == lower, 1.0, 0.0)
    step -= jnp.where(lanes == upper, 1.0, 0.0)
    add(j, by_j + pull[1] * step, counts)
    add(k, by_k + pull[2] * step, counts)
    changed = i != anchor
    add(anchor, summed, changed & (anchor >= 0))
    summed = jnp.where(changed, 0.0, summed)
    summed += by_i + pull[0] * step
    return i, summed

  start = jnp.int32(-1), jnp.zeros(lanes.shape, jnp.float32)
  anchor, summed = lax.fori_loop(0, triplets, one, start)
  add(anchor, summed, anchor >= 0)


@functools.partial(jax.jit, static_argnames=('shared_noise', 'interpret'))
def triplet_gradients(
  dist: jax.Array,
  nodes: jax.Array,
  weights: jax.Array,
  seeds: jax.Array,
  temperature: jax.Array,
  margin: jax.Array,
  *,
  shared_noise: bool,
  interpret: bool = False,
) -> tuple[jax.Array, jax.Array, jax.Array]:
  """What triplets pay, what they pick, and the gradient of what they pay.

  Args:
    dist: `[n, P]` float32.
    nodes: int32 `[3, T]`, rows of `dist`: anchor, positive, negative.
    weights: `[T]`, 0 for a triplet that does not count.
    seeds: uint32 `[T, 2, 2]`, of `_noise.triplet_seeds`.
    temperature: temperature.
    margin: of the hinges.
    shared_noise: see `lca`.
    interpret: whether to run it without a GPU, slowly.

  Returns:
    the sum of the hinges `[T]`, whether or not the picks differ; the picks
    int32 `[2, T]`; and the gradient `[n, P]` of the sum of weights times
    hinges over the triplets whose picks differ.
  """
  total = weights.shape[0]
  rest = -total % TRIPLETS
  padded = total + rest
  nodes = jnp.pad(nodes, ((0, 0), (0, rest)), 'edge')
  weights = jnp.pad(weights, (0, rest))
  seeds = jnp.pad(seeds, ((0, rest), (0, 0), (0, 0)))
  settings = jnp.stack([temperature, margin])
  shaped = functools.partial(
    jax.ShapeDtypeStruct,
    manual_axis_type=jax.typeof(dist).manual_axis_type,
  )
  warps = max(1, min(8, dist.shape[1] // _PLACES_OF_A_WARP))
  grad, paid, picks = pl.pallas_call(
    functools.partial(
      _kernel,
      triplets=TRIPLETS,
      shared_noise=shared_noise,
      interpret=interpret,
    ),
    grid=(padded // TRIPLETS,),
    out_shape=(
      shaped(dist.shape, dist.dtype),
      shaped((padded,), dist.dtype),
      shaped((2, padded), jnp.int32),
    ),
    input_output_aliases={5: 0},
    interpret=interpret,
    compiler_params=triton.CompilerParams(num_warps=warps, num_stages=1),
    name='lca_triplets',
  )(settings, nodes, weights, seeds, dist, jnp.zeros_like(dist))
  return paid[:total], picks[:, :total], grad
