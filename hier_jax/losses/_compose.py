"""A metric loss and HIER in one."""

from hier_jax import poincare
from hier_jax.losses._hier import hier

__all__ = ['regularized']


def regularized(
  metric,
  key,
  z,
  labels,
  hier_proxies,
  *,
  metric_weight=1.0,
  hier_weight=0.5,
  c=0.1,
  clip_radius=poincare.CLIP_RADIUS,
  temperature=0.1,
  margin=0.1,
  k=20,
  triplets_per_anchor=50,
  estimator='gumbel',
  shared_noise=False,
  self_negatives=False,
  exclude_self_lca=False,
  normalize_by='all',
  axis_name=None,
):
  """metric_weight metric(z, labels) + hier_weight hier(key, z, ...).

  Any loss of rows and labels can be the metric, its own parameters bound:

    lambda z, y: losses.proxy_anchor(z, y, class_proxies)
    functools.partial(losses.sup_con, c=0.1, memory=memory)

  Args:
    metric: (z, labels) -> scalar; with `axis_name` it must be the whole batch's
      loss on every device, as those of this package are.
    key: PRNG key of `hier`.
    z: `[b, d]` embeddings.
    labels: int `[b]`.
    hier_proxies: `[P, d]` tangent vectors at 0; unused where `hier_weight` is
      0.
    metric_weight: lambda of the metric loss.
    hier_weight: lambda of HIER; the number 0 leaves it out.
    c: see `hier`, as for all that follow; the metric loss has its own.
    clip_radius: see `hier`.
    temperature: see `hier`.
    margin: see `hier`.
    k: see `hier`.
    triplets_per_anchor: see `hier`.
    estimator: see `hier`.
    shared_noise: see `hier`.
    self_negatives: see `hier`.
    exclude_self_lca: see `hier`.
    normalize_by: see `hier`.
    axis_name: see `hier`.

  Returns:
    (loss, aux): the weighted sum, a scalar; aux is a dict of scalars:
      'metric': the metric loss, without its weight.
      'hier': HIER's loss, without its weight; left out with `hier_weight` 0.
      'hier/<name>': what `hier` monitors; left out likewise.

  References:
    HIER (CVPR 2023, arXiv 2212.14258).
  """
  value = metric(z, labels)
  total, aux = metric_weight * value, {'metric': value}
  if isinstance(hier_weight, (int, float)) and hier_weight == 0:
    return total, aux
  hierarchy, stats = hier(
    key,
    z,
    labels,
    hier_proxies,
    c=c,
    clip_radius=clip_radius,
    temperature=temperature,
    margin=margin,
    k=k,
    triplets_per_anchor=triplets_per_anchor,
    estimator=estimator,
    shared_noise=shared_noise,
    self_negatives=self_negatives,
    exclude_self_lca=exclude_self_lca,
    normalize_by=normalize_by,
    axis_name=axis_name,
  )
  aux |= {'hier': hierarchy} | {f'hier/{k}': v for k, v in stats.items()}
  return total + hier_weight * hierarchy, aux
