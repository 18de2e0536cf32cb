"""Times programs side by side: compiled first, then run in turns."""

import dataclasses
import os
import statistics
import time
from collections.abc import Callable, Sequence

import jax


@dataclasses.dataclass
class Contender:
  """A program with its arguments, and its measurements.

  Attributes:
    name: of its row.
    program: called with the arguments, returns arrays.
    arguments: of every run.
    compile_seconds: tracing, lowering and compiling.
    temporary_mb: what it allocates besides arguments and results.
    milliseconds: of each run.
    user_seconds: CPU time of all runs outside the operating system.
    kernel_seconds: CPU time of all runs inside it.
  """

  name: str
  program: Callable
  arguments: tuple
  compile_seconds: float
  temporary_mb: float
  milliseconds: list[float] = dataclasses.field(default_factory=list)
  user_seconds: float = 0
  kernel_seconds: float = 0

  def call(self):
    """Runs once and returns its arrays when they are there."""
    return jax.block_until_ready(self.program(*self.arguments))

  def run(self):
    """Runs once and notes its times."""
    cpu, start = os.times(), time.perf_counter()
    self.call()
    self.milliseconds.append(1e3 * (time.perf_counter() - start))
    after = os.times()
    self.user_seconds += after.user - cpu.user
    self.kernel_seconds += after.system - cpu.system

  @property
  def median(self) -> float:
    """Median milliseconds."""
    return statistics.median(self.milliseconds)

  @property
  def cores(self) -> float:
    """CPU time by time: how many cores it keeps busy."""
    busy = self.user_seconds + self.kernel_seconds
    return 1e3 * busy / sum(self.milliseconds)


def compiled(name: str, function: Callable, *arguments) -> Contender:
  """Compiles a function for its arguments, and looks up what it allocates."""
  start = time.perf_counter()
  program = jax.jit(function).lower(*arguments).compile()
  seconds = time.perf_counter() - start
  temporary = program.memory_analysis().temp_size_in_bytes / 1e6
  return Contender(name, program, arguments, seconds, temporary)


def in_turns(found: Sequence[Contender], rounds: int, seconds=float('inf')):
  """Runs every contender once a round: a busy machine hits them all alike.

  Args:
    found: programs; each runs once more before, unmeasured.
    rounds: how many, unless time runs out.
    seconds: after which no further round begins; two are run all the same.
  """
  for contender in found:
    contender.call()
  start = time.perf_counter()
  for turn in range(rounds):
    if turn >= 2 and time.perf_counter() - start > seconds:
      break
    shift = turn % len(found)
    for contender in (*found[shift:], *found[:shift]):
      contender.run()


def short(ratio: float) -> str:
  """Two digits where that is not too many."""
  return f'{ratio:.0f}' if ratio >= 10 else f'{ratio:.2g}'


def ratio(contender: Contender, base: Contender) -> str:
  """The median, with quartiles, of the ratios of times of the same round."""
  if contender is base:
    return '1'
  pairs = zip(contender.milliseconds, base.milliseconds, strict=True)
  quartiles = statistics.quantiles([a / b for a, b in pairs], n=4)
  low, middle, high = map(short, quartiles)
  return f'{middle} ({low} to {high})'
