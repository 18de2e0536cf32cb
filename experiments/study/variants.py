"""HIER*: HIER with switches, and the plain triplet loss on HIER's triplets.

With all switches off `hier_star` is `losses.hier` with all proxies as anchors:
the same triplets, the same picks. VARIANTS.md beside this file lists the
switches, their formulas and sources. Numbers may be traced, so that a search
over them compiles once; a switch that is the Python number 0 costs nothing. k
is traced where `k_max` is given.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.typing import ArrayLike

from experiments.study import ancestors, mined, proxies
from hier_jax import losses, mining, poincare

__all__ = ['hier_star', 'mined_triplet']


class _Costs(NamedTuple):
  """How nodes and proxies become costs; see `hier_star`."""

  c: ArrayLike | None
  order: ArrayLike
  gamma: ArrayLike
  cone: ArrayLike
  aperture: ArrayLike

  def of(self, x: jax.Array, p: jax.Array) -> jax.Array:
    """`[n, P]`, what each proxy costs each node."""
    cost = mined.distances(x, p, self.c)
    if not _off(self.order):
      r_x, r_p = (poincare.dist0(a, c=self.c) for a in (x, p))
      cost *= ancestors.order_factor(r_x, r_p, self.order, self.gamma)
    if not _off(self.cone):
      energy = ancestors.cone_energy(x, p, self.c, self.aperture)
      cost += self.cone * energy
    return cost


class _Picks(NamedTuple):
  """How ancestors are picked; see `hier_star`."""

  temperature: ArrayLike
  margin: ArrayLike
  estimator: str
  hinge: str
  barred: bool
  noisy_soft: bool
  balance: ArrayLike

  def loss(self, key, cost, triplets):
    """(loss, aux) of the triplets, by the library where it has these picks."""
    other = self.hinge != 'relu' or self.barred or self.noisy_soft
    if not other and _off(self.balance):
      return losses.lca(
        key,
        cost,
        triplets,
        temperature=self.temperature,
        margin=self.margin,
        estimator=self.estimator,
      )
    noise = None
    if self.noisy_soft or self.estimator == 'gumbel':
      shape = 2, triplets.weight.shape[0], cost.shape[1]
      noise = jax.random.gumbel(key, shape, cost.dtype)
    return ancestors.picked_loss(
      noise,
      cost,
      triplets,
      temperature=self.temperature,
      margin=self.margin,
      estimator='softmax' if self.noisy_soft else self.estimator,
      hinge=self.hinge,
      barred=self.barred,
      balance=self.balance,
    )


def _off(value: ArrayLike) -> bool:
  """Whether a switch is off for good: Python's 0, nothing traced."""
  return isinstance(value, (int, float)) and value == 0


def _largest_k(k: ArrayLike, k_max: int | None) -> int:
  if k_max is not None:
    return k_max
  if isinstance(k, int):
    return k
  raise ValueError(
    f'k is {k!r}, not a Python int: give k_max, the largest that it can be'
  )


def _scaled_gradient(x: jax.Array, weight: ArrayLike) -> jax.Array:
  """x, its gradient times a weight."""
  if isinstance(weight, (int, float)) and weight == 1:
    return x
  still = lax.stop_gradient(x)
  return still + weight * (x - still)


def _keys(key: jax.Array) -> list[tuple[jax.Array, jax.Array]]:
  """(key of the draw, key of the noise) of both terms, as `losses.hier` has."""
  pairs = []
  for _ in range(2):
    key, draw, noise = jax.random.split(key, 3)
    pairs.append((draw, noise))
  return pairs


def _check(z, labels):
  if jnp.ndim(z) != 2 or jnp.shape(labels) != jnp.shape(z)[:1]:
    raise ValueError(
      f'z has shape {jnp.shape(z)} and labels {jnp.shape(labels)}, expected'
      ' [b, d] and [b]'
    )


def _check_switches(c, order, cone):
  if c is None and not _off(order):
    raise ValueError(
      f'order is {order} with c=None: on the unit sphere all lie equally far'
      ' from the origin; give a curvature, or order=0'
    )
  flat = isinstance(c, (int, float)) and c == 0
  if (c is None or flat) and not _off(cone):
    raise ValueError(
      f'cone is {cone} with c={c}: entailment cones are of the ball; give a'
      ' curvature greater than 0, or cone=0'
    )


def _share(mask: jax.Array) -> jax.Array:
  return jnp.mean(mask.astype(jnp.float32))


def _monitor(name, points, count, stats):
  """Scalars of a term by the names of `losses.hier`."""
  radius = jnp.mean(jnp.linalg.norm(lax.stop_gradient(points), axis=-1))
  stats = stats | {
    'anchors': _share(count >= 2),
    'no_neighbors': _share(count == 0),
    'radius': radius,
  }
  return {f'{name}/{key}': value for key, value in stats.items()}


def _same_class(labels: jax.Array, triplets: mining.Triplets) -> jax.Array:
  """Share of positives of their anchor's class."""
  same = labels[triplets.anchor] == labels[triplets.positive]
  total = jnp.maximum(jnp.sum(triplets.weight), 1)
  return jnp.sum(triplets.weight * same) / total


def _data_triplets(key, nodes, b, k, k_max, per_anchor):
  """The triplets of the data, the same for every loss of this module."""
  return mined.mine(
    key,
    nodes.similarity,
    k,
    k_max=k_max,
    per_anchor=per_anchor,
    anchors=b,
    real=nodes.real,
  )


def hier_star(
  key: jax.Array,
  z: jax.Array,
  labels: jax.Array,
  hier_proxies: jax.Array,
  *,
  c: ArrayLike | None = 0.1,
  clip_radius: float | None = poincare.CLIP_RADIUS,
  temperature: ArrayLike = 0.1,
  margin: ArrayLike = 0.1,
  k: ArrayLike = 20,
  k_max: int | None = None,
  triplets_per_anchor: int = 50,
  estimator: str = 'gumbel',
  proxy_term: ArrayLike = 1.0,
  proxy_k: ArrayLike | None = None,
  order: ArrayLike = 0.0,
  gamma: ArrayLike = 0.25,
  cone: ArrayLike = 0.0,
  aperture: ArrayLike = 0.1,
  hinge: str = 'relu',
  barred: bool = False,
  noisy_soft: bool = False,
  balance: ArrayLike = 0.0,
  encoder_gradient: ArrayLike = 1.0,
  proxy_gradient: ArrayLike = 1.0,
  similarity: jax.Array | None = None,
  same_class: ArrayLike = 1.0,
  memory: losses.Memory | None = None,
) -> tuple[jax.Array, dict[str, jax.Array]]:
  """HIER with switches: `losses.hier` where all of them are off.

  All proxies are anchors, as by `proxy_anchors=P` of `losses.hier`, which draws
  some of more than 512. Of equal similarities, the same triplets are drawn with
  a key, whatever the other switches are. Picks are the same too where the
  library makes them; softplus, barred, noisy soft and balanced picks have other
  noise.

  Args:
    key: PRNG key.
    z: `[b, d]` embeddings, points of the ball (unit rows where c is None).
    labels: int `[b]`, the class of each row.
    hier_proxies: `[P, d]`, tangent vectors at 0 (`proxies.init_proxies`).
    c: curvature; 0 and None are the Euclidean and the cosine twin.
    clip_radius: the clip of the proxies.
    temperature: of the picks; may be traced.
    margin: of the hinges; may be traced.
    k: number of nearest neighbors, the row itself included; may be traced, up
      to `k_max`.
    k_max: the largest k, static, at most b, and at most P with a proxy term;
      None where k is a Python int.
    triplets_per_anchor: number of triplets of each anchor.
    estimator: 'gumbel', 'softmax' or 'argmax', see `losses.lca`.
    proxy_term: weight of the proxies' own triplets; may be traced.
    proxy_k: k of these triplets, up to `k_max`; None for k.
    order: weight of `ancestors.order_factor`; may be traced.
    gamma: its margin; may be traced.
    cone: weight of `ancestors.cone_energy`; may be traced.
    aperture: K of the cones; may be traced.
    hinge: 'relu' or 'softplus'.
    barred: whether the second pick is barred from the first.
    noisy_soft: whether picks are the softmax of noisy logits (gHHC), whatever
      the estimator.
    balance: how far Sinkhorn's iteration balances the picks, 0 to 1; may be
      traced.
    encoder_gradient: factor of the gradient by z; may be traced.
    proxy_gradient: factor of the gradient by the proxies; may be traced.
    similarity: `[n, n]` that the data is mined by, None for exp(-d) of z and
      the memory; see `mined.nodes_of`.
    same_class: what the similarity of a pair of one class has more; may be
      traced.
    memory: `losses.Memory` of m rows, more nodes, n = b + m; None for none.

  Returns:
    (loss, aux): the loss, a scalar; aux is a dict of scalars for monitoring
    without gradient, by the names of `losses.hier`. NaN in z, the proxies or
    the similarity makes the loss NaN.

  Raises:
    ValueError: for an unknown option, wrong shapes, k_max out of range, or an
      order or a cone that the geometry does not have.

  References:
    Kim, Jeong and Kwak, "HIER" (CVPR 2023, arXiv 2212.14258); the others are in
    this module's table and in `ancestors`, `mined`.

  Example:
    >>> import jax
    >>> from experiments.study import proxies, variants
    >>> key, labels = jax.random.key(0), jax.numpy.arange(8) % 2
    >>> z = 0.1 * jax.random.normal(key, (8, 4))
    >>> v = proxies.init_proxies(key, 16, 4, init_scale=0.1)
    >>> loss, aux = variants.hier_star(
    ...   key, z, labels, v, k=4, order=1.0, proxy_term=0.0
    ... )
    >>> print(loss.shape, bool(loss > 0), 'proxy/radius' in aux)
    () True False
  """
  _check(z, labels)
  _check_switches(c, order, cone)
  largest = _largest_k(k, k_max)
  costs = _Costs(c, order, gamma, cone, aperture)
  picks = _Picks(
    temperature, margin, estimator, hinge, barred, noisy_soft, balance
  )
  nodes = mined.nodes_of(
    z,
    labels,
    c=c,
    similarity=similarity,
    same_class=same_class,
    memory=memory,
  )
  rho = proxies.embedded(hier_proxies, c=c, clip_radius=clip_radius)
  (draw, noise), of_proxies = _keys(key)
  triplets, count = _data_triplets(
    draw, nodes, z.shape[0], k, largest, triplets_per_anchor
  )
  points = _scaled_gradient(nodes.points, encoder_gradient)
  anchors = _scaled_gradient(rho, proxy_gradient)
  loss, stats = picks.loss(noise, costs.of(points, anchors), triplets)
  aux = _monitor('data', nodes.points[: z.shape[0]], count, stats)
  aux['data/same_class'] = _same_class(nodes.labels, triplets)
  if not _off(proxy_term):
    among, more = _proxy_term(
      of_proxies,
      anchors,
      costs,
      picks,
      (k if proxy_k is None else proxy_k, largest, triplets_per_anchor),
    )
    loss, aux = loss + proxy_term * among, aux | more
  return mined.poisoned(loss, z, rho, similarity), aux


def _proxy_term(keys, rho, costs, picks, mining_options):
  """The proxies' own triplets: (loss, aux)."""
  k, k_max, per_anchor = mining_options
  triplets, count = mined.mine(
    keys[0],
    mined.similarity_of(rho, costs.c),
    k,
    k_max=k_max,
    per_anchor=per_anchor,
    anchors=rho.shape[0],
  )
  loss, stats = picks.loss(keys[1], costs.of(rho, rho), triplets)
  return loss, _monitor('proxy', rho, count, stats)


def mined_triplet(
  key: jax.Array,
  z: jax.Array,
  labels: jax.Array,
  *,
  c: ArrayLike | None = 0.1,
  margin: ArrayLike = 0.1,
  k: ArrayLike = 20,
  k_max: int | None = None,
  triplets_per_anchor: int = 50,
  similarity: jax.Array | None = None,
  same_class: ArrayLike = 1.0,
  memory: losses.Memory | None = None,
) -> tuple[jax.Array, dict[str, jax.Array]]:
  """The control: [d_ij - d_ik + margin]+ on the triplets of `hier_star`.

  With the same key and options they are the triplets of its data term; there
  are no hierarchical proxies. The triplet loss is Schroff, Kalenichenko and
  Philbin's, "FaceNet" (CVPR 2015, arXiv 1503.03832), equation 3, of distances.

  Args:
    key: PRNG key.
    z: `[b, d]` embeddings, points of the ball (unit rows where c is None).
    labels: int `[b]`, the class of each row.
    c: curvature, see `mined.distances`.
    margin: how much farther the negative should be; may be traced.
    k: see `hier_star`.
    k_max: see `hier_star`.
    triplets_per_anchor: number of triplets of each anchor.
    similarity: see `hier_star`.
    same_class: see `hier_star`.
    memory: see `hier_star`.

  Returns:
    (loss, aux): the mean over triplets, those at 0 included; aux is a dict of
    scalars: 'data/active', the share of triplets that pay, 'data/anchors',
    'data/no_neighbors', 'data/radius', 'data/same_class'.

  Raises:
    ValueError: for wrong shapes, or k_max out of range.

  Example:
    >>> import jax
    >>> from experiments.study import variants
    >>> z = 0.1 * jax.random.normal(jax.random.key(0), (8, 4))
    >>> loss, aux = variants.mined_triplet(
    ...   jax.random.key(1), z, jax.numpy.arange(8) % 2, k=4
    ... )
    >>> print(loss.shape, float(aux['data/same_class']))
    () 1.0
  """
  _check(z, labels)
  nodes = mined.nodes_of(
    z,
    labels,
    c=c,
    similarity=similarity,
    same_class=same_class,
    memory=memory,
  )
  (draw, _), _ = _keys(key)
  b = z.shape[0]
  triplets, count = _data_triplets(
    draw, nodes, b, k, _largest_k(k, k_max), triplets_per_anchor
  )
  distance = mined.distances(nodes.points[:b], nodes.points, c)
  near = distance[triplets.anchor, triplets.positive]
  far = distance[triplets.anchor, triplets.negative]
  excess = jax.nn.relu(near - far + margin)
  total = jnp.maximum(jnp.sum(triplets.weight), 1)
  loss = jnp.sum(triplets.weight * excess) / total
  active = jnp.sum(triplets.weight * (excess > 0)) / total
  aux = _monitor('data', nodes.points[:b], count, {'active': active})
  aux['data/same_class'] = _same_class(nodes.labels, triplets)
  return mined.poisoned(loss, z, similarity), aux
