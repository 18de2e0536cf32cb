"""HIER's loss and its gradients, by kernel, beside the formula in XLA."""

import os
import statistics
import time
from unittest import mock

import jax
import jax.numpy as jnp

from experiments.benchmarks.accelerator import kernels
from hier_jax import losses
from hier_jax.losses import _lca_kernel

_SIZES = (180, 512), (1024, 512), (180, 4096), (4096, 512), (1024, 4096)
_TOGETHER = 20
_ROUNDS = 7


def _program(batch, proxies, **options):
  keys = jax.random.split(jax.random.key(0), 3)
  # As the head makes them: on the clip sphere, a class of two side by side.
  z = jax.random.normal(keys[0], (batch // 2, 1, 128))
  z = z + 0.5 * jax.random.normal(keys[1], (batch // 2, 2, 128))
  z = z.reshape(batch, 128)
  z = 2.0 * z / jnp.linalg.norm(z, axis=1, keepdims=True)
  hier_proxies = losses.init_hier_proxies(keys[2], proxies, 128)
  labels = jnp.arange(batch, dtype=jnp.int32) // 2

  def loss(z, hier_proxies, labels, key):
    return losses.hier(key, z, labels, hier_proxies, **options)

  made = jax.jit(jax.value_and_grad(loss, (0, 1), has_aux=True))
  arguments = z, hier_proxies, labels, jax.random.key(1)
  start = time.perf_counter()
  program = made.lower(*arguments).compile()
  seconds = time.perf_counter() - start
  (value, _), grads = jax.block_until_ready(program(*arguments))
  return program, arguments, seconds, (value, grads)


def _milliseconds(program, arguments):
  """Of one among others, launched one after the other."""
  start = time.perf_counter()
  for _ in range(_TOGETHER):
    out = program(*arguments)
  jax.block_until_ready(out)
  return 1e3 * (time.perf_counter() - start) / _TOGETHER


def _difference(a, b):
  """The norm of the gradients' difference, of that of the gradients."""
  norm = lambda x: float(jnp.sqrt(sum(jnp.sum(g * g) for g in x)))
  return norm([x - y for x, y in zip(a, b, strict=True)]) / norm(b)


def measure(quick, only):
  """By size: both ways' milliseconds, differences, and kernels."""
  del only
  found = {}
  for batch, proxies in _SIZES[: 1 if quick else None]:
    with mock.patch.dict(os.environ, {_lca_kernel.SWITCH: '1'}):
      ours = _program(batch, proxies)
    formula = _program(batch, proxies)
    times = [], []
    for _ in range(_ROUNDS):
      for made, ms in zip((ours, formula), times, strict=True):
        ms.append(_milliseconds(*made[:2]))
    (loss, grads), (loss_f, grads_f) = ours[3], formula[3]
    rows = {
      name: {
        'ms': round(statistics.median(ms), 4),
        'least to most': [round(min(ms), 4), round(max(ms), 4)],
        'compile s': round(made[2], 1),
        'temporaries MB': made[0].memory_analysis().temp_size_in_bytes / 1e6,
      }
      for name, made, ms in zip(
        ('kernel', 'formula'), (ours, formula), times, strict=True
      )
    }
    rows['loss, relative difference'] = abs(float(loss / loss_f) - 1)
    rows['gradients, relative difference'] = _difference(grads, grads_f)
    if (batch, proxies) in _SIZES[:1]:
      for name, made in (('kernel', ours), ('formula', formula)):
        run = kernels.waited(made[0], *made[1])
        rows[name]['kernels'] = kernels.by_kernel(run, 10, 30)
    found[f'B = {batch}, P = {proxies}'] = rows
  return found
