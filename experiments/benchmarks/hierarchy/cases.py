"""Data of the benchmark and what it measures, one to a process.

As a program it runs one case and prints its measurements as JSON.
"""

import argparse
import json
import pathlib
import resource
import tempfile
import time
from collections.abc import Callable

import numpy as np

from hier_jax import evaluation
from hier_jax.evaluation.tree.formats import read_json
from hier_jax.evaluation.tree.lca import lca_agreement

__all__ = [
  'CASES',
  'NUM_PROXIES',
  'PROXY_TREE',
  'TRIPLES',
  'products',
  'write_products',
]

C = 0.1
_D = 128
# Stanford Online Products' test split, and super classes of all its products.
_ITEMS, _CLASSES, _TOPS = 60_502, 11_316, 12
NUM_PROXIES = 512
TRIPLES = 'triples of 1,000 leaves'
PROXY_TREE = f'tree by {NUM_PROXIES} proxies'


def products(
  num: int, seed: int = 0
) -> tuple[np.ndarray, np.ndarray, evaluation.Taxonomy]:
  """Points of the ball `[num, 128]` of planted products.

  As many items a class as in Stanford Online Products, and its 12 super
  classes.

  Returns:
    float32 points, classes, and the tree of these.
  """
  rng = np.random.default_rng(seed)
  num_classes = max(_TOPS, num * _CLASSES // _ITEMS)
  y = rng.permutation(np.arange(num) % num_classes)
  top = np.arange(num_classes) % _TOPS
  draw = lambda n: rng.standard_normal((n, _D), np.float32)
  centers = draw(_TOPS)[top] + draw(num_classes)
  x = centers[y]
  x += 1.5 * draw(num)
  x /= np.linalg.norm(x, axis=1, keepdims=True)
  x *= rng.uniform(0.5, 0.95, (num, 1)).astype(np.float32) / np.sqrt(C)
  levels = [[f'super class {i}'] for i in top]
  return x, y, evaluation.Taxonomy.from_levels(levels)


def write_products(folder: pathlib.Path, num: int) -> list[str]:
  """Writes products as files; what `hier-jax evaluate` takes to read them."""
  x, y, taxonomy = products(num)
  np.savez(folder / 'products.npz', embeddings=x, labels=y, c=C)
  rows = [
    f'{name},{taxonomy.node_names[path[0]]}'
    for name, path in zip(taxonomy.classes, taxonomy.path, strict=True)
  ]
  (folder / 'classes.csv').write_text('\n'.join(['class,super class', *rows]))
  files = folder / 'products.npz', folder / 'classes.csv'
  return [str(files[0]), '--taxonomy', str(files[1])]


def tree(num: int, seed: int = 0) -> evaluation.Tree:
  """A random binary tree with names, heights and lengths."""
  rng = np.random.default_rng(seed)
  parent, free = np.full(2 * num - 1, -1), list(range(num))
  drawn = rng.random((num - 1, 2)).tolist()
  for node, pair in enumerate(drawn, num):
    for share in pair:
      # The last takes the place of the one that goes.
      at = int(share * len(free))
      free[at], free[-1] = free[-1], free[at]
      parent[free.pop()] = node
    free.append(node)
  height = np.maximum(np.arange(2 * num - 1) - num + 1, 0) / num
  length = np.where(parent < 0, 0, height[parent] - height)
  names = tuple(f'images/{i:07d}.jpg' for i in range(num))
  return evaluation.Tree(parent, names, height=height, length=length)


# ---- cases: number of items -> what is measured, and what is told of it -----


def _metrics(
  num: int, queries: int | None
) -> tuple[Callable[[], object], Callable[[], dict]]:
  x, y, taxonomy = products(num)
  found: dict = {}

  def run() -> None:
    options = {'c': C, 'max_queries': queries}
    found.update(evaluation.hierarchy_metrics(x, y, taxonomy, **options))

  def tell() -> dict:
    keys = 'h_ap', 'num_ranked', 'h_ap/ci95'
    return {key: found[key] for key in keys if key in found}

  return run, tell


def _write(num: int, ending: str):
  made, folder = tree(num), tempfile.TemporaryDirectory()
  path = pathlib.Path(folder.name) / f'tree{ending}'

  def tell():
    size = path.stat().st_size / 1e6
    folder.cleanup()
    return {'file_mb': size}

  return lambda: evaluation.write_tree(made, path), tell


def _read(num: int):
  with tempfile.TemporaryDirectory() as name:
    text = pathlib.Path(name) / 'tree.json'
    evaluation.write_tree(tree(num), text)
    kept = text.read_bytes()
  folder = tempfile.TemporaryDirectory()
  path = pathlib.Path(folder.name) / 'tree.json'
  path.write_bytes(kept)
  del kept
  return lambda: read_json(path), lambda: folder.cleanup() or {}


def _cut(num: int):
  made = tree(num)
  return lambda: evaluation.cut_tree(made, num_clusters=1000), dict


def _purity(num: int, max_exact: int):
  made = tree(num)
  # Leaves that meet low are of one class in most cases.
  y = evaluation.cut_tree(made, num_clusters=num // 5)
  rng = np.random.default_rng(1)
  y = np.where(rng.random(num) < 0.7, y, rng.permutation(y))
  found: list = []

  def run():
    # Another tree, which knows no sizes yet.
    again = evaluation.Tree(made.parent)
    found.append(evaluation.dendrogram_purity(again, y, max_exact=max_exact))

  return run, lambda: dict(found[0]._asdict())


def _proxy_tree(num: int):
  x, _, _ = products(num)
  rng = np.random.default_rng(1)
  # Items themselves, pulled to the center: some of them far.
  share = rng.uniform(0.05, 0.8, (NUM_PROXIES, 1)).astype(np.float32)
  proxies = share * x[rng.choice(num, NUM_PROXIES, replace=False)]
  return lambda: evaluation.proxy_tree(x, proxies, c=C), dict


def _lca(num: int):
  made = tree(num)
  # Leaves that meet low are of one class, and of one super class.
  y = evaluation.cut_tree(made, num_clusters=num // 5)
  top = np.zeros(1 + y.max(), int)
  top[y] = evaluation.cut_tree(made, num_clusters=_TOPS)
  levels = [[f'super class {i}'] for i in top]
  taxonomy = evaluation.Taxonomy.from_levels(levels)
  found: list = []

  def run():
    again = evaluation.Tree(made.parent)
    found.append(lca_agreement(again, y, taxonomy))

  return run, lambda: {'value': found[0].triplets}


CASES: dict[str, Callable] = {
  'metrics': _metrics,
  'write .json': lambda num: _write(num, '.json'),
  'write .nwk': lambda num: _write(num, '.nwk'),
  'write .graphml': lambda num: _write(num, '.graphml'),
  'read .json': _read,
  'cut into 1,000': _cut,
  'purity, all pairs': lambda num: _purity(num, num),
  'purity, 100,000 pairs': lambda num: _purity(num, 1),
  TRIPLES: _lca,
  PROXY_TREE: _proxy_tree,
}


def main() -> None:
  """Runs a case and reports it."""
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument('case', choices=CASES)
  parser.add_argument('num', type=int)
  parser.add_argument('--queries', type=int, help='queries that are ranked')
  args = parser.parse_args()
  given = (args.queries,) if args.case == 'metrics' else ()
  run, tell = CASES[args.case](args.num, *given)
  start, before = time.perf_counter(), time.process_time()
  run()
  measured = {
    'wall': time.perf_counter() - start,
    'cpu': time.process_time() - before,
    'peak_mb': resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3,
  }
  print(json.dumps(measured | tell()))


if __name__ == '__main__':
  main()
