"""What a hyperbolic distance matrix and its gradient cost in time and memory.

Value and gradient by x and y of a weighted sum of the distances of 692 x 692
points (HIER's batch and proxies), compiled, every contender in turn.
"""

import argparse
import dataclasses
import os
import pathlib
import statistics
import time
from collections.abc import Callable

import ball
import jax
import jax.numpy as jnp
import libraries
import numpy as np
import report

from hier_jax.poincare import pairwise

_POINTS = 692  # 180 embeddings and 512 hierarchical proxies
_CURVATURE = 0.1
_BASE = 'hier_jax, auto'


@dataclasses.dataclass
class Contender:
  """A compiled program and its measurements."""

  name: str
  program: Callable
  compile_seconds: float
  temporary_mb: float
  milliseconds: list[float] = dataclasses.field(default_factory=list)
  user_seconds: float = 0
  kernel_seconds: float = 0

  def run(self, arguments):
    """Runs once and notes its times."""
    cpu, start = os.times(), time.perf_counter()
    jax.block_until_ready(self.program(*arguments))
    self.milliseconds.append(1e3 * (time.perf_counter() - start))
    after = os.times()
    self.user_seconds += after.user - cpu.user
    self.kernel_seconds += after.system - cpu.system


def contenders() -> dict[str, Callable]:
  """Distance matrices (x, y, c) -> `[n, m]` by name."""
  found = {
    f'hier_jax, {backward}': libraries.ours(backward)
    for backward in pairwise.BACKWARDS
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


def compiled(name, distance, arguments) -> Contender:
  """Compiles value and gradient, and looks up what it allocates."""

  def loss(x, y, weights):
    return jnp.sum(weights * distance(x, y, _CURVATURE))

  function = jax.jit(jax.value_and_grad(loss, argnums=(0, 1)))
  start = time.perf_counter()
  program = function.lower(*arguments).compile()
  seconds = time.perf_counter() - start
  temporary = program.memory_analysis().temp_size_in_bytes / 1e6
  return Contender(name, program, seconds, temporary)


def measure(d, rounds, seed) -> list[Contender]:
  """Times every contender once a round: a busy machine hits them all alike."""
  rng = np.random.default_rng([seed, d])
  points = ball.sample(rng, "head's range", _POINTS, _POINTS, d, _CURVATURE)
  weights = rng.standard_normal((_POINTS, _POINTS)).astype(np.float32)
  arguments = tuple(map(jnp.asarray, (*points, weights)))
  found = [compiled(k, f, arguments) for k, f in contenders().items()]
  for contender in found:
    jax.block_until_ready(contender.program(*arguments))
  for turn in range(rounds):
    shift = turn % len(found)
    for contender in found[shift:] + found[:shift]:
      contender.run(arguments)
  return found


def _short(ratio):
  return f'{ratio:.0f}' if ratio >= 10 else f'{ratio:.2g}'


def rows(d, found):
  """Table rows; the ratio of times is the median of the rounds' ratios."""
  base = next(c for c in found if c.name == _BASE)
  for contender in found:
    times, memory = contender.milliseconds, contender.temporary_mb
    pairs = zip(times, base.milliseconds, strict=True)
    quartiles = statistics.quantiles([a / b for a, b in pairs], n=4)
    low, middle, high = map(_short, quartiles)
    kernel = contender.kernel_seconds
    yield [
      contender.name,
      str(d),
      f'{statistics.median(times):.1f}',
      '1' if contender is base else f'{middle} ({low} to {high})',
      f'{100 * kernel / (kernel + contender.user_seconds):.0f} %',
      f'{memory:.1f}',
      _short(memory / base.temporary_mb),
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
      'Written by `experiments/benchmarks/geometry_speed.py`.',
    ]
  )


def main():
  """Reads the command line."""
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument(
    '--out',
    type=pathlib.Path,
    default=pathlib.Path(__file__).parent / 'results' / 'geometry_speed.md',
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
