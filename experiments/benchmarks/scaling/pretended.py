"""A step of one device beside that of several pretended ones."""

import time

import jax

from experiments.benchmarks.common import engine, report, timing
from experiments.benchmarks.scaling import cases
from hier_jax.training.distributed import mapping


def measured(sizes):
  """A step of one device beside that of several pretended ones.

  Their number was set before JAX started.
  """
  config = cases.config_of('vit_tiny_patch16_64', 64, sizes.total)
  config.model.dtype = 'float32'
  made = engine.Engine(config, cases.CLASSES)
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
