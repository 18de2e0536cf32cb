"""The nodes whose triplets HIER draws, their triplets and their distances."""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from hier_jax import mining
from hier_jax.losses import _sharding

__all__ = ['Drawn', 'Term', 'distances', 'draw', 'places', 'terms']

places = functools.partial(jnp.arange, dtype=jnp.int32)


class Term(NamedTuple):
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


def terms(z, labels, rho, distance, few, axis_name):
  """The nodes whose triplets are drawn.

  Args:
    z: `[b, d]`, this device's embeddings.
    labels: int `[b]`.
    rho: `[P, d]`, the proxies' points.
    distance: of all pairs.
    few: (m, n) -> whether m nodes' triplets name few of all n.
    axis_name: mapped axis over whose devices the batch is spread.

  Returns:
    name -> `Term`; and the distances of all nodes, the data before the
    proxies, to the proxies, or None where triplets name few of them.
  """
  rank, devices = _sharding.position(axis_name)
  nodes, classes = (_sharding.gather(a, axis_name) for a in (z, labels))
  same = (labels[:, None] == classes[None]).astype(z.dtype)
  own, share = places(rho.shape[0]), -(-rho.shape[0] // devices)
  if devices > 1:
    own = rank * share + places(share)
  mine = lambda a: jnp.take(a, own, axis=0, mode='clip')
  near = lambda dist: jnp.exp(-lax.stop_gradient(dist))
  still = lambda *points: map(lax.stop_gradient, points)
  named = few(z.shape[0], nodes.shape[0]) or few(share, rho.shape[0])
  everyone, proxies, dist = jnp.concatenate([nodes, rho]), rho.shape[0], None
  if named:
    among = distance(*still(mine(rho), rho))
  elif devices > 1:
    dist = distance(everyone, rho)
    among = mine(dist[nodes.shape[0] :])
  if named or devices > 1:
    among_data = distance(*still(z, nodes))
  else:
    # Those of the proxies to the data are not used, but one program compiles in
    # half the time of two.
    columns = jnp.concatenate([rho, lax.stop_gradient(nodes)])
    dist = distance(everyone, columns, moving=proxies)
    among = dist[len(nodes) :, :proxies]
    among_data = dist[: len(nodes), proxies:]
    dist = dist[:, :proxies]
  found = {
    'data': Term(nodes, classes, near(among_data) + same, rank * z.shape[0]),
    'proxy': Term(rho, None, near(among), rank * share),
  }
  return found, dist


class Drawn(NamedTuple):
  """A term's triplets: its m nodes of this device draw t each.

  Attributes:
    term: its n nodes.
    neighbors: int32 `[m, k]` of `mining.reciprocal_neighbors`.
    number: int32 `[m]` of neighbors that are real.
    triplets: `Triplets` of m t places, rows of the nodes.
  """

  term: Term
  neighbors: jax.Array
  number: jax.Array
  triplets: mining.Triplets


def draw(keys, terms, k, axis_name, per_anchor, self_negatives):
  """The triplets of all terms, drawn at once: they compile once."""
  mined = [
    mining.reciprocal_neighbors(
      term.similarity, k, first=term.first, axis_name=axis_name
    )
    for term in terms
  ]
  sizes = [count.size for _, count in mined]
  rows = jnp.concatenate(
    [t.first + places(m) for t, m in zip(terms, sizes, strict=True)]
  )
  keys = jnp.stack(keys)[np.repeat(np.arange(len(sizes)), sizes)]
  neighbors, count = map(jnp.concatenate, zip(*mined, strict=True))
  triplets = mining.draw_triplets(
    jax.vmap(jax.random.fold_in)(keys, rows),
    rows,
    neighbors,
    count,
    np.repeat([term.nodes.shape[0] for term in terms], sizes),
    per_anchor,
    self_negatives,
  )
  drawn, first = [], 0
  for term, (near, number) in zip(terms, mined, strict=True):
    share = slice(first, first + number.size * per_anchor)
    own = mining.Triplets(*(a[share] for a in triplets))
    drawn.append(Drawn(term, near, number, own))
    first = share.stop
  return drawn


def _named(drawn):
  """The nodes that a device's triplets name: they alone have a loss.

  Returns:
    index int32 `[r]` of nodes, and the triplets as rows of them. They are the
    device's own, the table of neighbors and the negatives, r = m (1 + k + t);
    an index from n on is padding.
  """
  term, neighbors, _, triplets = drawn
  m, k = neighbors.shape
  place = places(triplets.weight.shape[0])
  own = place // (place.size // m)
  # The table is ascending.
  before = neighbors[own] < triplets.positive[:, None]
  column = jnp.sum(before, 1, dtype=jnp.int32)
  index = jnp.concatenate(
    [term.first + places(m), neighbors.ravel(), triplets.negative]
  )
  return index, triplets._replace(
    anchor=own,
    positive=m + own * k + column,
    negative=m * (1 + k) + place,
  )


def distances(drawn, rho, distance, dist):
  """Distances of the nodes that triplets name to the proxies.

  Args:
    drawn: of each term.
    rho: `[P, d]`.
    distance: of all pairs.
    dist: as `terms` returns it.

  Returns:
    for each term, the index `[r]` of these nodes, and the triplets as places in
    it; and the distances `[R, P]` of the nodes of all terms.
  """
  if dist is not None:
    return [(places(d.term.nodes.shape[0]), d.triplets) for d in drawn], dist
  named = [_named(d) for d in drawn]
  nodes = [
    jnp.take(d.term.nodes, index, axis=0, mode='clip')
    for d, (index, _) in zip(drawn, named, strict=True)
  ]
  return named, distance(jnp.concatenate(nodes), rho)
