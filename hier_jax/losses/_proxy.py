"""Class proxies, and the loss against them that is no softmax."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Bool, Float, Integer, PRNGKeyArray

from hier_jax.losses import _checks, _sharding
from hier_jax.losses._batch import cosine_similarity

__all__ = ['init_class_proxies', 'own_class', 'proxy_anchor', 'rows_that_count']


def init_class_proxies(
  key: PRNGKeyArray, num_classes: int, dim: int, *, centers: int | None = None
) -> Float[Array, 'C ... d']:
  """Float32 class proxies `[C, d]`, normal with standard deviation sqrt(2 / C).

  Args:
    key: PRNG key.
    num_classes: number C of classes.
    dim: size d of the embeddings.
    centers: number K of centers of each class; None for one proxy a class.

  Returns:
    `[C, d]`, or `[C, K, d]` with `centers`.

  Example:
    >>> import jax
    >>> from hier_jax import losses
    >>> losses.init_class_proxies(jax.random.key(0), 5, 8).shape
    (5, 8)
    >>> losses.init_class_proxies(jax.random.key(0), 5, 8, centers=3).shape
    (5, 3, 8)
  """
  shape = (num_classes, *(() if centers is None else (centers,)), dim)
  return jax.random.normal(key, shape, jnp.float32) * (2 / num_classes) ** 0.5


def rows_that_count(
  z: ArrayLike,
  labels: ArrayLike,
  proxies: jax.Array,
  where: ArrayLike | None,
  centers: bool = False,
) -> jax.Array:
  """Checks shapes; the mask `[b]` of this device's rows that count."""
  _checks.rows(z, labels, proxies, ranks=(2, 1, 3 if centers else 2))
  where = _sharding.mask_of(where, z)
  _checks.classes(labels, proxies.shape[0], where)
  return where


def own_class(labels: ArrayLike, num_classes: int) -> jax.Array:
  """Bool `[b, C]`, whether a class is the row's own."""
  classes = jnp.arange(num_classes, dtype=jnp.int32)
  return jnp.asarray(labels)[:, None] == classes[None]


def proxy_anchor(
  z: Float[ArrayLike, 'b d'],
  labels: Integer[ArrayLike, ' b'],
  proxies: Float[Array, 'C d'],
  *,
  alpha: float = 32.0,
  margin: float = 0.1,
  where: Bool[ArrayLike, ' b'] | None = None,
  axis_name: str | None = None,
) -> Float[Array, '']:
  """Proxy-Anchor loss.

  With the cosine s(x, p), P+ the classes present in the batch and C all:

    1/|P+| sum_{p in P+} log(1 + sum_{x of p} exp(-alpha (s - margin)))
    + 1/|C| sum_{p in C} log(1 + sum_{x not of p} exp(alpha (s + margin)))

  Args:
    z: `[b, d]` embeddings; only their directions count.
    labels: int `[b]`, the class of each row, in 0..C-1.
    proxies: `[C, d]`, one a class; only their directions count.
    alpha: factor of the cosines.
    margin: how far beyond 0 the cosines should be, delta of the paper.
    where: bool `[b]`, the rows that count; None for all.
    axis_name: mapped axis over whose devices the batch is spread; None for one
      device.

  Returns:
    the loss, a scalar.

  References:
    Kim et al., "Proxy Anchor Loss for Deep Metric Learning" (CVPR 2020,
    arXiv 2003.13911), equation 4.

  Example:
    >>> import jax.numpy as jnp
    >>> from hier_jax import losses
    >>> z, labels = jnp.array([[1.0, 0.0]]), jnp.array([0])
    >>> loss = losses.proxy_anchor(z, labels, jnp.eye(2))
    >>> print(f'{float(loss):.3f}')  # log(1 + e^3.2) / 2, of the other proxy.
    1.620
  """
  where = rows_that_count(z, labels, proxies, where)
  similarity = cosine_similarity(z, proxies)
  belongs = own_class(labels, proxies.shape[0]) & where[:, None]
  present = _sharding.total(jnp.sum(belongs, 0), axis_name) > 0
  over_rows = lambda logits, where: jax.nn.softplus(
    _sharding.logsumexp(logits, where, axis=0, axis_name=axis_name)
  )
  pull = over_rows(-alpha * (similarity - margin), belongs)
  push = over_rows(alpha * (similarity + margin), where[:, None] & ~belongs)
  return _sharding.masked_mean(pull, present) + jnp.mean(push)
