"""What the whole loss costs: by size, beside the definition, beside a ViT."""

import functools
import math
import statistics

import chex
import jax
import jax.numpy as jnp

from experiments.benchmarks.common import report, timing
from experiments.benchmarks.loss import (
  agreement,
  literal,
  tables,
)
from experiments.benchmarks.loss.cases import (
  Case,
  value_and_grad,
)
from hier_jax import models

_BACKBONE = 'vit_small_patch16'


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
        tables.ms(found),
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
    'A node without two reciprocal neighbors is no anchor, and its triplets'
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
          tables.ms(contender),
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
    f'B = {len(usual.z)}, P = {len(usual.proxies)}. {tables.rounds(found)}'
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
      tables.ms(backbone),
    ],
    [f'the same, scaled to {b} images', f'{scaled:.0f}'],
    [f'the loss, {case.size}', tables.ms(loss)],
    ['the share of the loss in both', f'{share:.2g} %'],
  ]
  return [
    report.table(['forward and backward', 'ms'], rows),
    f'{tables.rounds(found)} Without the optimizer, the metric loss and the'
    ' reading of images.',
  ]
