"""What a whole training step costs, and how soon a run takes its first.

The step of `cub:dino_vits16`, a ViT-S/16 on 180 images of 224 pixels with
Proxy-Anchor and HIER: its time and memory, HIER's share of it, its compilation
with an empty and with a filled cache; and the time from the start of a killed
run's second process to its first step. On an accelerator the same command
times the step in bfloat16.
"""

import dataclasses
import json
import statistics
import time

import jax
import numpy as np

from experiments.benchmarks.common import engine, report, timing
from experiments.benchmarks.step import (
  backbones,
  compilation,
  restart,
  step_cases,
)
from hier_jax.training.distributed import mapping

_SCRIPT = 'experiments/benchmarks/step/train_step.py'
_PACKAGES = 'hier_jax', 'jax', 'jaxlib', 'flax', 'optax', 'numpy'
_QUICK = step_cases.Sizes('vit_tiny_patch16_64', 64, 20, 64, 10, 2, 1, 5, 1)


def whole_step(sizes):
  """Time and memory of the step, and HIER's share."""
  with_hier, without = (
    _Steps(step_cases.engine_of(sizes, w)) for w in (0.5, 0.0)
  )
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
    f'{step_cases.in_words(sizes)}; Proxy-Anchor of 100 classes.'
    f' {sizes.steps} rounds of {sizes.together} steps with HIER and as many'
    ' without, in turns, after a first step of each; the losses with their'
    f' gradients by embeddings and proxies in {sizes.rounds} rounds.'
    f' {_on_shares()}',
  ]


def _on_shares():
  if step_cases.on_cpu():
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
  made = step_cases.engine_of(sizes, hier_weight)
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


_SECTIONS = {
  'step': ('The step', whole_step),
  'compile': ('Its compilation', compilation.compile_step),
  'hier': ('What HIER takes to compile', compilation.hier_seconds),
  'cpu': ('What the step takes to compile', compilation.step_seconds),
  'blocks': ('Blocks as one loop', compilation.blocks),
  'start': ('The first step of a restart', restart.first_step),
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
    compilation.compile_once(step_cases.Sizes(**args.compile_once))
    return
  base = _QUICK if args.quick else step_cases.Sizes()
  if not step_cases.on_cpu():
    base = dataclasses.replace(base, micro_batch=0, steps=10, together=10)
  sizes = report.chosen(args, base)
  report.emit_sections(args, _SCRIPT, _SECTIONS, _PACKAGES, sizes)


if __name__ == '__main__':
  main()
