"""HIER's proxies between the steps: start, use, re-seeding."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import lax
from jax.typing import ArrayLike

from experiments.study import mined
from hier_jax import losses, numerics, poincare

__all__ = ['embedded', 'init_proxies', 'proxy_usage', 'reseed']


def init_proxies(
  key: jax.Array,
  num_proxies: int,
  dim: int,
  *,
  init_scale: ArrayLike = 1.0,
  clip_radius: float | None = poincare.CLIP_RADIUS,
) -> jax.Array:
  """`losses.init_hier_proxies` times `init_scale`.

  The library's start lies near the clip radius, where the data is as well; an
  ancestor should lie farther inside.

  Args:
    key: PRNG key.
    num_proxies: number P of proxies.
    dim: size d of the embeddings.
    init_scale: factor of the start; may be traced.
    clip_radius: see `losses.init_hier_proxies`.

  Returns:
    float32 `[P, d]`.

  Example:
    >>> import jax
    >>> from experiments.study import proxies
    >>> v = proxies.init_proxies(jax.random.key(0), 512, 128, init_scale=0.1)
    >>> print(f'{float(jax.numpy.linalg.norm(v, axis=1).mean()):.2f}')
    0.21
  """
  return init_scale * losses.init_hier_proxies(
    key, num_proxies, dim, clip_radius=clip_radius
  )


def embedded(
  hier_proxies: jax.Array,
  *,
  c: ArrayLike | None,
  clip_radius: float | None = poincare.CLIP_RADIUS,
) -> jax.Array:
  """Tangent vectors of proxies as points, as in `losses.hier`.

  Args:
    hier_proxies: `[P, d]`.
    c: curvature, see `mined.distances`.
    clip_radius: the clip of the tangent vectors; None for none.

  Returns:
    `[P, d]` points of the ball; rows of length 1 where c is None.

  Example:
    >>> import jax.numpy as jnp
    >>> from experiments.study import proxies
    >>> proxies.embedded(jnp.array([[0.0, 5.0]]), c=None).tolist()
    [[0.0, 1.0]]
  """
  v = numerics.widened(hier_proxies)
  if c is None:
    return numerics.unit(v)
  return poincare.to_ball(v, c=c, clip_radius=clip_radius)


def proxy_usage(
  z: jax.Array,
  hier_proxies: jax.Array,
  *,
  c: ArrayLike | None = 0.1,
  clip_radius: float | None = poincare.CLIP_RADIUS,
  temperature: ArrayLike = 0.1,
) -> jax.Array:
  """How often each proxy would be picked for a row: the mean softmax(-d / t).

  A mean over steps, decay * usage + (1 - decay) * now, is what `reseed` takes.

  Args:
    z: `[b, d]` embeddings.
    hier_proxies: `[P, d]`, tangent vectors at 0.
    c: curvature, see `mined.distances`.
    clip_radius: the clip of the proxies.
    temperature: t, of the picks.

  Returns:
    `[P]` of sum 1, without gradient.

  Example:
    >>> import jax.numpy as jnp
    >>> from experiments.study import proxies
    >>> usage = proxies.proxy_usage(jnp.eye(2), jnp.eye(2), c=None)
    >>> usage.tolist()
    [0.5, 0.5]
  """
  z, v = (lax.stop_gradient(numerics.widened(a)) for a in (z, hier_proxies))
  cost = mined.distances(z, embedded(v, c=c, clip_radius=clip_radius), c)
  return jnp.mean(jax.nn.softmax(-cost / temperature, -1), 0)


def reseed(
  key: jax.Array,
  hier_proxies: jax.Array,
  usage: jax.Array,
  z: jax.Array,
  *,
  c: ArrayLike | None = 0.1,
  threshold: ArrayLike = 0.1,
  shrink: ArrayLike = 0.5,
) -> tuple[jax.Array, jax.Array]:
  """Proxies with those that are hardly used put at data, and their usage.

  A proxy of usage below threshold / P gets the tangent vector of a row of the
  batch times `shrink`, so that it lies farther inside than the row, and the
  usage 1 / P. Random restarts of dead codes: Dhariwal et al., "Jukebox" (2020,
  arXiv 2005.00341). The optimizer's moments of such a proxy stay.

  Args:
    key: PRNG key.
    hier_proxies: `[P, d]`, tangent vectors at 0.
    usage: `[P]`, mean over steps of `proxy_usage`.
    z: `[b, d]` embeddings.
    c: curvature, see `mined.distances`.
    threshold: share of the even usage 1 / P below which a proxy moves.
    shrink: length of the new tangent vector over that of the row.

  Returns:
    (hier_proxies `[P, d]`, usage `[P]`), without gradient.

  Example:
    >>> import jax
    >>> import jax.numpy as jnp
    >>> from experiments.study import proxies
    >>> v, usage = jnp.zeros((2, 2)), jnp.array([0.99, 0.01])
    >>> z = jnp.array([[0.0, 1.0]])
    >>> new, _ = proxies.reseed(jax.random.key(0), v, usage, z, c=0.0)
    >>> new.tolist()
    [[0.0, 0.0], [0.0, 0.5]]
  """
  count = hier_proxies.shape[0]
  row = jax.random.randint(key, (count,), 0, z.shape[0], jnp.int32)
  chosen = numerics.widened(z)[row]
  tangent = chosen if c is None else poincare.log0(chosen, c=c)
  dead = usage < threshold / count
  new = jnp.where(dead[:, None], shrink * tangent, hier_proxies)
  usage = jnp.where(dead, 1 / count, usage)
  return lax.stop_gradient(new), lax.stop_gradient(usage)
