"""Class proxies, and the loss against them that is no softmax."""

import jax
import jax.numpy as jnp

from hier_jax.losses import _checks, _sharding
from hier_jax.losses._batch import cosine_similarity

__all__ = ['init_class_proxies', 'own_class', 'proxy_anchor', 'rows_that_count']


def init_class_proxies(key, num_classes, dim, *, centers=None):
  """Float32 class proxies `[C, d]`, normal with standard deviation sqrt(2 / C).

  With `centers`, `[C, K, d]`: so many for each class.
  """
  shape = (num_classes, *(() if centers is None else (centers,)), dim)
  return jax.random.normal(key, shape, jnp.float32) * (2 / num_classes) ** 0.5


def rows_that_count(z, labels, proxies, where, centers=False):
  """Checks shapes; the mask `[b]` of this device's rows that count."""
  _checks.rows(z, labels, proxies, ranks=(2, 1, 3 if centers else 2))
  where = _sharding.mask_of(where, z)
  _checks.classes(labels, proxies.shape[0], where)
  return where


def own_class(labels, num_classes):
  return labels[:, None] == jnp.arange(num_classes, dtype=jnp.int32)[None]


def proxy_anchor(
  z, labels, proxies, *, alpha=32.0, margin=0.1, where=None, axis_name=None
):
  """Proxy-Anchor loss.

  With the cosine s(x, p), P+ the classes present in the batch and C all:

    1/|P+| sum_{p in P+} log(1 + sum_{x of p} exp(-alpha (s - margin)))
    + 1/|C| sum_{p in C} log(1 + sum_{x not of p} exp(alpha (s + margin)))

  Args:
    z: `[b, d]` embeddings; only their directions count.
    labels: int `[b]` in 0..C-1.
    proxies: `[C, d]`.
    alpha: scale of the cosine.
    margin: delta of the paper.
    where: bool `[b]`, the rows that count; None for all.
    axis_name: mapped axis over whose devices the batch is spread; None for one
      device.

  Returns:
    scalar.

  References:
    Kim et al., "Proxy Anchor Loss for Deep Metric Learning" (CVPR 2020,
    arXiv 2003.13911), equation 4.
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
