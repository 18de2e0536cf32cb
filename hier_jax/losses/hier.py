"""HIER: hierarchical proxies as lowest common ancestors (LCA).

Kim, Jeong and Kwak, "HIER: Metric Learning Beyond Class Labels via Hierarchical
Regularization" (CVPR 2023, arXiv 2212.14258). A metric-learning loss is
regularised by free points of the Poincare ball, each drawn towards the lowest
common ancestor of some data or of some other such points.
"""

import functools

import chex
import jax
import jax.numpy as jnp
from jax import lax

from hier_jax import poincare
from hier_jax import triplets as triplets_lib
from hier_jax.losses import sharding

__all__ = ['hier', 'init_hierarchical_proxies', 'lca_loss']

# Triplets handled at once: enough to fill the machine, few enough that the
# chunk's [chunk, P] temporaries stay in cache.
_CHUNK = 400


def init_hierarchical_proxies(key, num_proxies, dim, *, clip_radius=2.3):
  """Tangent vectors `[P, d]` whose norms are near 0.9 of the clip radius."""
  scale = 0.9 * clip_radius / dim**0.5
  return scale * jax.random.normal(key, (num_proxies, dim))


def _pick(largest, gumbel, tau):
  """Straight-through Gumbel-softmax pick of an LCA.

  Args:
    largest: `[t, P]`, distance of each proxy to the farthest of its points.
    gumbel: `[t, P]` standard Gumbel noise.
    tau: temperature of the distances.

  Returns:
    one-hot `[t, P]` forward, softmax of the noisy logits backward; and the
    picked proxies int32 `[t]`.
  """
  logits = gumbel - largest / tau
  top = lax.stop_gradient(jnp.max(logits, -1, keepdims=True))
  unnormalised = jnp.exp(logits - top)
  soft = unnormalised / jnp.sum(unnormalised, -1, keepdims=True)
  # Several times faster than argmax and one_hot on CPU, ties included.
  proxies = lax.broadcasted_iota(jnp.int32, logits.shape, 1)
  none = logits.shape[1]
  index = jnp.min(jnp.where(logits == top, proxies, none), -1)
  hard = (proxies == index[:, None]).astype(soft.dtype)
  return hard + (soft - lax.stop_gradient(soft)), index


def _chunk_loss(d_i, d_j, d_k, weight, gumbel, tau, margin):
  """Sum of the triplets' losses of rows of distances `[t, P]`."""
  d_ij = jnp.maximum(d_i, d_j)
  lca_ij, index_ij = _pick(d_ij, gumbel[0], tau)
  lca_ijk, index_ijk = _pick(jnp.maximum(d_ij, d_k), gumbel[1], tau)
  apart = weight * (index_ij != index_ijk)
  # How much farther a point is from the lower ancestor than from the upper.
  excess = lambda d: jnp.sum(d * (lca_ij - lca_ijk), -1)
  loss = jax.nn.relu(excess(d_i) + margin)
  loss += jax.nn.relu(excess(d_j) + margin)
  loss += jax.nn.relu(margin - excess(d_k))
  return jnp.sum(apart * loss), (index_ij, index_ijk, apart)


def _chunk_noise(noise, chunk, rows, num_proxies):
  if jnp.issubdtype(noise.dtype, jnp.floating):
    return noise[:, rows]
  shape = (2, rows.shape[0], num_proxies)
  return jax.random.gumbel(jax.random.fold_in(noise, chunk), shape)


def _one_pass(dist, triplets, noise, tau, margin, axis_name):
  """The summed loss and its gradient in `dist`, together, chunk by chunk.

  The loss is a scalar, so its gradient can be made beside it: all that outlives
  a chunk is one matrix of the size of `dist`. Devices of `axis_name` take every
  n-th chunk; a chunk's noise depends on its number alone, hence the sum over
  the devices does not depend on how many there are.
  """
  num_proxies = dist.shape[1]
  total = triplets.weight.shape[0]
  chunk_size = min(_CHUNK, total)
  # Triplets that count come first, so that the loop can end after them.
  order = jnp.argsort(-triplets.weight, stable=True)
  order = jnp.pad(order, (0, -total % chunk_size))
  padded = jnp.arange(order.shape[0]) < total
  filled = jnp.sum(triplets.weight > 0)
  rank, devices = sharding.position(axis_name)
  value_and_grad = jax.value_and_grad(_chunk_loss, (0, 1, 2), has_aux=True)

  def body(step, carry):
    loss, grad, used, apart = carry
    chunk = step * devices + rank
    start = chunk * chunk_size
    rows = lax.dynamic_slice_in_dim(order, start, chunk_size)
    real = lax.dynamic_slice_in_dim(padded, start, chunk_size)
    i, j, k = (
      a[rows] for a in (triplets.anchor, triplets.positive, triplets.negative)
    )
    weight = triplets.weight[rows] * real
    gumbel = _chunk_noise(noise, chunk, rows, num_proxies)
    (value, (index_ij, index_ijk, kept)), (g_i, g_j, g_k) = value_and_grad(
      dist[i], dist[j], dist[k], weight, gumbel, tau, margin
    )
    grad = grad.at[i].add(g_i).at[j].add(g_j).at[k].add(g_k)
    used = used.at[index_ij].add(weight).at[index_ijk].add(weight)
    return loss + value, grad, used, apart + jnp.sum(kept)

  chunks = -(-filled // chunk_size)
  steps = (chunks - rank + devices - 1) // devices
  zero = jnp.zeros((), dist.dtype)
  start = (zero, jnp.zeros_like(dist), jnp.zeros(num_proxies), zero)
  return lax.fori_loop(0, steps, body, start)


@functools.partial(jax.custom_vjp, nondiff_argnums=(5,))
def _lca_sums(dist, triplets, noise, tau, margin, axis_name):
  loss, _, used, apart = _one_pass(
    dist, triplets, noise, tau, margin, axis_name
  )
  return loss, used, apart


def _lca_sums_fwd(dist, triplets, noise, tau, margin, axis_name):
  loss, grad, used, apart = _one_pass(
    dist, triplets, noise, tau, margin, axis_name
  )
  return (loss, used, apart), grad


def _lca_sums_bwd(axis_name, grad, cotangents):
  del axis_name
  return cotangents[0] * grad, None, None, None, None


_lca_sums.defvjp(_lca_sums_fwd, _lca_sums_bwd)


def lca_loss(
  noise,
  dist,
  triplets,
  *,
  tau=0.1,
  margin=0.1,
  normalise_by='all',
  axis_name=None,
):
  """The LCA triplet loss of given triplets (HIER, equations 4 to 6).

  For a triplet (i, j, k) two proxies are picked: LCA_ij, near both i and j, and
  LCA_ijk, near all three. i and j ought to be nearer the first, k nearer the
  second:

    [d(i, ij) - d(i, ijk) + margin]+ + [d(j, ij) - d(j, ijk) + margin]+
      + [d(k, ijk) - d(k, ij) + margin]+,  and 0 where the picks coincide.

  Args:
    noise: a PRNG key, or the Gumbel noise of the two picks, float
      `[2, T, P]`.
    dist: `[n, P]` distances of the nodes to the proxies.
    triplets: `Triplets` of T rows of `dist`.
    tau: temperature of the picks; may be traced.
    margin: hinge margin; may be traced.
    normalise_by: 'all' divides by the number of triplets, 'valid' by that of
      triplets whose picks differ.
    axis_name: mapped axis whose devices share the triplets out; `noise`, `dist`
      and `triplets` must be the same on all of them.

  Returns:
    loss, scalar, differentiable (reverse mode, once) in `dist`; and a dict of
    scalars: 'collision_rate' (share of triplets whose picks coincide),
    'lca_perplexity' (exp of the entropy of the picks, of P), 'lca_used' (share
    of the proxies picked at all).

  Raises:
    ValueError: for an unknown `normalise_by`.
  """
  if normalise_by not in ('all', 'valid'):
    raise ValueError(
      f"normalise_by is {normalise_by!r}, expected 'all' or 'valid'"
    )
  dist, noise = jnp.asarray(dist), jnp.asarray(noise)
  chex.assert_rank(dist, 2)
  chex.assert_equal_shape([triplets.anchor, triplets.weight])
  triplets = jax.tree.map(jnp.asarray, triplets)
  tau, margin = (jnp.asarray(a, dist.dtype) for a in (tau, margin))
  sums = _lca_sums(dist, triplets, noise, tau, margin, axis_name)
  loss, used, apart = (sharding.total(s, axis_name) for s in sums)
  count = jnp.sum(triplets.weight)
  divisor = count if normalise_by == 'all' else apart
  share = used / jnp.maximum(jnp.sum(used), 1)
  entropy = -jnp.sum(jax.scipy.special.xlogy(share, share))
  stats = {
    'collision_rate': 1 - apart / jnp.maximum(count, 1),
    'lca_perplexity': jnp.exp(entropy),
    'lca_used': jnp.mean(used > 0),
  }
  return loss / jnp.maximum(lax.stop_gradient(divisor), 1), stats


def _geometry(c, clip_radius):
  """How tangent vectors become nodes, and the distance between nodes."""
  if isinstance(c, (int, float)) and c == 0:
    normalise = lambda v: (
      v / jnp.maximum(jnp.linalg.norm(v, axis=-1, keepdims=True), 1e-12)
    )
    cosine = functools.partial(jnp.matmul, precision=lax.Precision.HIGHEST)
    return normalise, lambda x, y: 1 - cosine(x, y.T)
  embed = functools.partial(poincare.to_ball, c=c, clip_radius=clip_radius)
  return embed, functools.partial(poincare.dist_matrix, c=c)


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
  self_negatives=False,
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
    clip_radius: the clip of the proxies, as in the embedding head.
    tau: temperature of the LCA picks.
    margin: hinge margin.
    k: nearest neighbours that make reciprocal ones, the row itself included.
    triplets_per_anchor: triplets each anchor draws.
    self_negatives: see `triplets.sample_triplets`.
    normalise_by: see `lca_loss`.
    axis_name: mapped axis over whose devices the batch is spread. The rows are
      gathered, the triplets shared out; the loss is the whole batch's on every
      device, and the mean over devices of its gradients (`lax.pmean`) is the
      whole batch's gradient.

  Returns:
    loss, a float32 scalar; and a dict of scalars for monitoring, those of
    `lca_loss` under 'data/' and 'proxy/' besides 'anchors', the share of nodes
    that are anchors, and 'radius', the mean norm of the nodes.
  """
  chex.assert_rank([z, labels, proxies], [2, 1, 2])
  chex.assert_equal_shape_suffix([z, proxies], 1)
  z = sharding.gather(z.astype(jnp.float32), axis_name)
  labels = sharding.gather(labels, axis_name)
  embed, distance = _geometry(c, clip_radius)
  rho = embed(proxies.astype(jnp.float32))
  same = (labels[:, None] == labels[None]).astype(jnp.float32)
  among_proxies = distance(rho, rho)
  fixed = lax.stop_gradient(z)
  # Term -> nodes, their distances to the proxies, their similarities.
  terms = {
    'data': (z, distance(z, rho), jnp.exp(-distance(fixed, fixed)) + same),
    'proxy': (rho, among_proxies, jnp.exp(-among_proxies)),
  }
  loss = 0.0
  aux: dict[str, jax.Array] = {}
  for term, (nodes, dist, similarity) in terms.items():
    key, key_sample, key_pick = jax.random.split(key, 3)
    triplets = triplets_lib.sample_triplets(
      key_sample,
      lax.stop_gradient(similarity),
      k=k,
      per_anchor=triplets_per_anchor,
      self_negatives=self_negatives,
    )
    value, stats = lca_loss(
      key_pick,
      dist,
      triplets,
      tau=tau,
      margin=margin,
      normalise_by=normalise_by,
      axis_name=axis_name,
    )
    loss += value
    stats['anchors'] = jnp.mean(triplets.weight)
    stats['radius'] = jnp.mean(jnp.linalg.norm(nodes, axis=-1))
    aux |= {f'{term}/{name}': stat for name, stat in stats.items()}
  return loss, aux
