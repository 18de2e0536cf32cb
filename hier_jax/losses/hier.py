"""HIER: hierarchical proxies as lowest common ancestors (LCA).

Kim, Jeong and Kwak, "HIER: Metric Learning Beyond Class Labels via Hierarchical
Regularization" (CVPR 2023, arXiv 2212.14258). A metric-learning loss is
regularised by free points of the Poincare ball, each drawn towards the lowest
common ancestor of some data or of some other such points.
"""

import functools
from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp
from jax import lax

from hier_jax import poincare
from hier_jax import triplets as triplets_lib
from hier_jax.losses import sharding
from hier_jax.losses.lca import lca_loss
from hier_jax.poincare import numerics

__all__ = ['hier', 'init_hierarchical_proxies']

# Beyond every distance: a proxy there is never picked.
_FAR = 1e6


def init_hierarchical_proxies(key, num_proxies, dim, *, clip_radius=2.3):
  """Float32 tangent vectors `[P, d]`, norms near 0.9 of the clip radius."""
  scale = 0.9 * clip_radius / dim**0.5
  return scale * jax.random.normal(key, (num_proxies, dim), jnp.float32)


def _is_sphere(c):
  return isinstance(c, (int, float)) and c == 0


def _geometry(c, clip_radius):
  """How tangent vectors become nodes, and the distance between nodes."""
  if _is_sphere(c):
    cosine = functools.partial(jnp.matmul, precision=lax.Precision.HIGHEST)
    return numerics.unit, lambda x, y: 1 - cosine(x, y.T)
  embed = functools.partial(poincare.to_ball, c=c, clip_radius=clip_radius)
  return embed, functools.partial(poincare.dist_matrix, c=c)


class _Term(NamedTuple):
  """Nodes whose triplets are drawn.

  Attributes:
    nodes: `[n, d]`.
    classes: int `[n]`, or None.
    similarity: `[m, n]`, similarities of this device's nodes to all, without
      a gradient.
    first: index of the first of this device's nodes.
  """

  nodes: jax.Array
  classes: jax.Array | None
  similarity: jax.Array
  first: jax.Array | int


def _terms(z, labels, rho, distance, axis_name):
  rank, devices = sharding.position(axis_name)
  nodes, classes = (sharding.gather(a, axis_name) for a in (z, labels))
  same = (labels[:, None] == classes[None]).astype(z.dtype)
  near = lambda *pair: jnp.exp(-distance(*map(lax.stop_gradient, pair)))
  data = _Term(nodes, classes, near(z, nodes) + same, rank * z.shape[0])
  own, share = rho, -(-rho.shape[0] // devices)
  if devices > 1:
    index = rank * share + jnp.arange(share, dtype=jnp.int32)
    own = jnp.take(rho, index, axis=0, mode='clip')
  return {
    'data': data,
    'proxy': _Term(rho, None, near(own, rho), rank * share),
  }


def _named(term, triplets, neighbors):
  """The nodes that a device's triplets name: they alone have a loss.

  Args:
    term: `_Term` of n nodes, m of them this device's.
    triplets: `Triplets`, t of each of these.
    neighbors: int32 `[m, k]` of `triplets.reciprocal_neighbors`.

  Returns:
    index int32 `[r]` of nodes, the nodes `[r, d]`, and the triplets as rows of
    them. They are the device's own, the table of neighbours and the negatives,
    r = m (1 + k + t); an index from n on is padding. Where that is not fewer
    than n, they are all nodes.
  """
  (n, _), (m, k) = term.nodes.shape, neighbors.shape
  place = jnp.arange(triplets.weight.shape[0], dtype=jnp.int32)
  if m * (1 + k) + place.size >= n:
    return jnp.arange(n, dtype=jnp.int32), term.nodes, triplets
  own = place // (place.size // m)
  # The table is ascending.
  before = neighbors[own] < triplets.positive[:, None]
  column = jnp.sum(before, 1, dtype=jnp.int32)
  index = jnp.concatenate(
    [
      term.first + jnp.arange(m, dtype=jnp.int32),
      neighbors.ravel(),
      triplets.negative,
    ]
  )
  return (
    index,
    jnp.take(term.nodes, index, axis=0, mode='clip'),
    triplets._replace(
      anchor=own,
      positive=m + own * k + column,
      negative=m * (1 + k) + place,
    ),
  )


def _monitor(term, triplets, count, c, clip_radius, axis_name):
  """Scalars of a term; `count` reciprocal neighbours of each `[m]`."""
  n, m = term.nodes.shape[0], count.shape[0]
  index = term.first + jnp.arange(m, dtype=jnp.int32)
  share = lambda values, where: sharding.masked_mean(
    values.astype(term.nodes.dtype), where, axis_name
  )
  mean = functools.partial(share, where=index < n)
  own = jnp.take(lax.stop_gradient(term.nodes), index, axis=0, mode='clip')
  radius = jnp.linalg.norm(own, axis=-1)
  stats = {
    'anchors': mean(triplets.weight.reshape(m, -1)[:, 0]),
    'no_neighbors': mean(count == 0),
    'radius': mean(radius),
  }
  if clip_radius is not None and not _is_sphere(c):
    # On the clip sphere up to rounding, that of bfloat16 included.
    root = jnp.sqrt(jnp.asarray(c, radius.dtype))
    edge = jnp.tanh(root * (1 - 2**-7) * clip_radius) / root
    stats['clipped'] = mean(radius > edge)
  if term.classes is not None:
    alike = term.classes[triplets.anchor] == term.classes[triplets.positive]
    stats['same_class'] = share(alike, triplets.weight > 0)
  return stats


def hier(
  key,
  z,
  labels,
  proxies,
  *,
  c=0.1,
  clip_radius=2.3,
  tau=0.1,
  margin=0.1,
  k=20,
  triplets_per_anchor=50,
  estimator='gumbel',
  shared_noise=False,
  self_negatives=False,
  exclude_self_lca=False,
  normalise_by='all',
  axis_name=None,
):
  """The HIER regulariser: a data term plus a proxy term.

  Triplets of the batch and triplets of the proxies themselves are drawn from
  reciprocal nearest neighbours (`triplets.sample_triplets`), and each pays
  `lca_loss`.

  Args:
    key: PRNG key; the same on all devices.
    z: `[b, d]` embeddings, points of the ball (rows of length 1 where c = 0).
    labels: int `[b]`.
    proxies: `[P, d]` hierarchical proxies, tangent vectors at 0
      (`init_hierarchical_proxies`).
    c: curvature; the number 0 for cosine distances on the sphere.
    clip_radius: the clip of the proxies, as in the embedding head; None for no
      clip.
    tau: temperature of the LCA picks; may be traced, to anneal it.
    margin: hinge margin; may be traced.
    k: nearest neighbours that make reciprocal ones, the row itself included.
    triplets_per_anchor: triplets each anchor draws.
    estimator: 'gumbel', 'gumbel_rao', 'softmax' or 'argmax', see `lca_loss`.
    shared_noise: see `lca_loss`.
    self_negatives: see `triplets.sample_triplets`.
    exclude_self_lca: whether a proxy of a triplet may not be picked as its own
      ancestor; the authors' program allows it.
    normalise_by: see `lca_loss`.
    axis_name: mapped axis over whose devices the batch is spread. The rows are
      gathered; each device mines its own rows and its share of the proxies, and
      works on their triplets. The loss is the whole batch's on every device,
      and the mean over devices of its gradients (`lax.pmean`) is the whole
      batch's gradient. A device computes distances of its own rows to all, and
      to the proxies those of the rows that its triplets name.

  Returns:
    loss, a scalar; and a dict of scalars for monitoring, under 'data/'
    and 'proxy/' those of `lca_loss` besides 'anchors', the share of nodes that
    are anchors, 'no_neighbors', the share without any reciprocal neighbour,
    'radius', the mean norm of the nodes, and 'clipped', the share of nodes on
    the clip sphere; and 'data/same_class', the share of positives of their
    anchor's class.

  Raises:
    ValueError: for an unknown option, k beyond the batch or the proxies, or
      `exclude_self_lca` of fewer than four proxies.
  """
  chex.assert_rank([z, labels, proxies], [2, 1, 2])
  chex.assert_equal_shape_suffix([z, proxies], 1)
  chex.assert_equal_shape_prefix([z, labels], 1)
  if exclude_self_lca and proxies.shape[0] < 4:
    raise ValueError(
      f'exclude_self_lca leaves no ancestor among {proxies.shape[0]} proxies:'
      ' at least 4 are needed'
    )
  loss = 0.0
  aux: dict[str, jax.Array] = {}
  z, labels = numerics.widened(z), jnp.asarray(labels)
  embed, distance = _geometry(c, clip_radius)
  rho = embed(numerics.widened(proxies))
  terms = _terms(z, labels, rho, distance, axis_name)
  for name, term in terms.items():
    key, key_draw, key_pick = jax.random.split(key, 3)
    neighbors, count = triplets_lib.reciprocal_neighbors(
      term.similarity, k, first=term.first, axis_name=axis_name
    )
    triplets = triplets_lib.sample_triplets(
      key_draw,
      neighbors,
      count,
      term.nodes.shape[0],
      per_anchor=triplets_per_anchor,
      first=term.first,
      self_negatives=self_negatives,
    )
    index, named, among = _named(term, triplets, neighbors)
    dist = distance(named, rho)
    if exclude_self_lca and name == 'proxy':
      itself = index[:, None] == jnp.arange(rho.shape[0], dtype=jnp.int32)[None]
      dist = jnp.where(itself, _FAR, dist)
    value, picks = lca_loss(
      key_pick,
      dist,
      among,
      tau=tau,
      margin=margin,
      estimator=estimator,
      shared_noise=shared_noise,
      normalise_by=normalise_by,
      axis_name=axis_name,
    )
    loss += value
    stats = picks | _monitor(term, triplets, count, c, clip_radius, axis_name)
    aux |= {f'{name}/{key}': stat for key, stat in stats.items()}
  return loss, jax.tree.map(lax.stop_gradient, aux)
