"""What HIER's loss and its gradient cost, and where that goes.

Value and gradient by the embeddings and the proxies, compiled: by size, beside
the definition, part by part, by source of noise, estimator and chunk, and
beside a ViT's step. On an accelerator the same command times that.
"""

import functools
import math
import statistics

import chex
import jax
import jax.numpy as jnp

from experiments.benchmarks.common import report, timing
from experiments.benchmarks.loss import agreement, cases, literal, sources
from experiments.benchmarks.loss.cases import (
  OPTIONS,
  PER_ANCHOR,
  Case,
  Sizes,
  compiled_with,
  distances,
  embed,
  value_and_grad,
)
from hier_jax import losses, models
from hier_jax import mining as triplets
from hier_jax.losses import _lca_picks, _lca_sums
from hier_jax.losses import _noise as noise_lib

_SCRIPT = 'experiments/benchmarks/loss/__main__.py'
_PACKAGES = 'hier_jax', 'jax', 'jaxlib', 'flax', 'numpy'
_BACKBONE = 'vit_small_patch16'


def _ms(contender):
  median = contender.median
  return f'{median:.0f}' if median >= 100 else f'{median:.3g}'


def _ratio(contender, base):
  return timing.short(contender.median / base.median)


def _chance(source, size, sizes):
  chance = sources.chance(source, size, sizes.picks, sizes.seed)
  return f'{chance:.2f}' if chance >= 0.01 else report.scientific(chance)


def _rounds(found):
  """In words: how often the rows of a table ran."""
  runs = min(len(c.milliseconds) for c in found)
  return f'Medians of {runs} rounds in which every row runs once.'


# ---- sizes ------------------------------------------------------------------


def by_size(sizes):
  """Time, memory, compilation."""
  rows = []
  cases = [
    Case.create(b, p, d, sizes.seed)
    for b in sizes.batches
    for p in sizes.proxies
    for d in sizes.dimensions
  ]
  for case in cases:
    found = timing.compiled('', value_and_grad(), *case.arguments)
    timing.in_turns([found], sizes.rounds, sizes.seconds)
    (_, aux), _ = found.call()
    b, d = case.z.shape
    anchors = [float(aux[f'{term}/anchors']) for term in ('data', 'proxy')]
    rows.append(
      [
        *map(str, (b, len(case.proxies), d)),
        _ms(found),
        f'{found.temporary_mb:.0f}',
        f'{found.compile_seconds:.1f}',
        ' / '.join(f'{100 * share:.0f} %' for share in anchors),
        str(len(found.milliseconds)),
      ]
    )
  heading = ['B', 'P', 'D', 'ms', 'temporaries, MB', 'compile, s']
  heading += ['anchors, data / proxies', 'runs']
  return [
    report.table(heading, rows),
    'A node without two reciprocal neighbours is no anchor, and its triplets'
    f' cost nothing. {_batches_traced_once(sizes)} batches that differ in'
    ' labels, anchors and key trace the loss once (asserted with'
    ' `chex.assert_max_traces`).',
  ]


def _batches_traced_once(sizes):
  """How many batches were tried; fails if the loss is traced again."""
  case = Case.usual(sizes)
  function = value_and_grad()
  loss = jax.jit(chex.assert_max_traces(lambda *a: function(*a), n=1))
  equal = jnp.broadcast_to(case.z[0], case.z.shape)
  batches = [
    (case.z, case.labels),
    (case.z[::-1], jnp.zeros_like(case.labels)),
    (equal, jnp.arange(len(case.z))),
  ]
  for number, (z, labels) in enumerate(batches):
    key = jax.random.fold_in(case.key, number)
    jax.block_until_ready(loss(z, case.proxies, labels, key))
  return len(batches)


# ---- beside the definition --------------------------------------------------


def _memory(contender, base):
  """Columns of its temporaries and of what it took to compile, if it was."""
  if math.isnan(contender.temporary_mb):
    return ['', '', '']
  return [
    f'{contender.temporary_mb:.0f}',
    timing.short(contender.temporary_mb / base.temporary_mb),
    f'{contender.compile_seconds:.1f}',
  ]


def beside_the_definition(sizes):
  """Ours, the definition, and what lies between."""
  rows, host = [], []
  for d in sizes.dimensions:
    ours, _, definition, _ = found = agreement.implementations(sizes, d)
    timing.in_turns(found, sizes.rounds, sizes.seconds)
    for contender in found:
      rows.append(
        [
          contender.name,
          str(d),
          _ms(contender),
          timing.ratio(contender, ours),
          *_memory(contender, ours),
        ]
      )
    host.append(statistics.median(definition.program.host_ms))
  heading = ['value and gradient', 'D', 'ms', 'its ratio']
  heading += ['temporaries, MB', 'its ratio', 'compile, s']
  took = ' and '.join(f'{ms:.0f}' for ms in host)
  usual = Case.usual(sizes)
  return [
    report.table(heading, rows),
    f'B = {len(usual.z)}, P = {len(usual.proxies)}. {_rounds(found)}'
    ' Ratios of times are those of the same round, with quartiles. "Whole'
    ' arrays" is the package with its selection replaced by the plain one:'
    ' Gumbel noise of `jax.random.gumbel`, distances and softmaxes of all'
    ' triplets and proxies at once, and autodiff. The definition'
    ' ([`literal.py`](../loss/literal.py)) besides builds its distances through'
    ' tensors n x m x D and draws the triplets on the host, which took'
    f' {took} ms of its time; its memory is that of the larger of its two'
    ' programs. Uncompiled, its operations run one by one, as those of the'
    " authors' torch program do.",
    agreement.text(sizes),
  ]


# ---- parts ------------------------------------------------------------------


def by_part(sizes):
  """Distances, mining and selection, each alone."""
  columns = []
  for d in sizes.dimensions:
    found = _parts(Case.usual(sizes, d=d))
    timing.in_turns(found, sizes.rounds, sizes.seconds)
    columns.append(found)
  rows = [
    [part[0].name, *map(_ms, part), f'{part[0].compile_seconds:.1f}']
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
    f'B = {len(case.z)}, P = {len(case.proxies)}. {_rounds(columns[-1])}'
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


# ---- noise ------------------------------------------------------------------


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
      _ms(loss),
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
    f' {_rounds(losses_with)} p: of a chi-square test of'
    f' {sizes.picks} picks, argmax of w / E, by their chances w / sum(w).'
    ' The loss takes its noise chunk by chunk, and the sources of JAX are'
    ' keyed there by a chunk, which is less than a key a triplet would cost.',
  ]


# ---- growth, estimators, chunks ---------------------------------------------


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
    [c.name, _ms(c), f'{us:.1f}', f'{us / per_proxy[0]:.2f}']
    for c, us in zip(found, per_proxy, strict=True)
  ]
  return [
    report.table(['P', 'ms', 'us a proxy', 'its ratio'], rows),
    f'Distances to the proxies and selection of the data term alone, B ='
    f' {sizes.batches[0]}, D = {sizes.dimensions[0]}. {_rounds(found)}'
    ' The proxy term has triplets of every proxy, so it grows with P^2.',
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
      _ms(c),
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
    f'{case.size}. {_rounds(found)}',
  ]


# ---- beside a backbone ------------------------------------------------------


def beside_a_backbone(sizes):
  """The share of a ViT-S/16's step that the loss takes."""
  case, backend = Case.usual(sizes), jax.default_backend()
  b, d = case.z.shape
  images = sizes.images or (8 if backend == 'cpu' else b)
  dtype = jnp.float32 if backend == 'cpu' else jnp.bfloat16
  side = sizes.image_size
  model = models.create(
    _BACKBONE, image_size=side, embedding_dim=d, dtype=dtype, **literal.BALL
  )
  pixels = jax.random.bits(case.key, (images, side, side, 3), jnp.uint8)
  init = jax.jit(functools.partial(model.init, train=False))
  params = init(case.key, pixels[:1])

  def step(params, pixels, cotangents):
    apply = lambda params: model.apply(params, pixels, train=True)
    z, pull = jax.vjp(apply, params)
    return z, pull(cotangents)

  cotangents = jax.random.normal(case.key, (images, d))
  found = [
    timing.compiled('backbone', step, params, pixels, cotangents),
    timing.compiled('loss', value_and_grad(), *case.arguments),
  ]
  timing.in_turns(found, sizes.rounds, sizes.seconds)
  backbone, loss = found
  scaled = backbone.median * b / images
  share = 100 * loss.median / (scaled + loss.median)
  rows = [
    [
      f'`{_BACKBONE}` at {side} px, {images} images, {jnp.dtype(dtype).name}',
      _ms(backbone),
    ],
    [f'the same, scaled to {b} images', f'{scaled:.0f}'],
    [f'the loss, {case.size}', _ms(loss)],
    ['the share of the loss in both', f'{share:.2g} %'],
  ]
  return [
    report.table(['forward and backward', 'ms'], rows),
    f'{_rounds(found)} Without the optimiser, the metric loss and the'
    ' reading of images.',
  ]


# ---- all --------------------------------------------------------------------

_SECTIONS = {
  'size': ('By size', by_size),
  'definition': ('Beside the definition', beside_the_definition),
  'parts': ('By part', by_part),
  'noise': ('By source of noise', by_source),
  'growth': ('By number of proxies', by_proxies),
  'estimators': ('By estimator', by_estimator),
  'chunks': ('By size of chunk', by_chunk),
  'backbone': ('Beside a backbone', beside_a_backbone),
}


def main():
  """Reads the command line."""
  parser = report.parser(__doc__, 'hier_loss.md', _SECTIONS)
  for name, kind, help_ in (
    ('batches', '+', 'numbers of embeddings'),
    ('proxies', '+', 'numbers of proxies'),
    ('dimensions', '+', 'dimensions'),
    ('growth', '+', 'numbers of proxies of the section of that name'),
    ('rounds', None, 'runs of each program, at most'),
    ('seconds', None, 'after which none runs again but for the second time'),
    ('images', None, "images of the backbone's step"),
    ('seed', None, None),
  ):
    parser.add_argument(f'--{name}', type=int, nargs=kind, help=help_)
  args = parser.parse_args()
  sizes = report.chosen(args, cases.QUICK if args.quick else Sizes())
  report.emit_sections(args, _SCRIPT, _SECTIONS, _PACKAGES, sizes)


if __name__ == '__main__':
  main()
