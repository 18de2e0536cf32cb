"""What devices exchange in a step, and how well it scales by that.

Bytes from the compiled step at 1 to 256 devices, beside a formula; the work of
the loss that grows with all devices' batch; the efficiency that follows on
slices of TPU v5e, for which programs are compiled (`pip install 'jax[tpu]'`);
and what four devices in place of one cost here. Nothing is run on more devices
than this machine pretends to have.
"""

import dataclasses
import json
import os
import subprocess
import sys
import time
from unittest import mock

# With fewer threads than devices the collectives of fake devices deadlock.
os.environ.setdefault('NPROC', '64')

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, PartitionSpec

from experiments.benchmarks.common import engine, report, timing
from experiments.benchmarks.scaling import collectives, tpu
from hier_jax.training.distributed import mapping
from hier_jax.training.step import optim

_SCRIPT = 'experiments/benchmarks/scaling/__main__.py'
_PACKAGES = 'hier_jax', 'jax', 'jaxlib', 'libtpu', 'flax', 'optax', 'numpy'
_CLASSES = 100
_MB = 1e6


@dataclasses.dataclass(frozen=True)
class Sizes:
  """What is compiled and measured.

  Attributes:
    devices: numbers of them.
    whole: those at which the ViT-S is compiled too.
    images: a device, of the ViT-S.
    few: a device, of the small ViT.
    fake: devices that one is measured against.
    total: images that they share.
    rounds: of that.
  """

  devices: tuple[int, ...] = (1, 2, 4, 8, 16, 32, 64, 128, 256)
  whole: tuple[int, ...] = (1, 8, 256)
  images: int = 180
  few: int = 24
  fake: int = 4
  total: int = 96
  rounds: int = 15


_QUICK = Sizes((1, 4), (), few=20, total=40, rounds=3)


@dataclasses.dataclass(frozen=True)
class Slice:
  """A slice of TPU v5e and what is assumed of it.

  Attributes:
    chips: n.
    hops: of a ring all-reduce, one way and back, over its longest path.
    peak: bfloat16 FLOP/s of a chip.
    utilisation: of it, by the model's arithmetic.
    links: bytes/s that a chip sends: two of its four ports of 400 Gbps.
    hop: seconds.
  """

  chips: int
  hops: int
  peak: float = 197e12
  utilisation: float = 0.4
  links: float = 2 * 400e9 / 8
  hop: float = 1e-6


# Rings of 8 of a 2x4 mesh; of 16 along both axes of a 16x16 torus.
_SLICES = Slice(8, 2 * 7), Slice(256, 2 * 2 * 15)


def _config(backbone, size, images):
  config = engine.config_of('cub', 'dino_vits16')
  config.pretrained = None
  config.model.update(backbone=backbone, image_size=size)
  config.data.batch_size = images
  return config


def _small(sizes, devices):
  return _config('vit_tiny_patch16_32', 32, sizes.few * devices)


def _vits(sizes, devices):
  config = _config('vit_small_patch16_224', 224, sizes.images * devices)
  # The same exchange, and a program of moderate size.
  config.data.micro_batch = 20
  return config


# ---- bytes ------------------------------------------------------------------


def formula(made, devices):
  """Kind -> bytes exchanged in a step of Proxy-Anchor and HIER.

  Gathered: embeddings, labels and k neighbours of each of the B rows, and k
  neighbours of the P proxies. Scattered: the gradient by the embeddings.
  Reduced: the gradient by all T trained parameters; for Proxy-Anchor seven
  numbers a class; for HIER two a proxy; and scalars.
  """
  config = made.config
  rows, dim = config.data.batch_size, config.model.embedding_dim
  proxies, k = config.loss.num_proxies, config.loss.hier.k
  trained, _ = optim.split(made.state.params, config.optim.freeze)
  count = sum(leaf.size for leaf in jax.tree.leaves(trained))
  padded = -(-proxies // devices) * devices
  return {
    'all-gather': 4 * (rows * (dim + 1 + k) + padded * k),
    'all-reduce': 4 * (count + 7 * _CLASSES + 2 * proxies),
    'reduce-scatter': 4 * rows * dim,
  }


def exchanged(sizes):
  """Bytes from the compiled step, beside the formula."""
  rows = []
  for name, config, counts in (
    ('ViT-Ti/16, 32 px', _small, sizes.devices),
    ('ViT-S/16, 224 px', _vits, sizes.whole),
  ):
    for n in counts:
      found = _in_new_process('step', n, sizes, small=config is _small)
      expected = formula(engine.Engine(config(sizes, n), _CLASSES), n)
      rows.append(_bytes_row(name, n, found, expected))
  heading = ['step', 'devices', *(f'{k}, MB' for k in expected), 'scalars']
  heading += ['exchanges', 'sent by a device, MB']
  return [
    report.table(heading, rows),
    f'{sizes.few} images a device for ViT-Ti and {sizes.images} for ViT-S, P ='
    f' 512, D = 128, {_CLASSES} classes, k = 20. Bytes are those of the whole'
    ' array that is gathered, reduced or scattered, as the compiled program has'
    ' them. They are those of the formula'
    ' ([`formula`](../scaling/__main__.py):'
    f' {_one_line(formula.__doc__)}), asserted'
    ' here; what is left of it is in the column of scalars, 4 bytes each. A'
    ' device sends (n - 1) / n of what is gathered or scattered, and twice'
    ' that of what is reduced, in a ring.',
    _vits_by_formula(sizes),
  ]


def _one_line(doc):
  return ' '.join(doc.split('\n\n')[1].split()).rstrip('.')


def _bytes_row(name, n, found, expected):
  kinds = found['kinds']
  rest = kinds['all-reduce'] - expected['all-reduce']
  scalars, odd = divmod(rest, 4)
  same = all(kinds[k] == expected[k] for k in ('all-gather', 'reduce-scatter'))
  if not same or odd or not 0 <= scalars < 100:
    raise AssertionError(f'{name} at {n}: {kinds}, by formula {expected}')
  return [
    f'{name}, compiled',
    str(n),
    *(f'{kinds[k] / _MB:.3f}' for k in expected),
    str(scalars),
    str(found['exchanges']),
    f'{found["sent"] / _MB:.2f}',
  ]


def _sent(kinds, n):
  return sum(collectives.Collective(*kind).sent(n) for kind in kinds.items())


def _vits_by_formula(sizes):
  rows = []
  for n in sizes.devices:
    kinds = formula(engine.Engine(_vits(sizes, n), _CLASSES), n)
    gradient = kinds['all-reduce']
    others = {k: v for k, v in kinds.items() if k != 'all-reduce'}
    rows.append(
      [
        str(n),
        f'{sizes.images * n:,}',
        *(f'{kinds[k] / _MB:.2f}' for k in kinds),
        f'{_sent({"all-reduce": gradient}, n) / _MB:.1f}',
        f'{_sent(others, n) / _MB:.1f}',
      ]
    )
  heading = ['devices', 'B', *(f'{k}, MB' for k in kinds)]
  heading += ['sent: gradients, MB', 'sent: embeddings, MB']
  return 'ViT-S/16, by the formula:\n\n' + report.table(heading, rows)


# ---- the loss ---------------------------------------------------------------


def growing(sizes):
  """What the losses compute and hold on a device, by number of devices."""
  rows = []
  for n in sizes.devices:
    found = {
      name: _in_new_process('loss', n, sizes, metric=metric, hier_weight=weight)
      for name, metric, weight in _LOSSES
    }
    rows.append(
      [
        str(n),
        f'{sizes.images * n:,}',
        *(f'{f["flops"] / 1e9:.2f}' for f in found.values()),
        *(f'{found["with HIER"][k] / _MB:,.0f}' for k in ('accessed', 'held')),
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


def _compile_loss(sizes, devices, metric, hier_weight):
  config = _vits(sizes, len(devices))
  config.loss.metric, config.loss.hier_weight = metric, hier_weight
  dim = config.model.embedding_dim
  shapes = {
    'class_proxies': (_CLASSES, dim),
    'hierarchical_proxies': (config.loss.num_proxies, dim),
  }
  if not hier_weight:
    del shapes['hierarchical_proxies']
  if metric != 'proxy_anchor':
    del shapes['class_proxies']
  array = jax.ShapeDtypeStruct
  params = {k: array(s, jnp.float32) for k, s in shapes.items()}
  rows = config.data.batch_size

  def loss(z, params, labels):
    key = jax.random.key(0)
    return engine.loss(config, key, z, labels, params, axis_name='i')[0]

  split, whole = PartitionSpec('i'), PartitionSpec()
  mapped = jax.shard_map(
    jax.value_and_grad(loss, (0, 1)),
    mesh=Mesh(devices, ('i',)),
    in_specs=(split, whole, split),
    out_specs=(whole, (split, whole)),
    check_vma=False,
  )
  lowered = jax.jit(mapped).lower(
    array((rows, dim), jnp.float32), params, array((rows,), jnp.int32)
  )
  return lowered.compile()


# ---- compiling for many devices ---------------------------------------------


def _in_new_process(what, devices, sizes, target='cpu', **options):
  """What `_compile_once` prints in a process with so many devices."""
  given = {'what': what, 'devices': devices, 'options': options}
  given |= {'sizes': dataclasses.asdict(sizes), 'target': target}
  ran = subprocess.run(
    [
      sys.executable,
      '-m',
      'experiments.benchmarks.scaling',
      '--compile_once',
      json.dumps(given),
    ],
    env=os.environ | {'JAX_PLATFORMS': 'cpu'},
    cwd=report.ROOT,
    stdout=subprocess.PIPE,
    check=True,
    text=True,
  )
  return json.loads(ran.stdout.splitlines()[-1])


def _compile_once(what, devices, sizes, options, target):
  sizes = Sizes(**sizes)
  if target == 'tpu':
    given = tpu.devices(devices)
  else:
    jax.config.update('jax_num_cpu_devices', devices)
    given = jax.devices()
  # The losses ask it how much they should do at a time.
  with mock.patch.object(jax, 'default_backend', lambda: target):
    if what == 'loss':
      compiled = _compile_loss(sizes, given, **options)
    else:
      config = (_small if options['small'] else _vits)(sizes, devices)
      compiled = engine.Engine(config, _CLASSES).compile()
  print(json.dumps(_described(compiled, devices, target)))


def _described(compiled, devices, target):
  text = compiled.as_text()
  if target == 'tpu':
    return {
      name: tpu.seconds(text, Slice.peak, choose)
      for name, choose in (('seconds', min), ('if_close', max))
    }
  found = collectives.parse(text, devices)
  cost = compiled.cost_analysis()
  return {
    'kinds': collectives.by_kind(found),
    'exchanges': len(found),
    'sent': sum(each.sent(devices) for each in found),
    'flops': cost['flops'],
    'accessed': cost['bytes accessed'],
    'held': compiled.memory_analysis().temp_size_in_bytes,
  }


# ---- efficiency -------------------------------------------------------------


_WITH_HIER = {'metric': 'proxy_anchor', 'hier_weight': 0.5}


@dataclasses.dataclass(frozen=True)
class _Step:
  """Seconds of a step's parts on a slice, and what they are made of."""

  chips: Slice
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
  alone = _in_new_process('loss', 1, sizes, 'tpu', **_WITH_HIER)
  steps = []
  for chips in _SLICES:
    n = chips.chips
    made = engine.Engine(_vits(sizes, n), _CLASSES)
    loss = _in_new_process('loss', n, sizes, 'tpu', **_WITH_HIER)
    step = _in_new_process('step', n, sizes, small=True)
    kinds = formula(made, n)
    gradient = _sent({'all-reduce': kinds.pop('all-reduce')}, n)
    steps.append(
      _Step(
        chips,
        engine.model_flops(made) / n / (chips.utilisation * chips.peak),
        gradient,
        _sent(kinds, n),
        step['exchanges'],
        alone['seconds'],
        loss['seconds'],
        loss['if_close'],
      )
    )
  return _arithmetic(sizes, steps)


def _arithmetic(sizes, steps):
  first = _SLICES[0]
  flops = engine.model_flops(engine.Engine(_vits(sizes, 1), _CLASSES))
  ms = lambda value: lambda s: f'{1e3 * value(s):.2f}'
  percent = lambda value: lambda s: f'{100 * value(s):.1f} %'
  rows = {
    f'model: {flops / 1e12:.2f} TFLOP / ({first.utilisation:g} x'
    f' {first.peak / 1e12:g} TFLOP/s), ms': ms(lambda s: s.model),
    'gradients: MB sent': lambda s: f'{s.sent_gradient / _MB:.0f}',
    f'by {first.links / 1e9:g} GB/s, ms': ms(lambda s: s.gradient),
    'embeddings and neighbours: MB sent': lambda s: f'{s.sent_rows / _MB:.0f}',
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
    ' utilisation of 40 %, half of the ports (a ring along one axis at a'
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


# ---- measured ---------------------------------------------------------------


def measured(sizes):
  """A step of one device beside that of several pretended ones."""
  jax.config.update('jax_num_cpu_devices', sizes.fake)
  config = _config('vit_tiny_patch16_64', 64, sizes.total)
  config.model.dtype = 'float32'
  made = engine.Engine(config, _CLASSES)
  found = [_Steps(made, n, by) for n in (1, sizes.fake) for by in mapping.MAPS]
  contenders = [each.contender for each in found]
  timing.in_turns(contenders, sizes.rounds)
  rows = [
    [
      c.name,
      f'{c.median:.0f}',
      timing.ratio(c, contenders[0]),
      f'{c.cores:.1f}',
    ]
    for c in contenders
  ]
  return [
    report.table(['devices', 'ms', 'its ratio', 'cores busy'], rows),
    f'`vit_tiny_patch16_64`, {sizes.total} images in all, float32, P = 512.'
    f' Medians of {len(contenders[0].milliseconds)} rounds in which every row'
    ' runs once. The devices are pretended and share the cores, so this is the'
    ' price of splitting: exchanges, waiting, and distances to the proxies on'
    ' every device.',
  ]


class _Steps:
  """A mapped step that goes on from its own state."""

  def __init__(self, made, devices, by):
    mapped = mapping.map_step(made.step, devices=jax.devices()[:devices], by=by)
    state, batch = made.init(), jax.tree.map(jax.device_get, made.draw())

    def run():
      nonlocal state
      state, metrics = mapped(state, batch)
      return state, metrics

    start = time.perf_counter()
    jax.block_until_ready(run())
    seconds = time.perf_counter() - start
    name = f'{devices}, {by}'
    self.contender = timing.Contender(name, run, (), seconds, float('nan'))


# ---- all --------------------------------------------------------------------

_SECTIONS = {
  'bytes': ('What devices exchange', exchanged),
  'loss': ('What the losses do on each device', growing),
  'predicted': ('Efficiency on TPU v5e', predicted),
  'measured': ('Pretended devices', measured),
}


def main():
  """Reads the command line."""
  parser = report.parser(__doc__, 'scaling.md', _SECTIONS)
  parser.add_argument('--rounds', type=int, help='of the measured steps')
  parser.add_argument('--compile_once', type=json.loads, help='internal')
  args = parser.parse_args()
  if args.compile_once:
    _compile_once(**args.compile_once)
    return
  sizes = report.chosen(args, _QUICK if args.quick else Sizes())
  report.emit_sections(args, _SCRIPT, _SECTIONS, _PACKAGES, sizes)


if __name__ == '__main__':
  main()
