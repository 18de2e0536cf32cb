"""Softmax losses: cross-entropy over proxies or centers of the classes."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Array, Bool, Float, Integer

from hier_jax import numerics
from hier_jax.losses import _proxy, _sharding
from hier_jax.losses._batch import cosine_similarity

__all__ = [
  'arc_face',
  'cos_face',
  'normalized_softmax',
  'proxy_nca_pp',
  'soft_triple',
  'sub_center_arc_face',
]


def _less(
  similarity: jax.Array, margin: ArrayLike, own: jax.Array
) -> jax.Array:
  """Similarities `[b, C]`, those to the own class less a margin."""
  return jnp.where(own, similarity - margin, similarity)


def _cross_entropy(logits: jax.Array, seen: _proxy.Classified) -> jax.Array:
  """Mean of -log softmax(logits)[label] over the rows that count.

  Those are the rows where `where` is true and the label is in 0..C-1; without
  any the result is 0.
  """
  own = jnp.sum(jnp.where(seen.own, logits, 0), 1)
  if seen.real is None:
    total = jax.nn.logsumexp(logits, 1)
  else:
    own = _sharding.total(own, seen.class_axis)
    total = _sharding.logsumexp(
      logits, seen.real[None], axis_name=seen.class_axis
    )
  return _sharding.masked_mean(total - own, seen.known, seen.row_axis)


def _center_similarity(z: ArrayLike, centers: jax.Array) -> jax.Array:
  """Cosines `[b, C, K]` to the centers `[C, K, d]`."""
  classes, number, dim = centers.shape
  flat = cosine_similarity(z, centers.reshape(-1, dim))
  return flat.reshape(-1, classes, number)


def normalized_softmax(
  z: Float[ArrayLike, 'b d'],
  labels: Integer[ArrayLike, ' b'],
  proxies: Float[Array, 'C d'],
  *,
  temperature: float = 0.05,
  where: Bool[ArrayLike, ' b'] | None = None,
  num_classes: int | None = None,
  axis_name: str | None = None,
) -> Float[Array, '']:
  """Normalized softmax: cross-entropy over cosines s / temperature.

  Args:
    z: `[b, d]` embeddings; only their directions count.
    labels: int `[b]`, the class of each row; rows with a label outside 0..C-1
      do not count.
    proxies: `[C, d]`, one a class; only their directions count.
    temperature: divisor of the cosines, sigma of the paper.
    where: bool `[b]`, the rows that count; None for all.
    num_classes: number of all classes where they are spread over the devices,
      see `proxy_anchor`; None where each device has all.
    axis_name: mapped axis over whose devices the batch is spread; None for one
      device.

  Returns:
    scalar, 0 where no row counts.

  References:
    Zhai and Wu, "Classification is a Strong Baseline for Deep Metric Learning"
    (BMVC 2019, arXiv 1811.12649), equation 3.

  Example:
    >>> import jax.numpy as jnp
    >>> from hier_jax import losses
    >>> z, labels = jnp.array([[1.0, 0.0]]), jnp.array([0])
    >>> loss = losses.normalized_softmax(z, labels, jnp.eye(2), temperature=1.0)
    >>> print(f'{float(loss):.3f}')  # log(1 + 1 / e).
    0.313
  """
  numerics.check_positive(temperature=temperature)
  seen = _proxy.classified(z, labels, proxies, where, num_classes, axis_name)
  logits = cosine_similarity(seen.z, proxies) / temperature
  return _cross_entropy(logits, seen)


def proxy_nca_pp(
  z: Float[ArrayLike, 'b d'],
  labels: Integer[ArrayLike, ' b'],
  proxies: Float[Array, 'C d'],
  *,
  temperature: float = 1 / 9,
  where: Bool[ArrayLike, ' b'] | None = None,
  num_classes: int | None = None,
  axis_name: str | None = None,
) -> Float[Array, '']:
  """ProxyNCA++: cross-entropy over -|x - p|^2 / temperature of unit vectors.

  Args:
    z: `[b, d]` embeddings; only their directions count.
    labels: int `[b]`, the class of each row; rows with a label outside 0..C-1
      do not count.
    proxies: `[C, d]`, one a class; only their directions count.
    temperature: divisor of the squared distances, T of the paper.
    where: bool `[b]`, the rows that count; None for all.
    num_classes: number of all classes where they are spread over the devices,
      see `proxy_anchor`; None where each device has all.
    axis_name: mapped axis over whose devices the batch is spread; None for one
      device.

  Returns:
    scalar, 0 where no row counts.

  References:
    Teh, DeVries and Taylor, "ProxyNCA++: Revisiting and Revitalizing Proxy
    Neighborhood Component Analysis" (ECCV 2020, arXiv 2004.01113), section 3.

  Example:
    >>> import jax.numpy as jnp
    >>> from hier_jax import losses
    >>> z, labels = jnp.array([[1.0, 0.0]]), jnp.array([0])
    >>> loss = losses.proxy_nca_pp(z, labels, jnp.eye(2), temperature=1.0)
    >>> print(f'{float(loss):.3f}')  # log(1 + e^-2).
    0.127
  """
  numerics.check_positive(temperature=temperature)
  # |x - p|^2 = 2 - 2 s, of which the softmax sees 2 s.
  return normalized_softmax(
    z,
    labels,
    proxies,
    temperature=temperature / 2,
    where=where,
    num_classes=num_classes,
    axis_name=axis_name,
  )


def cos_face(
  z: Float[ArrayLike, 'b d'],
  labels: Integer[ArrayLike, ' b'],
  proxies: Float[Array, 'C d'],
  *,
  scale: float = 64.0,
  margin: float = 0.35,
  where: Bool[ArrayLike, ' b'] | None = None,
  num_classes: int | None = None,
  axis_name: str | None = None,
) -> Float[Array, '']:
  """CosFace: cross-entropy over scale s, with scale (s - margin) for the class.

  Args:
    z: `[b, d]` embeddings; only their directions count.
    labels: int `[b]`, the class of each row; rows with a label outside 0..C-1
      do not count.
    proxies: `[C, d]`, one a class; only their directions count.
    scale: factor of the cosines, s of the paper.
    margin: amount subtracted from the cosine to the row's own class, m of the
      paper.
    where: bool `[b]`, the rows that count; None for all.
    num_classes: number of all classes where they are spread over the devices,
      see `proxy_anchor`; None where each device has all.
    axis_name: mapped axis over whose devices the batch is spread; None for one
      device.

  Returns:
    scalar, 0 where no row counts.

  References:
    Wang et al., "CosFace: Large Margin Cosine Loss for Deep Face Recognition"
    (CVPR 2018, arXiv 1801.09414), equation 4.

  Example:
    >>> import jax.numpy as jnp
    >>> from hier_jax import losses
    >>> z, labels = jnp.array([[1.0, 0.0]]), jnp.array([0])
    >>> loss = losses.cos_face(z, labels, jnp.eye(2), scale=1.0, margin=1.0)
    >>> print(f'{float(loss):.3f}')  # Both logits are 0: log(2).
    0.693
  """
  numerics.check_positive(scale=scale)
  numerics.check_finite(margin=margin)
  seen = _proxy.classified(z, labels, proxies, where, num_classes, axis_name)
  similarity = _less(cosine_similarity(seen.z, proxies), margin, seen.own)
  return _cross_entropy(scale * similarity, seen)


def _turn(cosine: jax.Array, angle: ArrayLike) -> jax.Array:
  """cos(theta + angle) of cos(theta), monotone for theta in [0, pi].

  Past theta = pi - angle, where cos(theta + angle) would rise again, it goes on
  as cos(theta) - 1 + cos(angle), which meets it there.
  """
  # Its slope at cos(theta) = 1 or -1 is infinite; this is as steep as it gets.
  flat = jnp.finfo(cosine.dtype).eps
  sine = jnp.sqrt(jnp.maximum(1 - cosine * cosine, flat))
  turned = cosine * jnp.cos(angle) - sine * jnp.sin(angle)
  beyond = cosine - 1 + jnp.cos(angle)
  return jnp.where(cosine > -jnp.cos(angle), turned, beyond)


def _arc_logits(
  similarity: jax.Array, own: jax.Array, scale: ArrayLike, margin: ArrayLike
) -> jax.Array:
  return jnp.where(own, _turn(similarity, margin), similarity) * scale


def arc_face(
  z: Float[ArrayLike, 'b d'],
  labels: Integer[ArrayLike, ' b'],
  proxies: Float[Array, 'C d'],
  *,
  scale: float = 64.0,
  margin: float = 0.5,
  where: Bool[ArrayLike, ' b'] | None = None,
  num_classes: int | None = None,
  axis_name: str | None = None,
) -> Float[Array, '']:
  """ArcFace: cross-entropy over scale cos(theta), own class with a margin.

  The logit of the row's own class is scale cos(theta + margin), continued so
  that it decreases with theta up to pi.

  Args:
    z: `[b, d]` embeddings; only their directions count.
    labels: int `[b]`, the class of each row; rows with a label outside 0..C-1
      do not count.
    proxies: `[C, d]`, one a class; only their directions count.
    scale: factor of the cosines, s of the paper.
    margin: angle in radians that is added to theta of the row's own class, m
      of the paper.
    where: bool `[b]`, the rows that count; None for all.
    num_classes: number of all classes where they are spread over the devices,
      see `proxy_anchor`; None where each device has all.
    axis_name: mapped axis over whose devices the batch is spread; None for one
      device.

  Returns:
    scalar, 0 where no row counts.

  References:
    Deng et al., "ArcFace: Additive Angular Margin Loss for Deep Face
    Recognition" (CVPR 2019, arXiv 1801.07698), equation 3.

  Example:
    >>> import jax.numpy as jnp
    >>> from hier_jax import losses
    >>> z, labels = jnp.array([[1.0, 0.0]]), jnp.array([0])
    >>> right = jnp.pi / 2  # Turns the class's logit from 1 to 0.
    >>> loss = losses.arc_face(z, labels, jnp.eye(2), scale=1.0, margin=right)
    >>> print(f'{float(loss):.3f}')  # log(2).
    0.693
  """
  numerics.check_positive(scale=scale)
  numerics.check_finite(margin=margin)
  seen = _proxy.classified(z, labels, proxies, where, num_classes, axis_name)
  similarity = cosine_similarity(seen.z, proxies)
  return _cross_entropy(_arc_logits(similarity, seen.own, scale, margin), seen)


def sub_center_arc_face(
  z: Float[ArrayLike, 'b d'],
  labels: Integer[ArrayLike, ' b'],
  centers: Float[Array, 'C K d'],
  *,
  scale: float = 64.0,
  margin: float = 0.5,
  where: Bool[ArrayLike, ' b'] | None = None,
  num_classes: int | None = None,
  axis_name: str | None = None,
) -> Float[Array, '']:
  """Sub-center ArcFace: ArcFace over the nearest of a class's K centers.

  Args:
    z: `[b, d]` embeddings; only their directions count.
    labels: int `[b]`, the class of each row; rows with a label outside 0..C-1
      do not count.
    centers: `[C, K, d]`, K a class; only their directions count.
    scale: factor of the cosines, s of the paper.
    margin: angle in radians that is added to theta of the row's own class, m
      of the paper.
    where: bool `[b]`, the rows that count; None for all.
    num_classes: number of all classes where they are spread over the devices,
      see `proxy_anchor`; None where each device has all.
    axis_name: mapped axis over whose devices the batch is spread; None for one
      device.

  Returns:
    scalar, 0 where no row counts.

  References:
    Deng et al., "Sub-center ArcFace: Boosting Face Recognition by Large-Scale
    Noisy Web Faces" (ECCV 2020), equation 3.

  Example:
    >>> import jax.numpy as jnp
    >>> from hier_jax import losses
    >>> z, labels = jnp.array([[1.0, 0.0]]), jnp.array([0])
    >>> centers = jnp.stack([jnp.eye(2), -jnp.eye(2)])  # [C, K, d]
    >>> options = {'scale': 1.0, 'margin': 0.0}
    >>> loss = losses.sub_center_arc_face(z, labels, centers, **options)
    >>> print(f'{float(loss):.3f}')  # log(1 + 1 / e), of the cosines 1 and 0.
    0.313
  """
  numerics.check_positive(scale=scale)
  numerics.check_finite(margin=margin)
  seen = _proxy.classified(
    z, labels, centers, where, num_classes, axis_name, centers=True
  )
  similarity = numerics.largest(_center_similarity(seen.z, centers), 2)
  return _cross_entropy(_arc_logits(similarity, seen.own, scale, margin), seen)


def soft_triple(
  z: Float[ArrayLike, 'b d'],
  labels: Integer[ArrayLike, ' b'],
  centers: Float[Array, 'C K d'],
  *,
  scale: float = 20.0,
  temperature: float = 0.1,
  margin: float = 0.01,
  center_weight: float | Float[Array, ''] = 0.0,
  where: Bool[ArrayLike, ' b'] | None = None,
  num_classes: int | None = None,
  axis_name: str | None = None,
) -> Float[Array, '']:
  """SoftTriple: cross-entropy over the softly nearest of K centers a class.

  S(x, c) = sum_k softmax_k(s(x, w_ck) / gamma) s(x, w_ck), where gamma is the
  temperature; the logits are scale S, with scale (S - margin) for the row's own
  class. With a `center_weight` tau, the mean distance between a class's centers
  is added, which merges centers that are not needed: tau / (C K (K - 1)) sum_c
  sum_{i < j} |w_ci - w_cj|.

  Args:
    z: `[b, d]` embeddings; only their directions count.
    labels: int `[b]`, the class of each row; rows with a label outside 0..C-1
      do not count.
    centers: `[C, K, d]`, K a class; only their directions count.
    scale: factor of the similarities, lambda of the paper.
    temperature: temperature of the softmax over a class's centers, gamma of
      the paper.
    margin: amount subtracted from the similarity to the row's own class, delta
      of the paper.
    center_weight: weight of the regularizer, tau of the paper (0.2 there; 0 in
      HIER's program).
    where: bool `[b]`, the rows that count; None for all.
    num_classes: number of all classes where they are spread over the devices,
      see `proxy_anchor`; None where each device has all.
    axis_name: mapped axis over whose devices the batch is spread; None for one
      device.

  Returns:
    the loss, a scalar.

  References:
    Qian et al., "SoftTriple Loss: Deep Metric Learning Without Triplet
    Sampling" (ICCV 2019, arXiv 1909.05235), equations 7 and 12.

  Example:
    >>> import jax.numpy as jnp
    >>> from hier_jax import losses
    >>> z, labels = jnp.array([[1.0, 0.0]]), jnp.array([0])
    >>> centers = jnp.stack([jnp.eye(2), -jnp.eye(2)])  # [C, K, d]
    >>> options = {'scale': 1.0, 'margin': 0.0}
    >>> loss = losses.soft_triple(z, labels, centers, **options)
    >>> print(f'{float(loss):.3f}')  # log(1 + 1 / e), of the cosines 1 and 0.
    0.313
  """
  numerics.check_positive(scale=scale, temperature=temperature)
  numerics.check_finite(margin=margin, center_weight=center_weight)
  seen = _proxy.classified(
    z, labels, centers, where, num_classes, axis_name, centers=True
  )
  similarity = _center_similarity(seen.z, centers)
  share = jax.nn.softmax(similarity / temperature, 2)
  relaxed = jnp.sum(share * similarity, 2)
  logits = scale * _less(relaxed, margin, seen.own)
  loss = _cross_entropy(logits, seen)
  if isinstance(center_weight, (int, float)) and center_weight == 0:
    return loss
  return loss + center_weight * _spread(centers, seen)


def _spread(centers: jax.Array, seen: _proxy.Classified) -> jax.Array:
  """Mean over classes of sum_{i < j} |w_i - w_j| / (K (K - 1)), unit w."""
  classes, number, _ = centers.shape
  if number == 1:
    return jnp.zeros((), numerics.widened(centers).dtype)
  unit = numerics.unit(numerics.widened(centers))
  i, j = np.triu_indices(number, 1)
  sq = jnp.sum((unit[:, i] - unit[:, j]) ** 2, -1)
  # No slope between centers that have merged.
  length = numerics.sqrt(sq)
  if seen.real is None:
    return jnp.sum(length) / (classes * number * (number - 1))
  of_class = jnp.sum(length, 1) / (number * (number - 1))
  return _sharding.masked_mean(of_class, seen.real, seen.class_axis)
