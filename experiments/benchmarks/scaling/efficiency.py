"""The work of the losses by devices, and the efficiency on TPU v5e."""

import dataclasses

from experiments.benchmarks.common import engine, report
from experiments.benchmarks.scaling import cases, compiling, exchange

# Rings of 8 of a 2x4 mesh; of 16 along both axes of a 16x16 torus.
_SLICES = cases.Slice(8, 2 * 7), cases.Slice(256, 2 * 2 * 15)


def growing(sizes):
  """What the losses compute and hold on a device, by number of devices."""
  rows = []
  for n in sizes.devices:
    found = {
      name: compiling.in_new_process(
        'loss', n, sizes, metric=metric, hier_weight=weight
      )
      for name, metric, weight in _LOSSES
    }
    rows.append(
      [
        str(n),
        f'{sizes.images * n:,}',
        *(f'{f["flops"] / 1e9:.2f}' for f in found.values()),
        *(
          f'{found["with HIER"][k] / cases.MB:,.0f}'
          for k in ('accessed', 'held')
        ),
      ]
    )
  heading = ['devices', 'B', *(f'{name}, GFLOP' for name, *_ in _LOSSES)]
  heading += ['with HIER: memory traffic, MB', 'temporaries, MB']
  return [
    report.table(heading, rows),
    f'A device, value and gradient, {sizes.images} rows a device, P = 512, D ='
    " 128: XLA's own counts for the program for CPU, in which a loop counts"
    ' once (that over the triplets, of which each device has as many on any'
    ' number of devices), and of two branches the larger.',
  ]


_LOSSES = (
  ('Proxy-Anchor', 'proxy_anchor', 0.0),
  ('with HIER', 'proxy_anchor', 0.5),
  ('Multi-Similarity', 'multi_similarity', 0.0),
)


_WITH_HIER = {'metric': 'proxy_anchor', 'hier_weight': 0.5}


@dataclasses.dataclass(frozen=True)
class _Step:
  """Seconds of a step's parts on a slice, and what they are made of."""

  chips: cases.Slice
  model: float
  sent_gradient: float
  sent_rows: float
  exchanges: int
  alone: float
  losses: float
  losses_if_close: float

  @property
  def gradient(self):
    return self.sent_gradient / self.chips.links

  @property
  def rows(self):
    return self.sent_rows / self.chips.links

  @property
  def latency(self):
    return self.exchanges * self.chips.hops * self.chips.hop

  def efficiency(self, more, without=0.0):
    """Of a step that takes `more` than the model besides what is exchanged."""
    one = self.model + (self.alone if more else 0)
    exchanged = self.gradient + self.rows + self.latency - without
    return one / (self.model + exchanged + more)


def predicted(sizes):
  """The time of a step on slices of TPU v5e, and what of it is not model."""
  alone = compiling.in_new_process('loss', 1, sizes, 'tpu', **_WITH_HIER)
  steps = []
  for chips in _SLICES:
    n = chips.chips
    made = engine.Engine(cases.vits_config(sizes, n), cases.CLASSES)
    loss = compiling.in_new_process('loss', n, sizes, 'tpu', **_WITH_HIER)
    step = compiling.in_new_process('step', n, sizes, small=True)
    kinds = exchange.formula(made, n)
    gradient = exchange.sent({'all-reduce': kinds.pop('all-reduce')}, n)
    steps.append(
      _Step(
        chips,
        engine.model_flops(made) / n / (chips.utilization * chips.peak),
        gradient,
        exchange.sent(kinds, n),
        step['exchanges'],
        alone['seconds'],
        loss['seconds'],
        loss['if_close'],
      )
    )
  return _arithmetic(sizes, steps)


def _arithmetic(sizes, steps):
  first = _SLICES[0]
  flops = engine.model_flops(
    engine.Engine(cases.vits_config(sizes, 1), cases.CLASSES)
  )
  ms = lambda value: lambda s: f'{1e3 * value(s):.2f}'
  percent = lambda value: lambda s: f'{100 * value(s):.1f} %'
  rows = {
    f'model: {flops / 1e12:.2f} TFLOP / ({first.utilization:g} x'
    f' {first.peak / 1e12:g} TFLOP/s), ms': ms(lambda s: s.model),
    'gradients: MB sent': lambda s: f'{s.sent_gradient / cases.MB:.0f}',
    f'by {first.links / 1e9:g} GB/s, ms': ms(lambda s: s.gradient),
    'embeddings and neighbors: MB sent': lambda s: (
      f'{s.sent_rows / cases.MB:.0f}'
    ),
    'by the same, ms': ms(lambda s: s.rows),
    f'latency: exchanges x hops x {1e6 * first.hop:g} us': lambda s: (
      f'{s.exchanges} x {s.chips.hops}'
    ),
    'that is, ms': ms(lambda s: s.latency),
    '**efficiency by communication**': percent(lambda s: s.efficiency(0)),
    'losses on one chip, ms': ms(lambda s: s.alone),
    'losses on each of these, ms': ms(lambda s: s.losses),
    '**efficiency with that**': percent(lambda s: s.efficiency(s.losses)),
    'the same where a pair is close': percent(
      lambda s: s.efficiency(s.losses_if_close)
    ),
    'the same where gradients are reduced meanwhile': percent(
      lambda s: s.efficiency(s.losses, s.gradient)
    ),
  }
  heading = [f'{sizes.images} images a chip']
  heading += [f'v5e-{s.chips.chips}' for s in steps]
  return [
    report.table(
      heading, [[name, *map(cell, steps)] for name, cell in rows.items()]
    ),
    'Weak scaling: the time of a step on one chip over that on n with as many'
    ' images each. Nothing overlaps, but in the last row: there the backward'
    ' pass, two thirds of the model, hides all of the reduction of gradients.'
    ' 197 TFLOP/s in bfloat16 and 1,600 Gbps between chips (four ports) are'
    ' those of <https://cloud.google.com/tpu/docs/v5e>; assumed are the'
    ' utilization of 40 %, half of the ports (a ring along one axis at a'
    ' time), a microsecond a hop, and that the compiled program for TPU'
    ' exchanges what that for CPU does.',
    "The losses' times are what the compiler for TPU expects of each operation"
    ' ([`tpu.py`](../scaling/tpu.py)), arithmetic and memory: estimates, of a'
    ' compiler that says not how good they are. The loops over triplets are not'
    ' in them, of which each device has as many or fewer on any number of'
    ' devices; nor is `top_k`, for which there is no estimate. A pair is close'
    " that is nearer than an eighth of its points' norm, but for coinciding"
    ' ones: then the gradient of the distances is made row by row.',
  ]
