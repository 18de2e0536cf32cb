"""What a whole training step costs, and how soon a run takes its first.

The step of `cub.py:dino_vits16`, a ViT-S/16 on 180 images of 224 pixels with
Proxy-Anchor and HIER: its time and memory, HIER's share of it, its compilation
with an empty and with a filled cache; and the time from the start of a killed
run's second process to its first step. On an accelerator the same command
times the step in bfloat16.
"""

import dataclasses
import json
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time

import jax
import numpy as np

from experiments.benchmarks.common import engine, report, timing
from experiments.benchmarks.step import backbones
from hier_jax.training.distributed import mapping
from hier_jax.training.run import program_cache

_SCRIPT = 'experiments/benchmarks/step/train_step.py'
_PACKAGES = 'hier_jax', 'jax', 'jaxlib', 'flax', 'optax', 'numpy'


@dataclasses.dataclass(frozen=True)
class Sizes:
  """What is measured.

  Attributes:
    backbone: a ViT.
    image_size: pixels.
    images: of a batch.
    proxies: hierarchical ones.
    micro_batch: images that are embedded at a time; 0 for all.
    steps: rounds of the two steps, with HIER and without.
    together: steps of a round, launched one after the other as in training.
    rounds: of the loss alone.
    starts: of a run with each kind of cache.
  """

  backbone: str = 'vit_small_patch16_224'
  image_size: int = 224
  images: int = 180
  proxies: int = 512
  micro_batch: int = 20
  steps: int = 3
  together: int = 1
  rounds: int = 60
  starts: int = 3


_QUICK = Sizes('vit_tiny_patch16_64', 64, 20, 64, 10, 2, 1, 5, 1)


def _on_cpu():
  return jax.default_backend() == 'cpu'


def _engine(sizes, hier_weight=0.5):
  config = engine.config_of('cub', 'dino_vits16')
  config.pretrained = None
  config.model.update(
    backbone=sizes.backbone,
    image_size=sizes.image_size,
    dtype='float32' if _on_cpu() else 'bfloat16',
  )
  config.data.batch_size = sizes.images
  config.data.micro_batch = sizes.micro_batch or None
  config.loss.num_proxies = sizes.proxies
  config.loss.hier_weight = hier_weight
  return engine.Engine(config)


def _case(sizes):
  config = _engine(sizes).config
  parts = f', {sizes.micro_batch} at a time' if sizes.micro_batch else ''
  return (
    f'`{sizes.backbone}`, {sizes.images} images of {sizes.image_size} px'
    f'{parts}, {config.model.dtype}; P = {sizes.proxies}, D ='
    f' {config.model.embedding_dim}'
  )


# ---- the step ---------------------------------------------------------------


def whole_step(sizes):
  """Time and memory of the step, and HIER's share."""
  with_hier, without = (_Steps(_engine(sizes, w)) for w in (0.5, 0.0))
  losses = [_loss_alone(sizes, w) for w in (0.5, 0.0)]
  timing.in_turns(losses, sizes.rounds)
  for _ in range(sizes.steps):
    with_hier.run(sizes.together)
    without.run(sizes.together)
  step = statistics.median(with_hier.milliseconds)
  hier = losses[0].median - losses[1].median
  naive = step - statistics.median(without.milliseconds)
  rows = [
    ['step, ms', _number(step), _spread(with_hier.milliseconds)],
    ['images/s', _number(1e3 * sizes.images / step), ''],
    *_peak_rows(with_hier.made, step),
    ['temporaries of the step, MB', f'{with_hier.temporary_mb:,.0f}', ''],
    ['its state and batch, MB', f'{with_hier.argument_mb:,.0f}', ''],
    ['the losses alone, ms', f'{losses[0].median:.3g}', _spread_of(losses[0])],
    [
      'the same with lambda 0, ms',
      f'{losses[1].median:.3g}',
      _spread_of(losses[1]),
    ],
    ['HIER, the difference, ms', f'{hier:.3g}', ''],
    ["HIER's share of the step", f'{100 * hier / step:.2g} %', ''],
    *_without_accumulation(sizes, step, hier),
    [
      'difference of whole steps, ms',
      f'{naive:.3g}',
      f'step with lambda 0 {_spread(without.milliseconds)}',
    ],
  ]
  return [
    report.table(['', 'median', 'least to most'], rows),
    f'{_case(sizes)}; Proxy-Anchor of 100 classes. {sizes.steps} rounds of'
    f' {sizes.together} steps with HIER and as many without, in turns, after a'
    ' first step of each; the losses with their gradients by embeddings and'
    f' proxies in {sizes.rounds} rounds. {_on_shares()}',
  ]


def _on_shares():
  if _on_cpu():
    return (
      'A step varies by more than HIER takes, so that its share is that of the'
      ' losses alone, and the difference of whole steps, at the bottom, only'
      ' says that nothing was left out.'
    )
  return (
    'The losses alone are launched and waited for one at a time, which the'
    ' difference of whole steps, at the bottom, is free of.'
  )


def _number(value):
  return f'{value:,.0f}' if value >= 100 else f'{value:.3g}'


def _spread(values):
  return f'{_number(min(values))} to {_number(max(values))}'


def _spread_of(contender):
  low, high = min(contender.milliseconds), max(contender.milliseconds)
  return f'{low:.3g} to {high:.3g}'


def _peak_rows(made, milliseconds):
  flops = engine.model_flops(made)
  rate = flops / (1e-3 * milliseconds)
  rows = [['model TFLOP/s, by formula', f'{rate / 1e12:.3g}', '']]
  kind = jax.devices()[0].device_kind
  peak = backbones.known_peak()
  if peak:
    rows.append(
      [
        f'of {peak:g} TFLOP/s, the peak of {kind}',
        f'{100 * rate / (1e12 * peak):.1f} %',
        '',
      ]
    )
  return rows


def _without_accumulation(sizes, step, hier):
  """The share where no image is embedded twice: of 4 passes, 3 are left."""
  if not sizes.micro_batch:
    return []
  share = 100 * hier / (hier + 0.75 * (step - hier))
  return [
    ['the same of a step that embeds once', f'{share:.2g} %', 'by arithmetic']
  ]


class _Steps:
  """A step with its state, and how long it took each time."""

  def __init__(self, made):
    self.made = made
    compiled = made.compile()
    memory = compiled.memory_analysis()
    self.temporary_mb = memory.temp_size_in_bytes / 1e6
    self.argument_mb = memory.argument_size_in_bytes / 1e6
    self._step = compiled
    batch = jax.tree.map(np.asarray, made.draw())
    self._batch = jax.device_put(mapping.spread(batch))
    self._state = made.init()
    self.milliseconds = []
    self.run(1)
    self.milliseconds.clear()

  def run(self, together):
    start = time.perf_counter()
    for _ in range(together):
      self._state, metrics = self._step(self._state, self._batch)
    jax.block_until_ready((self._state, metrics))
    seconds = time.perf_counter() - start
    self.milliseconds.append(1e3 * seconds / together)


def _loss_alone(sizes, hier_weight):
  """The losses of embeddings as the head makes them, with gradients."""
  made = _engine(sizes, hier_weight)
  params = made.init().params['loss']
  labels = made.draw()['label']
  keys = jax.random.split(jax.random.key(1))
  features = jax.random.normal(
    keys[0], (sizes.images, made.model.backbone.width)
  )
  z, _ = made.model.head.init_with_output(keys[1], features)

  def loss(z, params, labels):
    key = jax.random.key(0)
    return engine.loss(made.config, key, z, labels, params)

  function = jax.value_and_grad(loss, (0, 1), has_aux=True)
  return timing.compiled(f'lambda {hier_weight}', function, z, params, labels)


# ---- compilation ------------------------------------------------------------


def compile_step(sizes):
  """Compilation of the whole step in new processes, cache empty and filled."""
  rows = []
  with tempfile.TemporaryDirectory() as folder:
    for name in ('empty', 'filled'):
      found = _in_new_process(sizes, folder)
      rows.append(
        [
          f'cache {name}',
          *(f'{found[k]:.1f}' for k in ('imports', 'trace', 'compile', 'all')),
          f'{found["hits"]} of {found["asked"]}',
        ]
      )
    cached = sum(
      f.stat().st_size for f in pathlib.Path(folder).rglob('*-cache')
    )
  heading = ['new process', 'imports, s', 'trace, s', 'compile, s', 'all, s']
  return [
    report.table([*heading, 'from the cache'], rows),
    f'{_case(sizes)}. From the start of the process to a compiled step; the'
    f' programs take {cached / 1e6:.1f} MB of the cache that `hier-jax train`'
    ' keeps for its user.',
  ]


def _in_new_process(sizes, cache):
  begin = time.time()
  command = [
    sys.executable,
    '-m',
    'experiments.benchmarks.step.train_step',
    '--compile_once',
    json.dumps(dataclasses.asdict(sizes)),
  ]
  ran = subprocess.run(
    command,
    env=_cached_in(cache) | {'BEGIN': str(begin)},
    cwd=report.ROOT,
    stdout=subprocess.PIPE,
    check=True,
    text=True,
  )
  return json.loads(ran.stdout.splitlines()[-1])


def _cached_in(folder):
  """The environment of a process that keeps its programs in a folder."""
  kept = {k: v for k, v in os.environ.items() if not k.startswith('JAX_')}
  return kept | {'XDG_CACHE_HOME': str(folder)}


def _compile_once(sizes):
  """What `_in_new_process` runs: prints seconds as JSON."""
  begin = float(os.environ['BEGIN'])
  imported = time.time()
  counts = dict.fromkeys(('compile_requests_use_cache', 'cache_hits'), 0)

  def count(event, **_):
    name = event.rpartition('/')[2]
    if name in counts:
      counts[name] += 1

  jax.monitoring.register_event_listener(count)
  program_cache.keep_programs()
  made = _engine(sizes)
  seconds = {}
  jax.monitoring.register_event_duration_secs_listener(
    lambda event, duration, **_: seconds.__setitem__(
      event, seconds.get(event, 0) + duration
    )
  )
  start = time.time()
  made.compile()
  compiling = seconds['/jax/core/compile/backend_compile_duration']
  done = time.time()
  print(
    json.dumps(
      {
        'imports': imported - begin,
        'trace': done - start - compiling,
        'compile': compiling,
        'all': done - begin,
        'hits': counts['cache_hits'],
        'asked': counts['compile_requests_use_cache'],
      }
    )
  )


# ---- start of a run ---------------------------------------------------------


def first_step(sizes):
  """From the start of a killed run's next process to its first step."""
  rows = []
  with tempfile.TemporaryDirectory() as folder:
    folder = pathlib.Path(folder)
    _until(_Run(folder / 'run', folder / 'first').has_checkpoint)
    for name in ('empty', 'filled'):
      seconds = []
      for i in range(sizes.starts):
        cache = folder / ('kept' if name == 'filled' else f'empty{i}')
        if name == 'filled' and not i:
          _until(_Run(folder / 'run', cache).has_stepped)
        seconds.append(_until(_Run(folder / 'run', cache).has_stepped))
      rows.append(
        [
          f'cache {name}',
          f'{statistics.median(seconds):.1f}',
          ', '.join(f'{s:.1f}' for s in sorted(seconds)),
        ]
      )
  return [
    report.table(['restart of `quickstart.py`', 'median, s', 'each, s'], rows),
    '`hier-jax train` after `kill -9`: from the start of its process over'
    ' imports, data, the last checkpoint and the compiled step to the record of'
    f' its first step in `metrics.jsonl`. {sizes.starts} starts each.',
  ]


class _Run:
  """A process of `hier-jax train`.

  Args:
    workdir: of the run.
    cache: the user's cache folder.
  """

  def __init__(self, workdir, cache):
    self._workdir, self._log = workdir, workdir / 'metrics.jsonl'
    self._before = self._file()
    self.begin = time.monotonic()
    self.process = subprocess.Popen(
      [
        *(sys.executable, '-m', 'hier_jax', 'train'),
        f'--config={engine.CONFIGS / "quickstart.py"}',
        f'--workdir={workdir}',
        '--config.log_every=1',
        '--config.eval.pixels=False',
        '--config.checkpoint.every_epochs=1',
      ],
      env=_cached_in(cache),
      stdout=subprocess.DEVNULL,
      stderr=subprocess.DEVNULL,
      cwd=report.ROOT,
    )

  def _file(self):
    return self._log.stat().st_ino if self._log.exists() else None

  def _last_step(self):
    lines = self._log.read_text().splitlines()
    found = [json.loads(line) for line in lines if line.endswith('}')]
    return max((r['step'] for r in found if r['kind'] == 'train'), default=0)

  def _checkpoint(self):
    folders = (self._workdir / 'checkpoints').glob('[0-9]*')
    return max((int(f.name) for f in folders if f.name.isdecimal()), default=0)

  def has_checkpoint(self):
    return self._checkpoint() > 0

  def has_stepped(self):
    # At its start a run writes the log anew, up to its checkpoint.
    return (
      self._file() not in (None, self._before)
      and self._last_step() > self._checkpoint()
    )


def _until(condition):
  """Seconds from the start of the condition's run until it holds; kills it."""
  run = condition.__self__
  try:
    while not condition():
      if run.process.poll() is not None:
        raise SystemExit(f'the run ended with {run.process.returncode}')
      time.sleep(0.01)
    return time.monotonic() - run.begin
  finally:
    run.process.kill()
    run.process.wait()


# ---- all --------------------------------------------------------------------

_SECTIONS = {
  'step': ('The step', whole_step),
  'compile': ('Its compilation', compile_step),
  'start': ('The first step of a restart', first_step),
}


def main():
  """Reads the command line."""
  parser = report.parser(__doc__, 'train_step.md', _SECTIONS)
  parser.add_argument('--images', type=int, help='of a batch')
  parser.add_argument(
    '--micro_batch', type=int, help='images embedded at a time, 0 for all'
  )
  parser.add_argument('--steps', type=int, help='rounds of each kind')
  parser.add_argument('--rounds', type=int, help='of the losses alone')
  parser.add_argument('--starts', type=int, help='with each kind of cache')
  parser.add_argument('--compile_once', type=json.loads, help='internal')
  args = parser.parse_args()
  if args.compile_once:
    _compile_once(Sizes(**args.compile_once))
    return
  base = _QUICK if args.quick else Sizes()
  if not _on_cpu():
    base = dataclasses.replace(base, micro_batch=0, steps=10, together=10)
  sizes = report.chosen(args, base)
  report.emit_sections(args, _SCRIPT, _SECTIONS, _PACKAGES, sizes)


if __name__ == '__main__':
  main()
