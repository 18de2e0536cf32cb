"""The nodes whose triplets HIER draws, their triplets and their distances."""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from hier_jax import mining
from hier_jax.losses import _noise, _sharding

__all__ = [
  'Drawn',
  'Mined',
  'Term',
  'distances',
  'draw',
  'mined_terms',
  'places',
  'terms',
]

places = functools.partial(jnp.arange, dtype=jnp.int32)


class Term(NamedTuple):
  """Nodes whose triplets are drawn.

  Attributes:
    nodes: `[n, d]`.
    classes: int `[n]`, or None.
    similarity: `[m, n]`, similarities of this device's nodes to all, without
      a gradient; None where they are mined already.
    first: index of the first of this device's nodes.
  """

  nodes: jax.Array
  classes: jax.Array | None
  similarity: jax.Array | None
  first: jax.Array | int


def _near(dist):
  return jnp.exp(-lax.stop_gradient(dist))


def _data(z, labels, axis_name):
  """All devices' embeddings and labels, and pairs of a class `[b, B]`."""
  nodes, classes = (_sharding.gather(a, axis_name) for a in (z, labels))
  return nodes, classes, (labels[:, None] == classes[None]).astype(z.dtype)


def _data_term(z, labels, rho, distance, few, axis_name):
  """The data alone, see `terms`; and their distances `[B, P]` or None."""
  rank, devices = _sharding.position(axis_name)
  nodes, classes, same = _data(z, labels, axis_name)
  others, dist = lax.stop_gradient(nodes), None
  if devices == 1:
    columns = jnp.concatenate([others, rho])
    dist = distance(nodes, columns, moving=others.shape[0])
    among, dist = jnp.split(dist, [others.shape[0]], axis=1)
  else:
    among = distance(lax.stop_gradient(z), others)
    if not few(z.shape[0], nodes.shape[0]):
      dist = distance(nodes, rho)
  first = rank * z.shape[0]
  return Term(nodes, classes, _near(among) + same, first), dist


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
  nodes, classes, same = _data(z, labels, axis_name)
  own, share = places(rho.shape[0]), -(-rho.shape[0] // devices)
  if devices > 1:
    own = rank * share + places(share)
  mine = lambda a: jnp.take(a, own, axis=0, mode='clip')
  still = lambda *points: map(lax.stop_gradient, points)
  named = few(z.shape[0], nodes.shape[0]) or few(share, rho.shape[0])
  everyone, dist = jnp.concatenate([nodes, rho]), None
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
    data = len(nodes)
    dist = distance(everyone, everyone, moving=data, within=True)
    among_data, among = dist[:data, :data], dist[data:, data:]
    dist = dist[:, data:]
  found = {
    'data': Term(nodes, classes, _near(among_data) + same, rank * z.shape[0]),
    'proxy': Term(rho, None, _near(among), rank * share),
  }
  return found, dist


class Mined(NamedTuple):
  """Neighbors of a device's m nodes, as rows.

  Attributes:
    rows: int32 `[m]`, the row of each node itself.
    neighbors: int32 `[m, k]`, ascending, as `mining.reciprocal_neighbors` has
      them.
    number: int32 `[m]`, how many each node has.
    total: number of rows, from which negatives are drawn.
  """

  rows: jax.Array
  neighbors: jax.Array
  number: jax.Array
  total: int


def _mine(term, k, axis_name):
  """The reciprocal neighbors of a term's nodes, whose rows are the nodes."""
  neighbors, count = mining.reciprocal_neighbors(
    term.similarity, k, first=term.first, axis_name=axis_name
  )
  rows = term.first + places(count.size)
  return Mined(rows, neighbors, count, term.nodes.shape[0])


def _mine_all(terms, k):
  """`_mine` of all terms at once, of one device."""
  found = mining.neighbors_in_sets([t.similarity for t in terms], k)
  sizes = [len(term.nodes) for term in terms]
  return [Mined(places(n), *f, n) for n, f in zip(sizes, found, strict=True)]


def mined_terms(z, labels, rho, distance, few, k, axis_name, some=None):
  """The terms and their neighbors.

  Args:
    z: see `terms`, as what follows.
    labels: see `terms`.
    rho: see `terms`.
    distance: see `terms`.
    few: see `terms`.
    k: number of nearest neighbors that make reciprocal ones.
    axis_name: see `terms`.
    some: `_hier_drawn.Drawn` where not all proxies are anchors.

  Returns:
    name -> `Term`; `Mined` of each; and distances as `terms` returns them, of
    the data alone where some proxies are drawn.
  """
  if some is None:
    found, dist = terms(z, labels, rho, distance, few, axis_name)
    if _sharding.position(axis_name)[1] == 1:
      return found, _mine_all(list(found.values()), k), dist
    return found, [_mine(t, k, axis_name) for t in found.values()], dist
  data, dist = _data_term(z, labels, rho, distance, few, axis_name)
  mined = [_mine(data, k, axis_name), some.mined]
  return {'data': data, 'proxy': some.term}, mined, dist


class Drawn(NamedTuple):
  """A term's triplets: its m nodes of this device draw t each.

  Attributes:
    term: its n nodes.
    neighbors: int32 `[m, k]`, as they were mined.
    number: int32 `[m]` of neighbors that are real.
    triplets: `Triplets` of m t places, rows of the nodes.
  """

  term: Term
  neighbors: jax.Array
  number: jax.Array
  triplets: mining.Triplets


def draw(keys, terms, mined, per_anchor, self_negatives):
  """The triplets of all terms, drawn at once: they compile once.

  Args:
    keys: PRNG key of each term.
    terms: `Term`s.
    mined: `Mined` of each term.
    per_anchor: number of triplets of an anchor.
    self_negatives: see `mining.sample_triplets`.

  Returns:
    `Drawn` of each term.
  """
  sizes = [found.number.size for found in mined]
  rows, neighbors, count = (
    jnp.concatenate(a) for a in list(zip(*mined, strict=True))[:3]
  )
  triplets = mining.draw_triplets(
    jax.vmap(jax.random.fold_in)(_noise.repeated(keys, sizes), rows),
    rows,
    neighbors,
    count,
    np.repeat([found.total for found in mined], sizes),
    per_anchor,
    self_negatives,
  )
  drawn, first = [], 0
  for term, found in zip(terms, mined, strict=True):
    share = slice(first, first + found.number.size * per_anchor)
    own = mining.Triplets(*(a[share] for a in triplets))
    drawn.append(Drawn(term, found.neighbors, found.number, own))
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


def distances(drawn, rho, distance, dist, some=None):
  """Distances of the nodes that triplets name to the proxies.

  Args:
    drawn: of each term.
    rho: `[P, d]`.
    distance: of all pairs.
    dist: as `mined_terms` returns it.
    some: as `mined_terms` takes it.

  Returns:
    for each term, the index `[r]` of these nodes, and the triplets as places in
    it; and the distances `[R, P]` of the nodes of all terms.
  """
  if some is not None:
    named, dist = distances(drawn[:1], rho, distance, dist)
    named.append((some.proxies, drawn[1].triplets))
    return named, jnp.concatenate([dist, some.dist])
  if dist is not None:
    return [(places(d.term.nodes.shape[0]), d.triplets) for d in drawn], dist
  named = [_named(d) for d in drawn]
  nodes = [
    jnp.take(d.term.nodes, index, axis=0, mode='clip')
    for d, (index, _) in zip(drawn, named, strict=True)
  ]
  return named, distance(jnp.concatenate(nodes), rho)
