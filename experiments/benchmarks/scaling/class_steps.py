"""Steps of many classes, compiled or taken."""

import resource
import statistics
import time

import jax

from experiments.benchmarks.common import engine
from experiments.benchmarks.scaling import cases, collectives
from hier_jax.training.distributed import mapping

STEPS = 6


def compiled(sizes, devices):
  """Bytes that a device holds and sends in a step, by classes and way."""
  return [
    {'classes': number, 'spread': spread}
    | _compiled(sizes, devices, number, spread)
    for number in sizes.classes
    for spread in (False, True)
  ]


def _compiled(sizes, devices, number, spread):
  config = cases.classes_config(sizes, devices, sizes.dim, spread)
  program = engine.Engine(config, number, devices).compile()
  memory = program.memory_analysis()
  found = collectives.parse(program.as_text(), devices)
  return {
    # The new state is written over the old.
    'state': memory.argument_size_in_bytes,
    'temporaries': memory.temp_size_in_bytes,
    'sent': sum(each.sent(devices) for each in found),
  }


def trained(sizes, devices, *, shard_classes):
  """Steps of many classes on pretended devices, which are taken."""
  number, dim = sizes.trained
  config = cases.classes_config(sizes, devices, dim, shard_classes)
  config.model.dtype = 'float32'
  made = engine.Engine(config, number, devices)
  step = mapping.map_step(made.step, by='shard_map', specs=made.specs)
  state, batch = made.init(), jax.device_get(made.draw())
  seconds, losses = [], []
  for _ in range(STEPS):
    began = time.perf_counter()
    state, metrics = step(state, batch)
    losses.append(float(metrics['loss']))
    seconds.append(time.perf_counter() - began)
  proxies = state.params['loss']['class_proxies'].addressable_shards[0]
  return {
    # The first compiles.
    'seconds': statistics.median(seconds[1:]),
    'losses': losses,
    'rows': len(proxies.data),
    'peak': 1e3 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss,
  }
