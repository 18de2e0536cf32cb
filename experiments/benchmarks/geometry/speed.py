"""What a hyperbolic distance matrix and its gradient cost in time and memory.

Value and gradient by x and y of a weighted sum of the distances of 692 x 692
points (HIER's batch and proxies), compiled, every contender in turn.
"""

import argparse
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from experiments import command_line
from experiments.benchmarks.common import libraries, report, timing
from experiments.benchmarks.geometry import ball
from hier_jax.poincare import _pairwise

_POINTS = 692  # 180 embeddings and 512 hierarchical proxies
_CURVATURE = 0.1
_BASE = 'hier_jax, auto'


def contenders() -> dict[str, Callable]:
  """Distance matrices (x, y, c) -> `[n, m]` by name."""
  found = {
    f'hier_jax, {backward}': libraries.ours(backward)
    for backward in _pairwise.BACKWARDS
  }
  found |= {
    "HIER's formula (n x m x D)": libraries.mobius_tensor,
    'textbook pair, vmap of vmap': libraries.mobius_vmap,
  }
  try:
    found['hyperbolix pair, vmap of vmap'] = libraries.hyperbolix_vmap()
  except ImportError:
    print('hyperbolix is not installed')
  return found


def measure(d, rounds, seed) -> list[timing.Contender]:
  """Times value and gradient of every contender."""
  rng = np.random.default_rng([seed, d])
  points = ball.sample(rng, "head's range", _POINTS, _POINTS, d, _CURVATURE)
  weights = rng.standard_normal((_POINTS, _POINTS)).astype(np.float32)
  arguments = tuple(map(jnp.asarray, (*points, weights)))

  def value_and_grad(distance):
    loss = lambda x, y, weights: jnp.sum(weights * distance(x, y, _CURVATURE))
    return jax.value_and_grad(loss, argnums=(0, 1))

  found = [
    timing.compiled(name, value_and_grad(distance), *arguments)
    for name, distance in contenders().items()
  ]
  timing.in_turns(found, rounds)
  return found


def rows(d, found):
  """Table rows; the ratio of times is the median of the rounds' ratios."""
  base = next(c for c in found if c.name == _BASE)
  for contender in found:
    memory, kernel = contender.temporary_mb, contender.kernel_seconds
    yield [
      contender.name,
      str(d),
      f'{contender.median:.1f}',
      timing.ratio(contender, base),
      f'{100 * kernel / (kernel + contender.user_seconds):.0f} %',
      f'{memory:.1f}',
      timing.short(memory / base.temporary_mb),
      f'{contender.compile_seconds:.2f}',
    ]


def report_text(dimensions, rounds, seed):
  """Measures everything; the Markdown of the page."""
  heading = [
    'value and gradient',
    'D',
    'ms',
    'its ratio',
    'in the kernel',
    'temporaries, MB',
    'its ratio',
    'compile, s',
  ]
  body = [row for d in dimensions for row in rows(d, measure(d, rounds, seed))]
  device = jax.devices()[0]
  kind = '' if device.platform == 'cpu' else f' {device.device_kind},'
  return '\n\n'.join(
    [
      '# Distance matrix: time and memory',
      report.table(heading, body),
      f'{_POINTS} x {_POINTS} points, c = {_CURVATURE}, float32. Medians of'
      f' {rounds} rounds in which every contender runs once. Ratios are to'
      f' "{_BASE}", those of times of the same round, with quartiles. "In the'
      ' kernel" is the share of CPU time that went into the operating system,'
      ' which hands out the pages of the temporaries.',
      f'{report.versions(libraries.JAX_PACKAGES)}.{kind} {report.machine()}.',
      'Written by `experiments/benchmarks/geometry/speed.py`.',
    ]
  )


def main():
  """Reads the command line."""
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument(
    '--out',
    type=command_line.path,
    default=report.RESULTS / 'geometry_speed.md',
  )
  parser.add_argument('--dimensions', type=int, nargs='+', default=(128, 512))
  parser.add_argument('--rounds', type=int, default=15)
  parser.add_argument('--seed', type=int, default=0)
  args = parser.parse_args()
  text = report_text(args.dimensions, args.rounds, args.seed)
  print(text)
  args.out.parent.mkdir(parents=True, exist_ok=True)
  args.out.write_text(text + '\n', 'utf-8')


if __name__ == '__main__':
  main()
