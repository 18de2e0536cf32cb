"""Oracles of retrieval in float64: the scores' formulas, and full sorts."""

import numpy as np


def cosine(x, y, c=0.0):
  """[n, m] float64; equal rows of y score exactly the same."""
  del c
  x, y = np.float64(x), np.float64(y)
  x = x / np.linalg.norm(x, axis=1, keepdims=True)
  y = y / np.linalg.norm(y, axis=1, keepdims=True)
  return np.sum(x[:, None] * y[None], -1)


def euclidean(x, y, c=0.0):
  """[n, m] float64, minus the distance."""
  del c
  return -np.linalg.norm(np.float64(x)[:, None] - np.float64(y)[None], axis=-1)


def hyperbolic(x, y, c):
  """[n, m] float64, minus the distance by the arcosh formula."""
  x, y = np.float64(x), np.float64(y)
  a, b = 1 - c * np.sum(x**2, -1), 1 - c * np.sum(y**2, -1)
  square = np.sum((x[:, None] - y[None]) ** 2, -1)
  return -np.arccosh(1 + 2 * c * square / (a[:, None] * b)) / np.sqrt(c)


def lorentz(x, y, c):
  """[n, m] float64, minus the distance by the inner product of spacetime."""
  x, y = np.float64(x), np.float64(y)
  products = x[:, None] * y[None]
  inner = products[..., 0] - np.sum(products[..., 1:], -1)
  return -np.arccosh(np.maximum(c * inner, 1)) / np.sqrt(c)


DISTANCES = {
  'cosine': cosine,
  'euclidean': euclidean,
  'hyperbolic': hyperbolic,
  'lorentz': lorentz,
}


def in_ball(rng, n, d, c):
  """Points from the center to 0.999 of the radius."""
  x = rng.normal(size=(n, d))
  radius = 0.999 * rng.uniform(size=(n, 1)) ** 0.2 / np.sqrt(c)
  return np.float32(radius * x / np.linalg.norm(x, axis=1, keepdims=True))


def sample(rng, distance, n, d, c):
  """Random points of the distance's space, `[n, d]` or `[n, 1 + d]`."""
  if distance != 'lorentz':
    return in_ball(rng, n, d, c or 1)
  space = rng.normal(size=(n, d))
  time = np.sqrt(1 / c + np.sum(space**2, 1, keepdims=True))
  return np.hstack([time, space])


def _ranks(scores, positive, late):
  """Ranks of the positives from 1, in order; those that are late lose ties."""
  return 1 + np.flatnonzero(positive[np.lexsort((late, -scores))])


def oracle(scores, labels, gallery_labels, own, ties='pessimistic', at=()):
  """Attributes of `PerQuery` by sorting the whole gallery of each query."""
  names = 'rank', 'num_positives', 'ap', 'r_precision', 'full_ap', 'precision'
  rows = []
  for i, label in enumerate(labels):
    kept = np.arange(len(gallery_labels)) != own[i]
    positive = (gallery_labels == label)[kept]
    r = positive.sum()
    if r == 0:
      rows.append((0, 0, 0.0, 0.0, 0.0, [0.0] * len(at)))
      continue
    bounds = {
      'pessimistic': _ranks(scores[i][kept], positive, positive),
      'optimistic': _ranks(scores[i][kept], positive, ~positive),
    }
    bounds['mean'] = (bounds['pessimistic'] + bounds['optimistic']) / 2
    ranks = bounds[ties]
    precision = np.arange(1, r + 1) / ranks
    rows.append(
      (
        ranks[0],
        r,
        np.sum(precision[ranks <= r]) / r,
        np.mean(ranks <= r),
        np.mean(precision),
        [np.sum(ranks <= k) / k for k in at],
      )
    )
  columns = map(np.array, zip(*rows, strict=True))
  return dict(zip(names, columns, strict=True))


def assert_matches(result, expected):
  """`PerQuery` as the oracle says: counts exactly, shares to float32."""
  for name, values in expected.items():
    tolerance = 0 if name in ('rank', 'num_positives') else 1e-6
    np.testing.assert_allclose(
      getattr(result, name), values, rtol=tolerance, atol=0, err_msg=name
    )
