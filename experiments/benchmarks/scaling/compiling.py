"""Programs for many devices, compiled in processes of their own."""

import dataclasses
import json
import os
import subprocess
import sys
from unittest import mock

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, PartitionSpec

from experiments.benchmarks.common import engine, report
from experiments.benchmarks.scaling import (
  cases,
  class_steps,
  collectives,
  tpu,
)


def _compile_loss(sizes, devices, metric, hier_weight):
  config = cases.vits_config(sizes, len(devices))
  config.loss.metric, config.loss.hier_weight = metric, hier_weight
  dim = config.model.embedding_dim
  shapes = {
    'class_proxies': (cases.CLASSES, dim),
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


def in_new_process(what, devices, sizes, target='cpu', **options):
  """What `compile_once` prints in a process with that number of devices."""
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


def compile_once(what, devices, sizes, options, target):
  """Compiles for devices that this process pretends; prints facts as JSON."""
  sizes = cases.Sizes(**sizes)
  if target == 'tpu':
    given = tpu.devices(devices)
  else:
    jax.config.update('jax_num_cpu_devices', devices)
    given = jax.devices()
  # The losses ask it how much they should do at a time.
  with mock.patch.object(jax, 'default_backend', lambda: target):
    if what == 'classes':
      print(json.dumps(class_steps.compiled(sizes, devices, **options)))
      return
    if what == 'trained':
      print(json.dumps(class_steps.trained(sizes, devices, **options)))
      return
    if what == 'loss':
      compiled = _compile_loss(sizes, given, **options)
    else:
      config = (cases.small_config if options['small'] else cases.vits_config)(
        sizes, devices
      )
      compiled = engine.Engine(config, cases.CLASSES).compile()
  print(json.dumps(_described(compiled, devices, target)))


def _described(compiled, devices, target):
  text = compiled.as_text()
  if target == 'tpu':
    return {
      name: tpu.seconds(text, cases.Slice.peak, choose)
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
