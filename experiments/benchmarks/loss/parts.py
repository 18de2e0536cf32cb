"""What distances, mining and selection cost, each alone."""

import jax
import jax.numpy as jnp

from experiments.benchmarks.common import report, timing
from experiments.benchmarks.loss import tables
from experiments.benchmarks.loss.cases import (
  OPTIONS,
  PER_ANCHOR,
  Case,
  distances,
  embed,
  value_and_grad,
)
from hier_jax import losses
from hier_jax import mining as triplets


def by_part(sizes):
  """Distances, mining and selection, each alone."""
  columns = []
  for d in sizes.dimensions:
    found = _parts(Case.usual(sizes, d=d))
    timing.in_turns(found, sizes.rounds, sizes.seconds)
    columns.append(found)
  rows = [
    [part[0].name, *map(tables.ms, part), f'{part[0].compile_seconds:.1f}']
    for part in zip(*columns, strict=True)
  ]
  sums = [sum(c.median for c in column[:-1]) for column in columns]
  seconds = sum(c.compile_seconds for c in columns[0][:-1])
  whole = [f'{ms:.3g}' for ms in sums]
  rows.insert(-1, ['sum of these', *whole, f'{seconds:.1f}'])
  case = Case.usual(sizes)
  milliseconds = [f'D = {d}, ms' for d in sizes.dimensions]
  return [
    report.table(['part', *milliseconds, 'compile, s'], rows),
    f'B = {len(case.z)}, P = {len(case.proxies)}. {tables.rounds(columns[-1])}'
    ' Distances and selection with their gradients. Mining of the data'
    ' computes their distances to one another, that of the proxies has them.',
  ]


def _parts(case):
  z, proxies, labels, key = case.arguments

  def to_proxies(z, proxies):
    return distances(z, embed(proxies))

  def of_proxies(proxies):
    rho = embed(proxies)
    return distances(rho, rho)

  def with_gradient(function):
    def both(cotangents, *points):
      values, pull = jax.vjp(function, *points)
      return values, pull(cotangents)

    return both

  def selection(key, dist, drawn):
    loss = lambda dist: losses.lca(key, dist, drawn)
    return jax.value_and_grad(loss, has_aux=True)(dist)

  mined_proxies = lambda key, dist: _mined(key, jnp.exp(-dist))
  among, apart = of_proxies(proxies), to_proxies(z, proxies)
  data = apart, _mined_data(key, z, labels)
  proxy = among, mined_proxies(key, among)
  return [
    timing.compiled(
      'distances, data', with_gradient(to_proxies), apart, z, proxies
    ),
    timing.compiled(
      'distances, proxies', with_gradient(of_proxies), among, proxies
    ),
    timing.compiled('mining, data', _mined_data, key, z, labels),
    timing.compiled('mining, proxies', mined_proxies, key, among),
    timing.compiled('selection, data', selection, key, *data),
    timing.compiled('selection, proxies', selection, key, *proxy),
    timing.compiled('the whole loss', value_and_grad(), *case.arguments),
  ]


def _mined(key, similarity):
  found = triplets.reciprocal_neighbors(similarity, OPTIONS['k'])
  return triplets.sample_triplets(
    key, *found, len(similarity), per_anchor=PER_ANCHOR
  )


def _mined_data(key, z, labels):
  same = (labels[:, None] == labels[None]).astype(jnp.float32)
  return _mined(key, jnp.exp(-distances(z, z)) + same)


def by_proxies(sizes):
  """The data term by the number of proxies."""
  found = []
  for p in sizes.growth:
    case = Case.usual(sizes, p=p)
    drawn = _mined_data(case.key, case.z, case.labels)

    def term(z, proxies, key, drawn):
      dist = distances(z, embed(proxies))
      return losses.lca(key, dist, drawn)

    function = jax.value_and_grad(term, (0, 1), has_aux=True)
    arguments = case.z, case.proxies, case.key, drawn
    found.append(timing.compiled(str(p), function, *arguments))
  timing.in_turns(found, sizes.rounds, sizes.seconds)
  per_proxy = [1e3 * c.median / int(c.name) for c in found]
  rows = [
    [c.name, tables.ms(c), f'{us:.1f}', f'{us / per_proxy[0]:.2f}']
    for c, us in zip(found, per_proxy, strict=True)
  ]
  return [
    report.table(['P', 'ms', 'us a proxy', 'its ratio'], rows),
    f'Distances to the proxies and selection of the data term alone, B ='
    f' {sizes.batches[0]}, D = {sizes.dimensions[0]}. {tables.rounds(found)}'
    ' The proxy term grows with P^2 where every proxy is an anchor, and with P'
    ' where some are drawn: that is the whole loss, below.',
  ]


def by_anchors(sizes):
  """The whole loss by the number of proxies, and of those that are drawn."""
  found, anchors = [], []
  for p in sizes.growth:
    case = Case.usual(sizes, p=p)
    chosen = {None: 'the default'}
    if p == max(sizes.growth):
      chosen |= {sizes.growth[0]: f'{sizes.growth[0]} drawn', p: 'all'}
    for number, name in chosen.items():
      program = value_and_grad(proxy_anchors=number)
      found.append(timing.compiled(f'{p}, {name}', program, *case.arguments))
  timing.in_turns(found, sizes.rounds, sizes.seconds)
  base = found[0]
  busy = lambda c: c.cores * sum(c.milliseconds)
  for contender in found:
    (_, aux), _ = contender.call()
    anchors.append(f'{100 * float(aux["proxy/anchors"]):.0f} %')
  rows = [
    [
      c.name,
      tables.ms(c),
      timing.ratio(c, base),
      timing.short(busy(c) / busy(base)),
      f'{c.temporary_mb:.0f}',
      f'{c.compile_seconds:.1f}',
      share,
    ]
    for c, share in zip(found, anchors, strict=True)
  ]
  times = sizes.growth[-1] // sizes.growth[0]
  usual = next(c for c in found if c.name == f'{sizes.growth[-1]}, the default')
  what = f'HIER, value and gradient: P = {sizes.growth[-1]:,} over'
  what = f'{what} P = {sizes.growth[0]}'
  heading = ['P, anchors', 'ms', 'its ratio', 'ratio of CPU time']
  heading += ['temporaries, MB', 'compile, s', 'anchors of those drawn']
  return [
    report.table(heading, rows),
    f'Value and gradient, B = {sizes.batches[0]}, D = {sizes.dimensions[0]}.'
    f' {tables.rounds(found)} The default is all of up to 512 proxies, and 256'
    ' drawn of more (`proxy_anchors`). CPU time, of all rounds, does not count'
    ' what other programs of the machine take.',
    report.Figure(
      f'{what}, time',
      f'{timing.ratio(usual, base)} times',
      f'at most {times} times',
    ),
    report.Figure(
      f'{what}, CPU time',
      f'{timing.short(busy(usual) / busy(base))} times',
      f'at most {times} times',
    ),
  ]
