"""Data and contenders of the retrieval benchmark, one to a process.

As a program it runs one contender and prints its measurements as JSON.
"""

import argparse
import dataclasses
import functools
import json
import os
import resource
import time
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from experiments.benchmarks.common import libraries
from hier_jax import evaluation

CURVATURES = {'cosine': None, 'hyperbolic': 0.1}
RECALL_AT = 1, 10, 100, 1000
_D = 128
_MATMUL = 4096


@dataclasses.dataclass(frozen=True)
class Data:
  """Arrays of a task.

  Attributes:
    x: queries `[n, D]` float32.
    y: their classes `[n]`.
    given: `gallery` and `gallery_labels`, or nothing where that is the queries.
    c: curvature, None for cosine.
  """

  x: np.ndarray
  y: np.ndarray
  given: dict
  c: float | None

  @property
  def gallery(self):
    """`[m, D]`."""
    return self.given.get('gallery', self.x)

  @property
  def flop(self):
    """Of the matrix product of all queries and the gallery."""
    return 2 * self.x.size * len(self.gallery)


def products(distance, share=1.0, seed=0):
  """Sizes of Stanford Online Products' test split: 11,316 classes, 2 to 12."""
  rng = np.random.default_rng(seed)
  sizes = np.full(round(share * 11_316), 2)
  while (left := round(share * 60_502) - sizes.sum()) > 0:
    grown = rng.choice(len(sizes), min(left, len(sizes) // 2), replace=False)
    sizes[grown] += sizes[grown] < 12
  y = rng.permutation(np.repeat(np.arange(len(sizes)), sizes))
  centers = _directions(rng, len(sizes))
  return Data(_points(rng, centers, y, distance), y, {}, CURVATURES[distance])


def million(distance, share=1.0, seed=0):
  """10,000 queries and a million others of 100,000 classes."""
  rng = np.random.default_rng(seed)
  classes, *numbers = (
    round(share * number) for number in (100_000, 10_000, 1_000_000)
  )
  centers = _directions(rng, classes)
  y, gallery_y = (rng.integers(0, classes, number) for number in numbers)
  given = {
    'gallery': _points(rng, centers, gallery_y, distance),
    'gallery_labels': gallery_y,
  }
  return Data(
    _points(rng, centers, y, distance), y, given, CURVATURES[distance]
  )


TASKS = {'products': products, 'million': million}


def _directions(rng, n):
  return rng.standard_normal((n, _D), np.float32)


def _points(rng, centers, y, distance):
  """Points about the centers of their classes `[n, D]`."""
  x = centers[y]
  x += 1.5 * _directions(rng, len(x))
  x /= np.linalg.norm(x, axis=1, keepdims=True)
  if distance == 'hyperbolic':
    x *= rng.uniform(0.5, 0.95, (len(x), 1)).astype(np.float32)
    x /= np.sqrt(CURVATURES[distance])
  return x


# ---- contenders: Data -> metrics, and the seconds to count for all queries ---


def _ours(data, metrics, **options):
  return evaluation.retrieval_metrics(
    data.x,
    data.y,
    **data.given,
    c=data.c,
    recall_at=RECALL_AT,
    metrics=metrics,
    **options,
  )


def _matmul(data):
  """A product that a processor is good at, for its rate."""
  del data
  x = jax.random.normal(jax.random.key(0), (_MATMUL, _MATMUL))
  product = jax.jit(functools.partial(jnp.matmul, precision='highest'))
  jax.block_until_ready(product(x, x))
  rates = []
  for _ in range(5):
    start, before = time.perf_counter(), time.process_time()
    jax.block_until_ready(product(x, x))
    flop = 2 * _MATMUL**3
    rates.append(
      (
        flop / (time.perf_counter() - start),
        flop / (time.process_time() - before),
      )
    )
  by_wall, by_cpu = map(max, zip(*rates, strict=True))
  return {'by_wall': by_wall, 'by_cpu': by_cpu}


def _faiss(data, k):
  """Search alone: what comes back is not looked at."""
  import faiss

  faiss.omp_set_num_threads(len(os.sched_getaffinity(0)))
  q, g = evaluation.lift(data.x, data.gallery, c=data.c)
  index = faiss.IndexFlatIP(q.shape[1])
  index.add(g)
  # At once, a million by a thousand neighbors would be gigabytes.
  for rows in np.array_split(q, -(-len(q) // 4096)):
    index.search(rows, k)
  return {}


def _metric_learning(data):
  from pytorch_metric_learning.utils import accuracy_calculator

  theirs = {
    'precision_at_1': 'recall@1',
    'mean_average_precision_at_r': 'map@r',
  }
  calculator = accuracy_calculator.AccuracyCalculator(
    include=tuple(theirs), k='max_bin_count'
  )
  found = calculator.get_accuracy(data.x, data.y, *data.given.values())
  return {theirs[name]: value for name, value in found.items()}


def _row_by_row(data, queries=40):
  """All distances of a query by HIER's formula, sorted as far as need be."""
  gallery = jnp.asarray(data.gallery)
  own = not data.given

  @jax.jit
  def nearest(x):
    if data.c:
      scores = -libraries.mobius_tensor(x[None], gallery, data.c)[0]
    else:
      unit = lambda x: x / jnp.linalg.norm(x, axis=-1, keepdims=True)
      scores = unit(gallery) @ unit(x)
    return lax.top_k(scores, max(RECALL_AT) + own)[1]

  nearest(data.x[0]).block_until_ready()
  start, before = time.perf_counter(), time.process_time()
  labels = data.given.get('gallery_labels', data.y)
  for i in range(queries):
    found = np.asarray(nearest(data.x[i]))
    hits = labels[found[found != i] if own else found] == data.y[i]
    for k in RECALL_AT:
      hits[:k].any()
  scale = len(data.x) / queries
  return {
    'wall': scale * (time.perf_counter() - start),
    'cpu': scale * (time.process_time() - before),
  }


def _agreement(data, queries=2000):
  """How many of some queries rank as in float64.

  'near': whether any positive has a negative so near that float32 may swap
  them. 'wrong': a rank that this does not account for.
  """
  result = evaluation.per_query(
    data.x, data.y, **data.given, c=data.c, attributes=('rank', 'ap')
  )
  queries = min(queries, len(data.x))
  chosen = np.random.default_rng(1).choice(len(data.x), queries, replace=False)
  labels = data.given.get('gallery_labels', data.y)
  q, g = evaluation.lift(data.x[chosen], data.gallery, c=data.c)
  # What a float32 score may be off by, and that of a positive with it.
  rounding = 4e-7 * np.linalg.norm(q, axis=1)[:, None]
  length = np.linalg.norm(g, axis=1)
  count = dict.fromkeys(('rank', 'ap', 'near', 'wrong'), 0)
  rows = zip(chosen, _exact_scores(data, chosen), rounding, strict=True)
  for i, scores, near in rows:
    mine = labels == data.y[i]
    negatives, near = scores[~mine], near * length[~mine]
    mine[i] &= bool(data.given)
    positives = np.sort(scores[mine])[::-1]
    r = len(positives)
    if not r:
      continue
    least, ranks, most = (
      np.arange(1, 1 + r) + np.sum(negatives + shift >= positives[:, None], 1)
      for shift in (-near, 0, near)
    )
    ap = np.sum(np.arange(1, 1 + r) / ranks * (ranks <= r)) / r
    rank = result.rank[i]
    count['rank'] += int(rank == ranks[0])
    count['ap'] += int(abs(result.ap[i] - ap) < 1e-6)
    count['near'] += int(np.any(least != most))
    count['wrong'] += int(not least[0] <= rank <= most[0])
  return {'sampled': queries} | count


def _exact_scores(data, rows):
  """Cosine, or minus what the hyperbolic distance grows with, `[m]` each."""
  y = data.gallery.astype(np.float64)
  if not data.c:
    y /= np.linalg.norm(y, axis=1, keepdims=True)
  for some in np.array_split(rows, -(-len(rows) // 50)):
    x = data.x[some].astype(np.float64)
    if not data.c:
      yield from (x / np.linalg.norm(x, axis=1, keepdims=True)) @ y.T
      continue
    x2, y2 = (data.c * np.sum(a * a, 1) for a in (x, y))
    yield from (2 * data.c * (x @ y.T) - x2[:, None] - y2) / (1 - y2)


CONTENDERS: dict[str, Callable[[Data], dict]] = {
  'matmul': _matmul,
  'best': functools.partial(_ours, metrics=()),
  'map@r': functools.partial(_ours, metrics=('map@r',)),
  'bfloat16': functools.partial(_ours, metrics=(), product='bfloat16'),
  'faiss, 1000': functools.partial(_faiss, k=1001),
  'faiss, 12': functools.partial(_faiss, k=12),
  'metric learning': _metric_learning,
  'row by row': _row_by_row,
  'agreement': _agreement,
}


def main():
  """Runs a contender twice (once where it takes long) and reports the last."""
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument('contender', choices=CONTENDERS)
  parser.add_argument('task', choices=TASKS)
  parser.add_argument('distance', choices=CURVATURES)
  parser.add_argument('--runs', type=int, default=2)
  parser.add_argument('--share', type=float, default=1.0)
  args = parser.parse_args()
  data = TASKS[args.task](args.distance, args.share)
  seconds = []
  for _ in range(args.runs):
    start, before = time.perf_counter(), time.process_time()
    found = CONTENDERS[args.contender](data)
    seconds.append(time.perf_counter() - start)
    cpu = time.process_time() - before
  peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3
  measured = {'wall': seconds[-1], 'cpu': cpu, 'first': seconds[0]}
  measured |= {'peak_mb': peak, 'flop': data.flop}
  print(json.dumps(measured | found))


if __name__ == '__main__':
  main()
