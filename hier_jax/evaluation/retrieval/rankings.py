"""Points of the ball ranked by both of their distances: hyperbolic and cosine.

The metric losses train directions, so a ranking by direction alone may be the
better one wherever the embeddings' radii differ.
"""

from collections.abc import Mapping
from typing import Any

from hier_jax.evaluation.retrieval.metrics import retrieval_metrics

__all__ = ['BY_COSINE', 'both', 'by_cosine', 'distinct']

# What the keys of the ranking by cosine begin with.
BY_COSINE = 'cosine/'


def both(
  embeddings: Any,
  labels: Any,
  *,
  c: float | None,
  known: dict[str, float | int | str] | None = None,
  **options: Any,
) -> dict[str, float | int | str]:
  """`retrieval_metrics` and, for points of the ball, the same by cosine.

  Args:
    embeddings: queries `[n, d]`.
    labels: classes of the queries `[n]`.
    c: curvature, as in `retrieval_metrics`.
    known: what `retrieval_metrics` returns, where it was found on another way;
      None to find it.
    **options: of `retrieval_metrics`.

  Returns:
    What `retrieval_metrics` returns; where c > 0 also each mean by cosine, as
    'cosine/<key>'.

  Raises:
    UserError: as `retrieval_metrics`.
  """
  found = known or retrieval_metrics(embeddings, labels, c=c, **options)
  if not c:
    return found
  cosine = retrieval_metrics(embeddings, labels, c=None, **options)
  means = {k: v for k, v in cosine.items() if isinstance(v, float)}
  return found | {f'{BY_COSINE}{key}': value for key, value in means.items()}


def by_cosine(metrics: Mapping[str, Any]) -> dict[str, Any]:
  """The means of the ranking by cosine among what `both` returns."""
  return {
    key.removeprefix(BY_COSINE): value
    for key, value in metrics.items()
    if key.startswith(BY_COSINE)
  }


def distinct(metrics: Mapping[str, Any]) -> dict[str, Any]:
  """Metrics without the ranking by cosine, where that is the same ranking.

  On a sphere of one radius both rankings are one but for rounding.

  Args:
    metrics: what `both` returns.

  Returns:
    `metrics`, without the keys 'cosine/<key>' where each of them is within
    1e-4 of '<key>', as far as tables of them show.
  """
  cosine = by_cosine(metrics)
  if any(abs(metrics[key] - value) >= 1e-4 for key, value in cosine.items()):
    return dict(metrics)
  return {k: v for k, v in metrics.items() if not k.startswith(BY_COSINE)}
