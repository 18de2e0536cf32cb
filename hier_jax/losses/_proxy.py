"""Class proxies and Proxy-Anchor, the one loss on them that is no softmax."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Bool, Float, Integer, PRNGKeyArray

from hier_jax import mining, numerics
from hier_jax.losses import _checks, _sharding
from hier_jax.losses._batch import cosine_similarity

__all__ = ['Classified', 'classified', 'init_class_proxies', 'proxy_anchor']


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
  key = numerics.as_key(key)
  sizes = {'num_classes': num_classes, 'centers': centers, 'dim': dim}
  shape = [mining.integer(k, n) for k, n in sizes.items() if n is not None]
  return jax.random.normal(key, shape, jnp.float32) * (2 / num_classes) ** 0.5


class Classified(NamedTuple):
  """Rows, the classes whose proxies a device has, and which are whose.

  Each device has its own rows and all classes, or all rows and its own share of
  the classes.

  Attributes:
    z: `[b, d]`.
    own: bool `[b, C]`, whether a class is the row's own.
    counts: bool `[b]`, the rows that count.
    real: bool `[C]`, the classes that are no padding; None for all.
    known: bool `[b]`, the rows that count and are of any class at all.
    row_axis: mapped axis over whose devices the rows are spread, or None.
    class_axis: mapped axis over whose devices the classes are, or None.
  """

  z: jax.Array
  own: jax.Array
  counts: jax.Array
  real: jax.Array | None
  known: jax.Array
  row_axis: str | None
  class_axis: str | None


def classified(
  z: ArrayLike,
  labels: ArrayLike,
  proxies: jax.Array,
  where: ArrayLike | None,
  num_classes: int | None,
  axis_name: str | None,
  centers: bool = False,
) -> Classified:
  """Checks shapes, and gathers the rows where classes are spread.

  Args:
    z: `[b, d]`, this device's rows.
    labels: int `[b]`.
    proxies: `[C, d]`, or `[C, K, d]` with centers; see `proxy_anchor`.
    where: bool `[b]`, or None.
    num_classes: see `proxy_anchor`.
    axis_name: mapped axis over whose devices the batch is spread.
    centers: whether a class has several.
  """
  _checks.rows(z, labels, proxies, ranks=(2, 1, 3 if centers else 2))
  where = _sharding.mask_of(where, z)
  share = proxies.shape[0]
  _checks.classes(labels, num_classes or share, where)
  z, labels = jnp.asarray(z), jnp.asarray(labels)
  classes = jnp.arange(share, dtype=jnp.int32)
  if num_classes is None or axis_name is None:
    if num_classes not in (None, share):
      raise ValueError(
        f'num_classes is {num_classes}, but there are {share} class proxies:'
        ' without axis_name they must be all'
      )
    own = labels[:, None] == classes[None]
    known = where & jnp.any(own, 1)
    return Classified(z, own, where, None, known, axis_name, None)
  rank, devices = _sharding.position(axis_name)
  if share != -(-num_classes // devices):
    raise ValueError(
      f'each of {devices} devices has {share} class proxies, expected'
      f' {-(-num_classes // devices)}: num_classes {num_classes} over the'
      ' devices, rounded up'
    )
  z, labels, where = (
    _sharding.gather(a, axis_name) for a in (z, labels, where)
  )
  classes = rank * share + classes
  real = classes < num_classes
  known = where & (labels >= 0) & (labels < num_classes)
  own = (labels[:, None] == classes[None]) & real[None]
  return Classified(z, own, where, real, known, None, axis_name)


def proxy_anchor(
  z: Float[ArrayLike, 'b d'],
  labels: Integer[ArrayLike, ' b'],
  proxies: Float[Array, 'C d'],
  *,
  alpha: float = 32.0,
  margin: float = 0.1,
  where: Bool[ArrayLike, ' b'] | None = None,
  num_classes: int | None = None,
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
    num_classes: number C of all classes, if each device holds only the proxies
      of its share of the classes: ceil(C / devices) of them, in order, the last
      ones padded with anything. None if each device holds all proxies.
    axis_name: mapped axis over whose devices the batch is spread; None for one
      device.

  Returns:
    the loss, a scalar. As for rows, the gradient with respect to a share of the
    proxies is a sum over the devices: divided by their number, it is the
    gradient of the whole batch's loss.

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
  numerics.check_positive(alpha=alpha)
  numerics.check_finite(margin=margin)
  seen = classified(z, labels, proxies, where, num_classes, axis_name)
  similarity = cosine_similarity(seen.z, proxies)
  belongs = seen.own & seen.counts[:, None]
  present = _sharding.total(jnp.sum(belongs, 0), seen.row_axis) > 0
  over_rows = lambda logits, where: jax.nn.softplus(
    _sharding.logsumexp(logits, where, axis=0, axis_name=seen.row_axis)
  )
  pull = over_rows(-alpha * (similarity - margin), belongs)
  push = over_rows(
    alpha * (similarity + margin), seen.counts[:, None] & ~belongs
  )
  pulled = _sharding.masked_mean(pull, present, seen.class_axis)
  if seen.real is None:
    return pulled + jnp.mean(push)
  return pulled + _sharding.masked_mean(push, seen.real, seen.class_axis)
