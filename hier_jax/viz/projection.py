"""From D dimensions to the disk, and how far the picture can be trusted.

The disk is the two-dimensional Poincare ball of curvature -1. Points of the
ball of curvature -c are first scaled by sqrt(c), which multiplies all distances
by sqrt(c) and changes nothing else.
"""

import importlib
from collections.abc import Callable
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np
import scipy.stats
from numpy.typing import ArrayLike

from hier_jax.errors import UserError
from hier_jax.evaluation import _checks, _distances
from hier_jax.evaluation.retrieval import _spaces

__all__ = ['METHODS', 'Projection', 'distortion', 'project', 'rescaled']

# Pairs for the correlation, anchors and neighbors for what is kept.
_PAIRS, _ANCHORS, _NEIGHBORS = 20_000, 1_000, 10
# Where points of no ball are put: 95 % of them are nearer the center.
_RADIUS = 0.9
# float64 tells points from the edge up to here.
_LARGEST = 1 - 1e-9
# Matrices of all pairs are made up to here.
_ALL_PAIRS = 10_000


class Projection(NamedTuple):
  """Points of the unit disk, and what the projection kept.

  Attributes:
    disk: float64 `[n, 2]`, of norm below 1.
    also: float64 `[m, 2]`, the other points, mapped in the same way.
    method: see `project`.
    spearman: rank correlation of distances on the disk with the true ones, from
      -1 to 1.
    kept: share of the 10 nearest neighbors that are also among the 10 nearest
      on the disk.
  """

  disk: np.ndarray
  also: np.ndarray
  method: str
  spearman: float
  kept: float

  def __str__(self) -> str:
    """One line for a caption."""
    return (
      f'{self.method}: Spearman correlation of distances {self.spearman:.2f},'
      f' {100 * self.kept:.0f} % of the 10 nearest neighbors kept'
    )


def project(
  points: ArrayLike,
  also: ArrayLike | None = None,
  *,
  c: float | None,
  method: str = 'pca',
  seed: int = 0,
) -> Projection:
  """Projects points to the Poincare disk.

  There are four methods; only 'pca' needs no other package:

  - 'pca': tangent PCA. Points go to the tangent space at the origin, then to
    the two directions of largest variance, and back. The origin stays.
  - 'horopca': Chami et al., ICML 2021, which keeps Busemann coordinates towards
    two ideal points. The Frechet mean goes to the origin. Needs hyperbolix.
  - 'cosne': Guo et al., CVPR 2022, a t-SNE that keeps distances to the origin.
    Needs hyperbolix, and memory for all pairs.
  - 'umap': McInnes et al. 2018, with the hyperboloid as output. Needs
    umap-learn, and memory for all pairs.

  Args:
    points: `[n, d]`, float.
    also: other points `[m, d]`, such as hierarchical proxies, or None. Methods
      that cannot map new points project both together.
    c: curvature: points of the ball of curvature -c; 0 for Euclidean points and
      None for directions. In the last two cases points are scaled so that 95 %
      of them have a norm below .9 on the disk; only the order of distances is
      then meaningful.
    method: see above.
    seed: of what is drawn.

  Returns:
    A `Projection`.

  Raises:
    UserError: wrong shapes, NaN or Inf, points outside the ball, an unknown
      method, or one whose package is missing.

  Example:
    >>> import numpy as np
    >>> from hier_jax.viz import projection
    >>> rows = np.random.default_rng(0).normal(size=(50, 2)) / 4
    >>> found = projection.project(rows, c=1.0)
    >>> found.disk.shape, round(found.spearman, 2), round(found.kept, 2)
    ((50, 2), 1.0, 1.0)
  """
  if method not in METHODS:
    raise UserError(
      f'the method of projection is {method!r}; expected one of'
      f' {", ".join(METHODS)}'
    )
  x = _checks.points('points', points, c)
  y = x[:0] if also is None else _checks.points('also', also, c)
  if x.shape[1] != y.shape[1]:
    raise UserError(
      f'points have shape {x.shape} and also {y.shape}; expected one dimension'
    )
  rows = np.concatenate([x, y]).astype(np.float64)
  unit = _distances.normalize(rows) if c is None else rows
  if c:
    unit = rows * np.sqrt(c)
  flat = METHODS[method](unit[: len(x)], unit, c, seed)
  if not c:
    flat = _within(flat, len(x))
  disk = flat[: len(x)]
  return Projection(
    disk, flat[len(x) :], method, *distortion(rows[: len(x)], disk, c, seed)
  )


def _pca(x, rows, c, seed):
  del seed
  tangent = rescaled(rows, np.arctanh) if c else rows
  base = tangent[: len(x)]
  # Directions of the variance; the origin, which is the root, stays.
  center = base.mean(0) if len(base) else 0.0
  _, _, axes = np.linalg.svd(base - center, full_matrices=False)
  axes = axes[:2]
  flat = np.zeros((len(rows), 2))
  shift = 0.0 if c else center
  flat[:, : len(axes)] = (tangent - shift) @ axes.T
  return rescaled(flat, np.tanh) if c else flat


def _horopca(x, rows, c, seed):
  hyperbolix, jax = _hyperbolix(c), _module('jax', 'jax')
  horopca = hyperbolix.decomposition.HoroPCA(
    hyperbolix.manifolds.Poincare(), n_components=2, lr=0.02, max_steps=300
  )
  horopca.fit(jax.numpy.asarray(x, 'float32'), 1.0, jax.random.key(seed))
  flat = horopca.transform(jax.numpy.asarray(rows, 'float32'))
  return _in_disk(np.asarray(flat, np.float64))


def _cosne(x, rows, c, seed):
  hyperbolix, jax = _hyperbolix(c), _module('jax', 'jax')
  _check_all_pairs(len(rows), 'cosne')
  cosne = hyperbolix.decomposition.CoSNE(
    hyperbolix.manifolds.Poincare(), perplexity=min(30, len(rows) / 4)
  )
  flat = cosne.fit_transform(
    jax.numpy.asarray(rows, 'float32'), 1.0, jax.random.key(seed)
  )
  return _in_disk(np.asarray(flat, np.float64))


def _umap(x, rows, c, seed):
  umap = _module('umap', 'umap-learn')
  _check_all_pairs(len(rows), 'umap')
  distance, _ = _spaces.resolve(None, c)
  gallery = _distances.Gallery(rows, distance, 1.0 if c else c)
  found = umap.UMAP(
    metric='precomputed',
    output_metric='hyperboloid',
    n_neighbors=min(15, len(rows) - 1),
    random_state=seed,
  ).fit_transform(gallery.distances(rows))
  # Two coordinates of the hyperboloid: to the disk by its point -1.
  return _in_disk(found / (1 + np.sqrt(1 + np.square(found).sum(1)))[:, None])


METHODS: dict[str, Callable[..., np.ndarray]] = {
  'pca': _pca,
  'horopca': _horopca,
  'cosne': _cosne,
  'umap': _umap,
}


def _hyperbolix(c) -> Any:
  if not c:
    raise UserError(
      'HoroPCA and CO-SNE project points of the Poincare ball, but c is'
      f' {c}: use pca or umap'
    )
  hyperbolix = _module('hyperbolix', 'hyperbolix', ' (Python 3.12 or later)')
  for name in 'decomposition', 'manifolds':
    importlib.import_module(f'hyperbolix.{name}')
  return hyperbolix


def _module(name: str, package: str, note: str = '') -> ModuleType | Any:
  try:
    return importlib.import_module(name)
  except ImportError as error:
    raise UserError(
      f'this projection needs {package}{note}: pip install {package}'
    ) from error


def _check_all_pairs(n, method):
  if n > _ALL_PAIRS:
    raise UserError(
      f'{method} needs the distances of all pairs, and there are {n:,} points;'
      f' expected at most {_ALL_PAIRS:,}: use pca, or project a sample'
    )


def rescaled(rows, function):
  """Rows whose norms a function has changed, each in its direction."""
  norm = np.linalg.norm(rows, axis=1, keepdims=True)
  return rows * (function(norm) / np.where(norm > 0, norm, 1))


def _in_disk(rows):
  """Rows of norm below 1, which rounding may have brought to the edge."""
  norm = np.linalg.norm(rows, axis=1, keepdims=True)
  return rows * np.minimum(1, _LARGEST / np.maximum(norm, _LARGEST))


def _within(rows, n):
  """Rows scaled into the disk."""
  norms = np.linalg.norm(rows[:n], axis=1)
  scale = np.quantile(norms, 0.95) if n else 0.0
  if scale == 0:
    return rows
  return rescaled(rows / scale * np.arctanh(_RADIUS), np.tanh)


def distortion(x, disk, c, seed):
  """`Projection.spearman` and `.kept`; NaN of fewer than three points."""
  n = len(x)
  if n < 3:
    return float('nan'), float('nan')
  draw = np.random.default_rng(seed)
  distance, _ = _spaces.resolve(None, c)
  anchors = draw.permutation(n)[:_ANCHORS]
  true = _distances.Gallery(x, distance, c).distances(x[anchors])
  flat = _distances.Gallery(disk, 'hyperbolic', 1.0).distances(disk[anchors])
  row, column = (
    draw.integers(len(anchors), size=_PAIRS),
    draw.integers(n, size=_PAIRS),
  )
  other = anchors[row] != column
  row, column = row[other], column[other]
  pairs = true[row, column], flat[row, column]
  # Of equal distances there is no order.
  rank = float('nan')
  if all(np.ptp(far) > 0 for far in pairs):
    rank = scipy.stats.spearmanr(*pairs).statistic
  k = min(_NEIGHBORS, n - 1)
  kept = [
    len(np.intersect1d(*(_nearest(row, anchor, k) for row in rows))) / k
    for anchor, *rows in zip(anchors, true, flat, strict=True)
  ]
  return float(rank), float(np.mean(kept))


def _nearest(distances, anchor, k):
  distances = distances.copy()
  distances[anchor] = np.inf
  return np.argpartition(distances, k - 1)[:k]
