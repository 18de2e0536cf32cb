"""Losses against one or more learned proxies of each class."""

import chex
import jax
import jax.numpy as jnp
from jax import lax

from hier_jax.losses import sharding

__all__ = ['cosine_similarity', 'init_class_proxies', 'proxy_anchor']


def init_class_proxies(key, num_classes, dim):
  """Class proxies `[C, d]`, normal with standard deviation sqrt(2 / C)."""
  return jax.random.normal(key, (num_classes, dim)) * (2 / num_classes) ** 0.5


def _normalise(x):
  squared = jnp.sum(x * x, -1, keepdims=True)
  return x * lax.rsqrt(jnp.maximum(squared, 1e-24))


def cosine_similarity(x, y):
  """Cosines `[n, m]` of the rows of `[n, d]` and `[m, d]`, in float32."""
  x, y = (_normalise(a.astype(jnp.float32)) for a in (x, y))
  return jnp.matmul(x, y.T, precision=lax.Precision.HIGHEST)


def _log1p_sum_exp(logits, where):
  """log(1 + sum_i exp(logits_i)) over axis 0, of the places `where` is true."""
  logits = jnp.where(where, logits, jnp.finfo(logits.dtype).min)
  one = jnp.zeros_like(logits[:1])
  return jax.nn.logsumexp(jnp.concatenate([one, logits]), axis=0)


def proxy_anchor(z, labels, proxies, *, alpha=32.0, margin=0.1, axis_name=None):
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
    axis_name: mapped axis over whose devices the batch is spread; see
      `losses.hier`.

  Returns:
    float32 scalar.

  References:
    Kim et al., "Proxy Anchor Loss for Deep Metric Learning" (CVPR 2020,
    arXiv 2003.13911), equation 4.
  """
  chex.assert_rank([z, labels, proxies], [2, 1, 2])
  chex.assert_equal_shape_suffix([z, proxies], 1)
  z = sharding.gather(z, axis_name)
  labels = sharding.gather(labels, axis_name)
  similarity = cosine_similarity(z, proxies)
  belongs = labels[:, None] == jnp.arange(proxies.shape[0])[None]
  present = jnp.any(belongs, 0)
  pull = _log1p_sum_exp(-alpha * (similarity - margin), belongs)
  push = _log1p_sum_exp(alpha * (similarity + margin), ~belongs)
  count = jnp.maximum(jnp.sum(present), 1)
  return jnp.sum(jnp.where(present, pull, 0)) / count + jnp.mean(push)
