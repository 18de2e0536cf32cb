"""How many digits of a hyperbolic distance and of its gradient are right.

Writes the tables of docs/accuracy.md, where the measures are described.
"""

import argparse
import itertools
import sys

import jax.numpy as jnp
import numpy as np

from experiments import command_line
from experiments.benchmarks.common import libraries, report
from experiments.benchmarks.geometry import ball
from hier_jax.errors import UserError

_DIMENSIONS = 2, 16, 128, 512
_CURVATURES = 1e-6, 0.1, 1.0, 10.0
_ALONE = 'close pairs alone'
_MAP_REGIMES = [r for r in ball.REGIMES if r != ball.CLOSE]
_IDEAL = 'exact, each map rounded once'


class Worst:
  """The largest error, and the largest share of non-finite entries, by cell."""

  def __init__(self):
    self._cells = {}

  def add(self, row, column, value, truth, scale=None):
    """Compares one measurement with the truth.

    Args:
      row: name of the row.
      column: name of the column.
      value: `[k, d]`, rows are compared by their vectors, or `[k]`.
      truth: like value.
      scale: `[k]` that errors are shares of; rows where it is 0 are skipped. By
        default the norm of the truth.
    """
    value = value.astype(np.longdouble).reshape(len(truth), -1)
    truth = truth.reshape(len(truth), -1)
    norm = lambda a: np.sqrt(np.sum(a * a, -1))
    scale = norm(truth) if scale is None else scale
    used = scale > 0
    finite = np.isfinite(value).all(-1)
    share = 1 - np.mean(finite[used])
    kept = used & finite
    errors = norm(value[kept] - truth[kept]) / scale[kept]
    error = np.max(errors, initial=-1)
    cell = self._cells.get((row, column), (-1, 0))
    self._cells[row, column] = max(cell[0], error), max(cell[1], share)

  def text(self, row, column):
    """The cell as text; empty where nothing was measured."""
    if (row, column) not in self._cells:
      return ''
    error, share = self._cells[row, column]
    parts = [report.scientific(error)] if error >= 0 else []
    if share:
      percent = f'{100 * share:.3g}' if share > 1e-3 else '< 0.1'
      parts.append(f'non-finite {percent} %')
    return ', '.join(parts)

  def table(self, columns, missing=()):
    """A Markdown table of all rows; missing libraries are named as such."""
    names = dict.fromkeys(row for row, _ in self._cells)
    rows = [[name, *(self.text(name, c) for c in columns)] for name in names]
    absent = ['not installed', *[''] * (len(columns) - 1)]
    rows += [[name, *absent] for name in missing]
    return report.table(['', *columns], rows)


def _cases(seed, regimes):
  """Random generator, regime, dimensions and curvature of every setting."""
  settings = itertools.product(regimes, _DIMENSIONS, _CURVATURES)
  for k, setting in enumerate(settings):
    yield np.random.default_rng([seed, k]), *setting


def measure_pairs(found, n, m, seed):
  """Distances and gradients in float32.

  Args:
    found: libraries.
    n: number of points x.
    m: number of points y.
    seed: integer.

  Returns:
    Three of `Worst`: distances, their gradients, and the gradients of hier_jax
    under cotangents of mixed sign.
  """
  distance, gradient, mixed = Worst(), Worst(), Worst()
  for rng, regime, d, c in _cases(seed, ball.REGIMES):
    x, y = ball.sample(rng, regime, n, m, d, c)
    pairs = ball.Pairs(x, y, c)
    distances = pairs.distance().ravel()
    weights = {regime: np.ones((n, m), np.float32)}
    if regime == ball.CLOSE:
      weights[_ALONE] = ball.close_pair_weights(n, m)
    gradients = {name: pairs.gradient(w)[0] for name, w in weights.items()}
    signed = rng.standard_normal((n, m)).astype(np.float32)
    signed_gradient, size = pairs.gradient(signed)
    for library in found:
      value = library.distance(x, y, c).ravel()
      distance.add(library.name, regime, value, distances)
      name = library.gradient_name
      for column, w in weights.items():
        value = library.gradient(x, y, c, w)
        gradient.add(name, column, value, gradients[column])
      if library.name == 'hier_jax':
        value = library.gradient(x, y, c, signed)
        row = f'{name}, as a share of '
        mixed.add(row + 'its terms', regime, value, signed_gradient, size)
        mixed.add(row + 'itself', regime, value, signed_gradient)
  return distance, gradient, mixed


def measure_bfloat16(found, n, m, seed):
  """Distances of bfloat16 points, in bfloat16: a `Worst`."""
  worst = Worst()
  for rng, regime, d, c in _cases(seed, ball.REGIMES):
    x, y = ball.sample(rng, regime, n, m, d, c, jnp.bfloat16)
    truth = ball.Pairs(x, y, c).distance().ravel()
    for library in found:
      value = library.distance(x, y, c).astype(jnp.bfloat16).ravel()
      worst.add(library.name, regime, value, truth)
    worst.add('exact, rounded once', regime, truth.astype(jnp.bfloat16), truth)
  return worst


def measure_maps(found, n, seed):
  """The maps at 0 and their round trips in float32: a `Worst`."""
  narrow = lambda function: lambda v, c: function(v, c).astype(np.float32)
  maps = [(f.name, f.exp0, f.log0) for f in found]
  maps.append((_IDEAL, narrow(ball.exp0), narrow(ball.log0)))
  worst = Worst()
  for rng, regime, d, c in _cases(seed, _MAP_REGIMES):
    x, _ = ball.sample(rng, regime, n, 1, d, c)
    u = ball.log0(x, c).astype(np.float32)

    def add(title, name, value, truth, column=regime):
      worst.add(f'{title}: {name}', column, value, truth.astype(np.longdouble))

    for name, exp0, _ in maps:
      add('exp0(u)', name, exp0(u, c), ball.exp0(u, c))
    for name, _, log0 in maps:
      add('log0(x)', name, log0(x, c), ball.log0(x, c))
    for name, exp0, log0 in maps:
      add('exp0(log0(x))', name, exp0(log0(x, c), c), x)
    for name, exp0, log0 in maps:
      add('log0(exp0(u))', name, log0(exp0(u, c), c), u)
  return worst


def report_text(n, m, seed):
  """Measures everything; the Markdown of the generated section."""
  found, missing = libraries.load()
  distance, gradient, mixed = measure_pairs(found, n, m, seed)
  bfloat16 = measure_bfloat16(found, n, m, seed)
  maps = measure_maps(found, n, seed)
  columns = list(ball.REGIMES)
  columns.insert(columns.index(ball.CLOSE) + 1, _ALONE)
  sections = {
    'Distance, float32': distance.table(ball.REGIMES, missing),
    'Gradient, float32': gradient.table(columns, missing),
    'Gradient under cotangents of mixed sign, float32': mixed.table(
      ball.REGIMES
    ),
    'Distance, bfloat16 in and out': bfloat16.table(ball.REGIMES, missing),
    'Maps at 0, float32': maps.table(_MAP_REGIMES, missing),
  }
  return '\n\n'.join(
    [
      *(f'### {title}\n\n{table}' for title, table in sections.items()),
      f'{n} x {m} points a setting, seed {seed}.'
      f' {report.versions(libraries.PACKAGES)}. {report.machine()}.',
    ]
  )


def main():
  """Reads the command line."""
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument(
    '--out',
    type=command_line.path,
    default=report.ROOT / 'docs' / 'accuracy.md',
    help='the page between whose marks the tables go',
  )
  parser.add_argument(
    '--pairs',
    type=int,
    nargs=2,
    default=(150, 120),
    metavar=('N', 'M'),
    help='points x and points y of a setting',
  )
  parser.add_argument('--seed', type=int, default=0)
  args = parser.parse_args()
  text = report_text(*args.pairs, args.seed)
  print(text)
  try:
    report.write_section(
      args.out, 'experiments/benchmarks/geometry/accuracy.py', text
    )
  except UserError as error:
    sys.exit(f'error: {error}')


if __name__ == '__main__':
  main()
