"""The loss of triplets by the lowest common ancestors (LCA) picked for them.

Kim, Jeong and Kwak, "HIER: Metric Learning Beyond Class Labels via Hierarchical
Regularization" (CVPR 2023, arXiv 2212.14258), equations 4 to 6. How proxies are
picked is in `_lca_picks`, the sums over the triplets are in `_lca_sums`.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import lax
from jax.typing import ArrayLike
from jaxtyping import Array, Float, PRNGKeyArray, Real

from hier_jax import numerics
from hier_jax.losses import _checks, _lca_sums, _sharding
from hier_jax.losses._lca_picks import ESTIMATORS
from hier_jax.mining import Triplets

__all__ = ['lca', 'lca_losses']


def lca(
  key: PRNGKeyArray | None,
  dist: Float[ArrayLike, 'n P'],
  triplets: Triplets,
  *,
  gumbel: Float[ArrayLike, '2 T P'] | None = None,
  temperature: Real[ArrayLike, ''] = 0.1,
  margin: Real[ArrayLike, ''] = 0.1,
  estimator: str = 'gumbel',
  shared_noise: bool = False,
  normalize_by: str = 'all',
  axis_name: str | None = None,
) -> tuple[Float[Array, ''], dict[str, Real[Array, '']]]:
  """The LCA triplet loss of given triplets (HIER, equations 4 to 6).

  For each triplet (i, j, k), two proxies are picked: LCA_ij, near both i and j,
  and LCA_ijk, near all three. i and j should be nearer to the first, k nearer
  to the second:

    [d(i, ij) - d(i, ijk) + margin]+ + [d(j, ij) - d(j, ijk) + margin]+
      + [d(k, ijk) - d(k, ij) + margin]+,  and 0 where the picks coincide.

  With m_p the largest distance of the points to proxy p, the pick is drawn from
  softmax(-m / tau), where tau is the temperature, and differentiated as if it
  were this softmax.

  Args:
    key: PRNG key of the picks; may be None if `gumbel` is given.
    dist: `[n, P]` distances, float32 or float64, of the nodes to the proxies.
    triplets: `Triplets` of T rows of `dist`; with `axis_name` this device's
      share of them.
    gumbel: Gumbel noise of the two picks, float `[2, T, P]`, used in place of
      the key; only for the estimator 'gumbel'. None draws it.
    temperature: temperature of the picks (tau); may be traced. No gradient
      reaches it.
    margin: margin of the hinges; may be traced. No gradient reaches it.
    estimator: 'gumbel' picks with Gumbel noise and differentiates the softmax
      of the noisy logits (official); 'gumbel_rao' averages that derivative over
      the noise that leads to the same pick; 'argmax' picks the nearest and
      differentiates the softmax. None of these three differentiates whether the
      picks coincide. 'softmax' uses the softmax vectors p and q themselves as
      picks; each triplet is weighted by 1 - p.q, the probability that the picks
      differ, and the gradient is exact, including this weight.
    shared_noise: whether both picks of a triplet see the same noise.
    normalize_by: 'all' divides by the number of triplets, 'valid' by the number
      of triplets whose picks differ.
    axis_name: mapped axis over whose devices the triplets are shared out; `key`
      and `dist` must be the same on all of them.

  Returns:
    (loss, aux): the loss, a scalar, is differentiable (reverse mode, once) in
    `dist`; aux is a dict of scalars without gradient:

    - 'collision_rate': share of triplets whose picks coincide.
    - 'lca_perplexity': exp of the entropy of the picks, at most P.
    - 'lca_used': number of proxies picked at all.

  Raises:
    ValueError: for an unknown `estimator` or `normalize_by`, if neither a key
      nor noise is given, or for noise of another shape.

  References:
    Jang, Gu and Poole, "Categorical Reparameterization with Gumbel-Softmax"
    (ICLR 2017, arXiv 1611.01144), section 2.2.
    Paulus, Maddison and Krause, "Rao-Blackwellizing the Straight-Through
    Gumbel-Softmax Gradient Estimator" (ICLR 2021, arXiv 2010.04838), for
    'gumbel_rao'.

  Example:
    >>> import jax.numpy as jnp
    >>> from hier_jax import losses, mining
    >>> dist = jnp.array([[0.0, 1.0], [0.0, 1.0], [2.0, 1.0]])
    >>> triplet = mining.Triplets(*jnp.arange(3)[:, None], weight=jnp.ones(1))
    >>> noise = jnp.zeros((2, 1, 2))  # Picks proxy 0 for i, j and 1 for all.
    >>> loss, _ = losses.lca(None, dist, triplet, gumbel=noise, margin=1.5)
    >>> print(f'{float(loss):.3f}')  # [0 - 1 + 1.5]+ from each of the three.
    1.500
  """
  numerics.check_positive(temperature=temperature)
  numerics.check_finite(margin=margin)
  dist = jnp.asarray(dist)
  if gumbel is not None:
    gumbel = jnp.asarray(gumbel)
    if not jnp.issubdtype(gumbel.dtype, jnp.floating):
      raise ValueError(f'gumbel is {gumbel.dtype}, expected floats [2, T, P]')
  elif key is None:
    raise ValueError('key is None: give a PRNG key, or gumbel= [2, T, P]')
  else:
    key = numerics.as_key(key)
  (term,) = lca_losses(
    [key if gumbel is None else gumbel],
    dist,
    [triplets],
    rows=dist.shape[:1],
    temperature=temperature,
    margin=margin,
    estimator=estimator,
    shared_noise=shared_noise,
    normalize_by=normalize_by,
    axis_name=axis_name,
  )
  return term


def lca_losses(
  noise,
  dist,
  triplets,
  *,
  rows,
  temperature,
  margin,
  estimator,
  shared_noise,
  normalize_by,
  axis_name,
):
  """`lca` of several groups of triplets, in one loop over all of them.

  Args:
    noise: of each group, a PRNG key or Gumbel noise `[2, T, P]`.
    dist: `[n, P]`, the groups' rows one after the other.
    triplets: of each group, places in its own rows.
    rows: number of rows of each group; they sum to n.
    temperature: see `lca`.
    margin: see `lca`.
    estimator: see `lca`.
    shared_noise: see `lca`.
    normalize_by: see `lca`.
    axis_name: see `lca`.

  Returns:
    for each group, what `lca` returns.
  """
  _checks.shape('dist', dist, None, None)
  noise = [jnp.asarray(n) for n in noise]
  for n, t in zip(noise, triplets, strict=True):
    _check(n, dist.shape[1], t, estimator, normalize_by)
  triplets = [Triplets(*map(jnp.asarray, t)) for t in triplets]
  triplets = [t._replace(weight=t.weight.astype(dist.dtype)) for t in triplets]
  if jnp.issubdtype(noise[0].dtype, jnp.floating):
    noise = [n.astype(dist.dtype) for n in noise]
  temperature, margin = (
    jnp.asarray(a, dist.dtype) for a in (temperature, margin)
  )
  by_apart = estimator == 'softmax' and normalize_by == 'valid'
  settings = _lca_sums.Settings(
    estimator, shared_noise, axis_name, by_apart, tuple(rows)
  )
  # A device's gradient is of its own triplets.
  dist = _sharding.varying(dist, axis_name)
  totals, used = _lca_sums.lca_sums(
    dist, triplets, noise, temperature, margin, settings
  )
  totals, used = (_sharding.total(s, axis_name) for s in (totals, used))
  loss, apart, count = totals
  divisor = count if normalize_by == 'all' else apart
  # A product of matrices: each other sum is two kernels of its own on a CPU.
  picked, logs, number = jnp.matmul(
    jnp.stack(
      [used, jax.scipy.special.xlogy(used, used), (used > 0).astype(used.dtype)]
    ),
    jnp.ones(dist.shape[1], dist.dtype),
    precision=lax.Precision.HIGHEST,
  )
  picked = jnp.maximum(picked, 1)
  stats = {
    'collision_rate': 1 - apart / jnp.maximum(count, 1),
    'lca_perplexity': jnp.exp(jnp.log(picked) - logs / picked),
    'lca_used': number,
  }
  stats = jax.tree.map(lax.stop_gradient, stats)
  if not by_apart:
    divisor = lax.stop_gradient(divisor)
  loss = loss / jnp.maximum(divisor, 1)
  groups = range(len(triplets))
  return [(loss[i], {k: v[i] for k, v in stats.items()}) for i in groups]


def _check(noise, num_proxies, triplets, estimator, normalize_by):
  if estimator not in ESTIMATORS:
    choices = ', '.join(map(repr, ESTIMATORS))
    raise ValueError(f'estimator is {estimator!r}, expected one of {choices}')
  if normalize_by not in ('all', 'valid'):
    raise ValueError(
      f"normalize_by is {normalize_by!r}, expected 'all' or 'valid'"
    )
  for name, rows in triplets._asdict().items():
    _checks.shape(f'triplets.{name}', rows, len(triplets.weight))
  shape = (2, *triplets.weight.shape, num_proxies)
  given = jnp.issubdtype(noise.dtype, jnp.floating)
  if given and (noise.shape != shape or estimator != 'gumbel'):
    raise ValueError(
      f'gumbel has shape {noise.shape} with estimator {estimator!r}: expected'
      f" shape {shape} and estimator 'gumbel', or a key alone"
    )
