"""What an ancestor costs, and how ancestors are picked: HIER* piece by piece.

A cost `[n, P]` takes the place of the distances of n nodes to P proxies in
`losses.lca`, which picks proxies of low cost as the lowest common ancestors
(LCA) of triplets and lets the triplets pay. `picked_loss` is that loss with
other picks and hinges, in plain JAX.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import lax
from jax.typing import ArrayLike

from hier_jax import mining, numerics

__all__ = [
  'ESTIMATORS',
  'HINGES',
  'balancing_bias',
  'cone_energy',
  'order_factor',
  'picked_loss',
]

ESTIMATORS = ('gumbel', 'softmax', 'argmax')
HINGES = ('relu', 'softplus')
# Beyond every cost over a temperature.
_FAR = 1e9


def order_factor(
  r_x: jax.Array, r_p: jax.Array, weight: ArrayLike, gamma: ArrayLike
) -> jax.Array:
  """1 + weight [r_p - r_x + gamma]+: ancestors should lie farther inside.

  Monath et al., "Gradient-based Hierarchical Clustering using Continuous
  Representations of Trees in Hyperbolic Space" (gHHC, KDD 2019): the distance
  of a child x to a parent p is multiplied by it, with weight 1 and gamma 1/4,
  of the distances r from the origin (so their program has it).

  Args:
    r_x: `[n]`, how far children are from the origin.
    r_p: `[P]`, how far parents are.
    weight: weight of the penalty; may be traced.
    gamma: how much nearer to the origin parents should be; may be traced.

  Returns:
    `[n, P]`.

  Example:
    >>> import jax.numpy as jnp
    >>> from experiments.study import ancestors
    >>> r_x, r_p = jnp.array([2.0]), jnp.array([1.0, 2.5])
    >>> ancestors.order_factor(r_x, r_p, 1.0, 0.25).tolist()
    [[1.0, 1.75]]
  """
  return 1 + weight * jax.nn.relu(r_p[None] - r_x[:, None] + gamma)


def cone_energy(
  x: jax.Array, p: jax.Array, c: ArrayLike, aperture: ArrayLike = 0.1
) -> jax.Array:
  """How far, as an angle, x lies outside the entailment cone of p.

    E(p, x) = [Xi(p, x) - psi(p)]+,  psi(p) = arcsin(K (1 - |p|^2) / |p|),
    cos Xi = (<p, x>(1 + |p|^2) - |p|^2 (1 + |x|^2))
             / (|p| |p - x| sqrt(1 + |p|^2 |x|^2 - 2 <p, x>)),

  points scaled to the unit ball; Xi is the angle at p between the ray from the
  origin and the geodesic to x. Inside the radius where K (1 - |p|^2) = |p|, at
  which the paper stops, psi stays pi / 2.

  Ganea, Becigneul and Hofmann, "Hyperbolic Entailment Cones for Learning
  Hierarchical Embeddings" (ICML 2018, arXiv 1804.01882).

  Args:
    x: `[n, d]` points of the ball, the children.
    p: `[P, d]` points of the ball, the parents.
    c: curvature, greater than 0.
    aperture: K; the greater, the wider the cones. The paper has 0.1.

  Returns:
    `[n, P]`, from 0 to pi. At x = p, and of p at the origin, Xi counts as
    pi / 2.

  Example:
    >>> import jax.numpy as jnp
    >>> from experiments.study import ancestors
    >>> x, p = jnp.array([[0.9, 0.0], [-0.9, 0.0]]), jnp.array([[0.5, 0.0]])
    >>> energy = ancestors.cone_energy(x, p, 1.0)
    >>> [f'{float(e):.1f}' for e in energy[:, 0]]  # Behind p it is pi - psi.
    ['0.0', '3.0']
  """
  root = jnp.sqrt(jnp.asarray(c, x.dtype))
  x, p = x * root, p * root
  least = jnp.finfo(x.dtype).tiny ** 0.5
  sq_x = jnp.sum(x * x, -1)[:, None]
  sq_p = jnp.sum(p * p, -1)[None]
  inner = jnp.matmul(x, p.T, precision=lax.Precision.HIGHEST)
  norm_p = numerics.sqrt(sq_p)
  psi = jnp.arcsin(
    jnp.minimum(aperture * (1 - sq_p) / jnp.maximum(norm_p, least), 1 - 1e-6)
  )
  apart = numerics.sqrt(sq_x + sq_p - 2 * inner)
  bent = numerics.sqrt(1 + sq_p * sq_x - 2 * inner)
  over = norm_p * apart * bent
  cosine = (inner * (1 + sq_p) - sq_p * (1 + sq_x)) / jnp.maximum(over, least)
  # The derivative of arccos has no bound at -1 and 1.
  angle = jnp.arccos(jnp.clip(cosine, -1 + 1e-5, 1 - 1e-5))
  return jax.nn.relu(angle - psi)


def balancing_bias(
  logits: jax.Array, weight: jax.Array, steps: int = 3
) -> jax.Array:
  """What is added to logits for all proxies to be picked equally often.

  Sinkhorn and Knopp's iteration in logarithms: with it in the softmax of each
  row, the weighted mean of the rows tends to 1 / P in every place. As in Caron
  et al., "Unsupervised Learning of Visual Features by Contrasting Cluster
  Assignments" (SwAV, NeurIPS 2020, arXiv 2006.09882), section 3.1, which ends
  after 3 steps.

  Args:
    logits: `[T, P]`.
    weight: `[T]`, 0 for rows that do not count.
    steps: number of iterations, static.

  Returns:
    `[P]`, without gradient, at most 0.

  Example:
    >>> import jax.numpy as jnp
    >>> from experiments.study import ancestors
    >>> logits = jnp.log(jnp.array([[0.8, 0.2], [0.8, 0.2]]))
    >>> bias = ancestors.balancing_bias(logits, jnp.ones(2))
    >>> [f'{float(b):.2f}' for b in jnp.exp(bias)]
    ['0.25', '1.00']
  """
  logits = lax.stop_gradient(logits)
  share = jnp.where(weight > 0, jnp.log(jnp.maximum(weight, 1e-30)), -_FAR)
  share = share - jnp.log(jnp.maximum(jnp.sum(weight), 1))
  bias = jnp.zeros_like(logits[0])
  for _ in range(steps):
    rows = share - jax.nn.logsumexp(logits + bias[None], 1)
    bias = -jax.nn.logsumexp(logits + rows[:, None], 0)
    bias = bias - jnp.max(bias)
  # Where nothing counts.
  return jnp.where(jnp.any(weight > 0), bias, 0)


def _pick(
  logits: jax.Array, noise: jax.Array | None, estimator: str
) -> jax.Array:
  """A pick of each row: one-hot, with the softmax's gradient, or soft."""
  if noise is not None:
    logits = logits + noise
  soft = jax.nn.softmax(logits, -1)
  if estimator == 'softmax':
    return soft
  hard = jax.nn.one_hot(
    jnp.argmax(logits, -1), soft.shape[-1], dtype=soft.dtype
  )
  return hard + (soft - lax.stop_gradient(soft))


def _bar(first: jax.Array) -> jax.Array:
  """log(1 - first): what keeps the second pick from the first; no gradient."""
  left = 1 - lax.stop_gradient(first)
  return jnp.where(left > 0, jnp.log(jnp.maximum(left, 1e-30)), -_FAR)


def _picks(near, far, noise, triplets, options):
  """Both picks of each triplet, `[T, P]` each.

  Args:
    near: `[T, P]`, the larger cost of i and j.
    far: `[T, P]`, the largest of all three.
    noise: `[2, T, P]`, or None.
    triplets: `mining.Triplets`.
    options: (temperature, estimator, barred, balance).
  """
  temperature, estimator, barred, balance = options
  of = [None, None] if noise is None else noise

  def logits(cost):
    own = -cost / temperature
    if isinstance(balance, (int, float)) and balance == 0:
      return own
    return own + balance * balancing_bias(own, triplets.weight)[None]

  lower = _pick(logits(near), of[0], estimator)
  upper = logits(far)
  if barred:
    upper = upper + _bar(lower)
  return lower, _pick(upper, of[1], estimator)


def _stats(lower, upper, weight, apart):
  """What `losses.lca` says of its picks."""
  used = jnp.matmul(
    weight[None], lower + upper, precision=lax.Precision.HIGHEST
  )[0]
  share = used / jnp.maximum(jnp.sum(used), 1)
  stats = {
    'collision_rate': 1 - jnp.sum(apart) / jnp.maximum(jnp.sum(weight), 1),
    'lca_perplexity': jnp.exp(-jnp.sum(jax.scipy.special.xlogy(share, share))),
    'lca_used': jnp.sum(used > 0).astype(used.dtype),
  }
  return jax.tree.map(lax.stop_gradient, stats)


def picked_loss(
  noise: jax.Array | None,
  cost: jax.Array,
  triplets: mining.Triplets,
  *,
  temperature: ArrayLike = 0.1,
  margin: ArrayLike = 0.1,
  estimator: str = 'gumbel',
  hinge: str = 'relu',
  barred: bool = False,
  balance: ArrayLike = 0.0,
) -> tuple[jax.Array, dict[str, jax.Array]]:
  """`losses.lca` with the parts of gHHC that HIER dropped, and balanced picks.

    h(d(i, ij) - d(i, ijk) + margin) + h(d(j, ij) - d(j, ijk) + margin)
      + h(d(k, ijk) - d(k, ij) + margin)

  weighed by the chance 1 - p.q that the picks p of ij and q of ijk differ; all
  d are costs, that of a soft pick its mean. With defaults it is `losses.lca` of
  the same noise, in value and gradient.

  gHHC (Monath et al., KDD 2019; their program) has soft picks with noise, the
  second barred from the nearest of ij, and softplus without a margin. It takes
  softplus of each proxy's share of d before it sums; here it is of the sum.

  Args:
    noise: Gumbel noise `[2, T, P]` of the two picks; None for none, which
      'argmax' means and 'softmax' of `losses.lca` has.
    cost: `[n, P]` of each node to have each proxy as its ancestor.
    triplets: `mining.Triplets` of T rows of `cost`.
    temperature: divisor of the costs in the picks' logits; may be traced.
    margin: margin of the hinges; may be traced.
    estimator: 'gumbel' picks the largest logit and has the softmax's gradient,
      'softmax' is the softmax itself, 'argmax' is 'gumbel' without noise.
    hinge: h, 'relu' or 'softplus' (log(1 + e^x)).
    barred: whether the second pick is made among the proxies that the first
      left: q has (1 - p) as a factor, without gradient.
    balance: how much of `balancing_bias` the logits get, 0 to 1; may be traced.

  Returns:
    (loss, aux) as `losses.lca` returns them.

  Raises:
    ValueError: for an unknown estimator or hinge.

  Example:
    >>> import jax.numpy as jnp
    >>> from hier_jax import mining
    >>> from experiments.study import ancestors
    >>> cost = jnp.array([[0.0, 1.0], [0.0, 1.0], [0.2, 0.1]])
    >>> triplet = mining.Triplets(*jnp.arange(3)[:, None], weight=jnp.ones(1))
    >>> loss, _ = ancestors.picked_loss(
    ...   None, cost, triplet, margin=1.5, estimator='argmax', barred=True
    ... )
    >>> print(f'{float(loss):.1f}')  # .5 + .5 + 1.4: two picks.
    2.4
  """
  for name, value, known in (
    ('estimator', estimator, ESTIMATORS),
    ('hinge', hinge, HINGES),
  ):
    if value not in known:
      choices = ', '.join(map(repr, known))
      raise ValueError(f'{name} is {value!r}, expected one of {choices}')
  if estimator == 'argmax':
    noise = None
  i, j, k = (cost[a] for a in triplets[:3])
  near = jnp.maximum(i, j)
  far = jnp.maximum(near, k)
  options = temperature, estimator, barred, balance
  p, q = _picks(near, far, noise, triplets, options)
  h = {'relu': jax.nn.relu, 'softplus': jax.nn.softplus}[hinge]
  lead = lambda d: jnp.sum(d * (p - q), -1)
  paid = h(lead(i) + margin) + h(lead(j) + margin) + h(margin - lead(k))
  same = jnp.sum(p * q, -1)
  if estimator != 'softmax':
    same = lax.stop_gradient(same)
  apart = triplets.weight.astype(cost.dtype) * (1 - same)
  total = jnp.maximum(jnp.sum(triplets.weight), 1)
  stats = _stats(p, q, triplets.weight, apart)
  return jnp.sum(apart * paid) / total, stats
