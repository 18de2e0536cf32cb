"""What sources of noise, estimators and chunks cost."""

import functools

import jax

from experiments.benchmarks.common import report, timing
from experiments.benchmarks.loss import (
  sources,
  tables,
)
from experiments.benchmarks.loss.cases import (
  PER_ANCHOR,
  Case,
  compiled_with,
  value_and_grad,
)
from hier_jax.losses import _lca_picks, _lca_sums
from hier_jax.losses import _noise as noise_lib


def _ratio(contender, base):
  return timing.short(contender.median / base.median)


def _chance(source, size, sizes):
  chance = sources.chance(source, size, sizes.picks, sizes.seed)
  return f'{chance:.2f}' if chance >= 0.01 else report.scientific(chance)


def by_source(sizes):
  """Time and quality of random sources."""
  case = Case.usual(sizes)
  triplets, p = PER_ANCHOR * len(case.z), len(case.proxies)
  filled, losses_with, chances = [], [], []
  for name, source in sources.SOURCES.items():
    fill = functools.partial(source, first=0, count=triplets, size=p)
    filled.append(timing.compiled(name, fill, case.key))
    chances.append([_chance(source, n, sizes) for n in sizes.choices])
    losses_with.append(
      compiled_with(
        noise_lib,
        'exponential_rates',
        sources.in_place(name),
        name,
        case.arguments,
      )
    )
  for group in (filled, losses_with):
    timing.in_turns(group, sizes.rounds, sizes.seconds)
  rows = [
    [
      fill.name,
      f'{1e6 * fill.median / triplets / p:.2f}',
      tables.ms(loss),
      _ratio(loss, losses_with[0]),
      *chance,
    ]
    for fill, loss, chance in zip(filled, losses_with, chances, strict=True)
  ]
  heading = ['noise', 'ns a number', 'loss, ms', 'its ratio']
  heading += [f'p, {n} proxies' for n in sizes.choices]
  return [
    report.table(heading, rows),
    f'{case.size}; a number is one of {triplets} x {p}.'
    f' {tables.rounds(losses_with)} p: of a chi-square test of'
    f' {sizes.picks} picks, argmax of w / E, by their chances w / sum(w).'
    ' The loss takes its noise chunk by chunk, and the sources of JAX are'
    ' keyed there by a chunk, which is less than a key a triplet would cost.',
  ]


def by_estimator(sizes):
  """The estimators of the gradient of a pick."""
  case = Case.usual(sizes)
  found = [
    timing.compiled(f'`{e}`', value_and_grad(estimator=e), *case.arguments)
    for e in _lca_picks.ESTIMATORS
  ]
  timing.in_turns(found, sizes.rounds, sizes.seconds)
  return _options_table('estimator', case, found, found[0])


def by_chunk(sizes):
  """Chunks of the selection."""
  case, backend = Case.usual(sizes), jax.default_backend()
  chosen = _lca_sums.CHUNK.get(backend, _lca_sums.CHUNK_ELSEWHERE)
  first, last = sizes.chunks or ((13, 18) if backend == 'cpu' else (18, 24))
  names = {2**e: f'2^{e}' for e in range(first, last + 1)}
  found = [
    compiled_with(
      _lca_sums,
      'CHUNK',
      {backend: chunk},
      name + (', the choice' if chunk == chosen else ''),
      case.arguments,
    )
    for chunk, name in names.items()
  ]
  timing.in_turns(found, sizes.rounds, sizes.seconds)
  base = found[list(names).index(chosen)] if chosen in names else found[0]
  return _options_table('triplets x proxies', case, found, base)


def _options_table(what, case, found, base):
  rows = [
    [
      c.name,
      tables.ms(c),
      timing.ratio(c, base),
      f'{c.cores:.1f}',
      f'{c.temporary_mb:.0f}',
      f'{c.compile_seconds:.1f}',
    ]
    for c in found
  ]
  heading = [what, 'ms', 'its ratio', 'cores busy']
  heading += ['temporaries, MB', 'compile, s']
  return [
    report.table(heading, rows),
    f'{case.size}. {tables.rounds(found)}',
  ]
