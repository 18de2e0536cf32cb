"""HIER: hierarchical proxies as lowest common ancestors (LCA).

Kim, Jeong and Kwak, "HIER: Metric Learning Beyond Class Labels via Hierarchical
Regularization" (CVPR 2023, arXiv 2212.14258). A metric-learning loss is
regularized by free points of the Poincare ball, each drawn towards the lowest
common ancestor of some data or of some other such points.
"""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
from jax import lax
from jax.typing import ArrayLike
from jaxtyping import Array, Float, Integer, PRNGKeyArray, Real

from hier_jax import mining, numerics, poincare
from hier_jax.losses import (
  _checks,
  _hier_drawn,
  _hier_triplets,
  _sharding,
)
from hier_jax.losses._lca import lca_losses
from hier_jax.losses._threefry import unrolled
from hier_jax.poincare import _arguments
from hier_jax.poincare._distances import dist_matrix_of

__all__ = ['hier', 'init_hier_proxies']

# Beyond every distance: a proxy there is never picked.
_FAR = 1e6


def init_hier_proxies(
  key: PRNGKeyArray,
  num_proxies: int,
  dim: int,
  *,
  clip_radius: float | None = poincare.CLIP_RADIUS,
) -> Float[Array, 'P d']:
  """Float32 tangent vectors `[P, d]`, norms near 0.9 of the clip radius.

  Args:
    key: PRNG key.
    num_proxies: number P of proxies.
    dim: size d of the embeddings.
    clip_radius: the clip of the proxies in `hier`; None, for no clip, makes
      them as long as the default clip does.

  Returns:
    `[P, d]`.

  Example:
    >>> import jax
    >>> from hier_jax import losses
    >>> proxies = losses.init_hier_proxies(jax.random.key(0), 512, 128)
    >>> print(f'{float(jax.numpy.linalg.norm(proxies, axis=1).mean()):.1f}')
    2.1
  """
  key = numerics.as_key(key)
  numerics.check_positive(clip_radius=clip_radius)
  num_proxies = mining.integer('num_proxies', num_proxies)
  dim = mining.integer('dim', dim)
  radius = poincare.CLIP_RADIUS if clip_radius is None else clip_radius
  scale = 0.9 * radius / dim**0.5
  return scale * jax.random.normal(key, (num_proxies, dim), jnp.float32)


def _distance(x, y, c, **options):
  """Of all pairs; see `dist_matrix_of`."""
  if c is None:
    return 1 - jnp.matmul(x, y.T, precision=lax.Precision.HIGHEST)
  return dist_matrix_of(x, y, c=c, **options)


def _geometry(c, clip_radius):
  """How tangent vectors become nodes, and the distance between nodes."""
  distance = functools.partial(_distance, c=c)
  if c is None:
    return numerics.unit, distance
  embed = functools.partial(poincare.to_ball, c=c, clip_radius=clip_radius)
  return embed, distance


def _monitor(drawn, c, clip_radius, axis_name):
  """Means over the nodes of each term, of all at once; scalars.

  Args:
    drawn: name -> `_hier_triplets.Drawn`.
    c: curvature.
    clip_radius: of the proxies.
    axis_name: mapped axis over whose devices the batch is spread.
  """
  own, real, anchor = [], [], []
  for term, _, count, triplets in drawn.values():
    share, nodes = count.shape[0], term.nodes
    index = term.first + _hier_triplets.places(share)
    if share < nodes.shape[0]:
      nodes = jnp.take(nodes, index, axis=0, mode='clip')
    own.append(nodes)
    real.append(index < term.nodes.shape[0])
    anchor.append(triplets.weight.reshape(count.shape[0], -1)[:, 0])
  count = jnp.concatenate([d.number for d in drawn.values()])
  radius = jnp.linalg.norm(lax.stop_gradient(jnp.concatenate(own)), axis=-1)
  shares = {
    'anchors': jnp.concatenate(anchor),
    'no_neighbors': count == 0,
    'radius': radius,
  }
  if clip_radius is not None and c is not None:
    # On the clip sphere up to rounding, that of bfloat16 included.
    # The least root stands for 0, where the edge is the clip radius itself.
    root = jnp.maximum(jnp.sqrt(jnp.asarray(c, radius.dtype)), 1e-9)
    edge = jnp.tanh(root * (1 - 2**-7) * clip_radius) / root
    shares['clipped'] = radius > edge
  # Sums as products of matrices: each other one is kernels of its own on a CPU.
  product = functools.partial(jnp.matmul, precision=lax.Precision.HIGHEST)
  where = jax.scipy.linalg.block_diag(*real).astype(radius.dtype)
  (term, _, number, triplets), _ = drawn.values()
  alike = term.classes[triplets.anchor] == term.classes[triplets.positive]
  # Triplets of an anchor count alike.
  alike = jnp.mean(alike.reshape(number.shape[0], -1), 1, dtype=radius.dtype)
  alike = anchor[0].astype(radius.dtype) * alike
  alike = jnp.pad(alike, (0, radius.shape[0] - alike.shape[0]))
  values = [a.astype(radius.dtype) for a in shares.values()]
  rows = jnp.stack([*values, alike, jnp.ones_like(radius)])
  sums = _sharding.total(product(rows, where.T), axis_name)
  # The last divides by the number of anchors, the others by the nodes'.
  divisors = jnp.concatenate(
    [jnp.broadcast_to(sums[-1:], (len(shares), 2)), sums[:1]]
  )
  *means, same = sums[:-1] / jnp.maximum(divisors, 1)
  stats = {
    f'{name}/{share}': mean[i]
    for i, name in enumerate(drawn)
    for mean, share in zip(means, shares, strict=True)
  }
  stats['data/same_class'] = same[0]
  return stats


def hier(
  key: PRNGKeyArray,
  z: Float[Array, 'b d'],
  labels: Integer[Array, ' b'],
  hier_proxies: Float[Array, 'P d'],
  *,
  c: Real[ArrayLike, ''] | None = 0.1,
  clip_radius: float | None = poincare.CLIP_RADIUS,
  temperature: Real[ArrayLike, ''] = 0.1,
  margin: Real[ArrayLike, ''] = 0.1,
  k: int = 20,
  triplets_per_anchor: int = 50,
  proxy_anchors: int | None = None,
  estimator: str = 'gumbel',
  shared_noise: bool = False,
  self_negatives: bool = False,
  exclude_self_lca: bool = False,
  normalize_by: str = 'all',
  axis_name: str | None = None,
) -> tuple[Float[Array, ''], dict[str, Real[Array, '']]]:
  """The HIER regularizer: a data term plus a proxy term.

  Triplets of the batch and triplets of the proxies themselves are drawn from
  reciprocal nearest neighbors (`mining.sample_triplets`). `lca` is the loss of
  each triplet.

  Use it for the hierarchy that the proxies learn. We could not show that it
  improves the retrieval of a tuned metric loss: compare with that loss alone.
  The section on its limits in docs/hier.md has the evidence.

  If there are many proxies, N of them are drawn as anchors, without replacement
  and the same ones on all devices. Their neighbors are still the exact ones
  among all proxies; their negatives come from N proxies of another draw, which
  may hold some of the anchors. Loss and gradient therefore have the same
  expectation as with all proxies as anchors: every anchor is equally likely to
  be drawn, and so is every negative. This holds for `normalize_by` 'all', which
  divides by the number of triplets drawn, provided that there is one: with A
  possible anchors, none is drawn with probability C(P - A, N) / C(P, N) < (1 -
  A / P)^N, and then the proxy term is 0. 'valid' divides by a number that also
  depends on the picks, so its expectation is off by O(1 / N), as for any ratio.

  Args:
    key: PRNG key; the same on all devices.
    z: `[b, d]` embeddings, points of the ball (rows of length 1 where c is
      None).
    labels: int `[b]`, the class of each row.
    hier_proxies: `[P, d]` hierarchical proxies, tangent vectors at 0
      (`init_hier_proxies`).
    c: curvature of the ball; 0 for Euclidean distances, None for cosine
      distances on the unit sphere.
    clip_radius: length to which the proxies are clipped, as in the embedding
      head; None for no clip. Unused where c is None.
    temperature: temperature of the LCA picks (tau of the paper); may be traced,
      to anneal it.
    margin: margin of the hinges; may be traced.
    k: number of nearest neighbors, the row itself included, among which
      reciprocal ones are found.
    triplets_per_anchor: number of triplets that each anchor draws.
    proxy_anchors: number N of proxies drawn as anchors in each step, which
      makes time and memory linear in P; P or more takes all proxies. None takes
      all of up to 512 proxies, and draws 256 if there are more. See above.
    estimator: 'gumbel', 'gumbel_rao', 'softmax' or 'argmax', see `lca`.
    shared_noise: see `lca`.
    self_negatives: see `mining.sample_triplets`.
    exclude_self_lca: whether a proxy of a triplet may not be picked as its own
      ancestor; the authors' program allows it.
    normalize_by: see `lca`.
    axis_name: mapped axis over whose devices the batch is spread. The rows are
      gathered; each device mines its own rows and its share of the proxies, and
      works on their triplets. Every device returns the whole batch's loss, and
      the mean of the devices' gradients (`lax.pmean`) is the whole batch's
      gradient. A device computes distances from its own rows to all rows, and
      distances to the proxies from the rows that its triplets name.

  Returns:
    (loss, aux): the loss, a scalar; aux is a dict of scalars for monitoring,
    without gradient, each of the first seven under 'data/' and 'proxy/':

    - 'collision_rate', 'lca_perplexity', 'lca_used': see `lca`.
    - 'anchors': share of nodes that are anchors. For proxies, this and all that
      follows is over the drawn ones.
    - 'no_neighbors': share of nodes without any reciprocal neighbor.
    - 'radius': mean norm of the nodes.
    - 'clipped': share of nodes on the clip sphere; left out without a clip, and
      where c is None.
    - 'data/same_class': share of positives of their anchor's class.

  Raises:
    ValueError: for an unknown option, a number that is no integer above 0 where
      one is expected, k beyond the batch or the proxies, `exclude_self_lca` of
      fewer than four proxies, or `proxy_anchors` of which there are no more
      than k.

  Example:
    >>> import jax
    >>> from hier_jax import losses
    >>> key, labels = jax.random.key(0), jax.numpy.arange(8) % 2
    >>> z = 0.1 * jax.random.normal(key, (8, 4))
    >>> proxies = losses.init_hier_proxies(key, 16, 4)
    >>> loss, aux = losses.hier(key, z, labels, proxies, k=4)
    >>> print(loss.shape, bool(loss > 0), sorted(aux)[:2])
    () True ['data/anchors', 'data/clipped']
  """
  key = numerics.as_key(key)
  numerics.check_positive(clip_radius=clip_radius, temperature=temperature)
  numerics.check_finite(margin=margin)
  _checks.rows(z, labels, hier_proxies)
  if exclude_self_lca and hier_proxies.shape[0] < 4:
    raise ValueError(
      f'exclude_self_lca leaves no ancestor among {hier_proxies.shape[0]}'
      ' proxies: at least 4 are needed'
    )
  k = mining.integer('k', k)
  triplets_per_anchor = mining.integer(
    'triplets_per_anchor', triplets_per_anchor
  )
  anchors = _hier_drawn.number(proxy_anchors, hier_proxies.shape[0], k)
  z, labels = numerics.widened(z), jnp.asarray(labels)
  embed, distance = _geometry(c, clip_radius)
  if c is not None:
    _arguments.check_inside('z', z, c)
  rho = embed(numerics.widened(hier_proxies))
  few = lambda m, n: m * (1 + k + triplets_per_anchor) < n
  key, draws, noise = unrolled(key), [], []
  for _ in ('data', 'proxy'):
    key, key_draw, key_noise = jax.random.split(key, 3)
    draws.append(key_draw)
    noise.append(key_noise)
  some = None
  if anchors < rho.shape[0]:
    some = _hier_drawn.draw(key, rho, anchors, k, c, _distance, axis_name)
  terms, mined, dist = _hier_triplets.mined_terms(
    z, labels, rho, distance, few, k, axis_name, some
  )
  found = _hier_triplets.draw(
    draws,
    terms.values(),
    mined,
    per_anchor=triplets_per_anchor,
    self_negatives=self_negatives,
  )
  drawn = dict(zip(terms, found, strict=True))
  aux = _monitor(drawn, c, clip_radius, axis_name)
  named, dist = _hier_triplets.distances(found, rho, distance, dist, some)
  (data, _), (among, _) = named
  if exclude_self_lca:
    node = jnp.concatenate([jnp.full_like(data, -1), among])
    dist = jnp.where(
      node[:, None] == _hier_triplets.places(rho.shape[0])[None], _FAR, dist
    )
  losses = lca_losses(
    noise,
    dist,
    [triplets for _, triplets in named],
    rows=[index.size for index, _ in named],
    temperature=temperature,
    margin=margin,
    estimator=estimator,
    shared_noise=shared_noise,
    normalize_by=normalize_by,
    axis_name=axis_name,
  )
  for name, (_, stats) in zip(drawn, losses, strict=True):
    aux |= {f'{name}/{key}': stat for key, stat in stats.items()}
  loss = sum(loss for loss, _ in losses)
  # Nodes that no triplet names are seen by no loss.
  # Not of a maximum, which XLA takes over NaN on a CPU.
  lost = jnp.sum(jnp.isnan(jnp.concatenate([z, rho])))
  loss = jnp.where(_sharding.total(lost, axis_name) > 0, jnp.nan, loss)
  aux = jax.tree.map(lax.stop_gradient, aux)
  return loss, dict(zip(aux, numerics.made_once(*aux.values()), strict=True))
