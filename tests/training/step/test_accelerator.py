"""A step in bfloat16, and a step whose bits repeat, on whatever device."""

import hashlib
import os
import re
import subprocess
import sys

import jax
import numpy as np
import pytest

from hier_jax.training.distributed import mapping
from tests.support import training_data


def steps(count, **settings):
  """Metrics of each step with HIER, and the parameters after the last one."""
  _, step, state, batch = training_data.made_step(**settings)
  step = mapping.map_step(step, devices=jax.local_devices()[:1])
  found = []
  for _ in range(count):
    state, metrics = step(state, batch)
    found.append({k: float(v) for k, v in metrics.items()})
  return found, jax.device_get(state.params)


def digest():
  """Of every bit of the parameters after three steps."""
  _, params = steps(3)
  found = hashlib.sha256()
  for leaf in jax.tree.leaves(params):
    found.update(np.asarray(leaf).tobytes())
  return found.hexdigest()


@pytest.mark.slow
def test_a_step_in_bfloat16_is_near_one_in_float32():
  (wide,), _ = steps(1)
  (narrow,), params = steps(1, **{'model.dtype': 'bfloat16'})
  # An embedding of bfloat16 is off by some 2^-8 of its length.
  assert abs(narrow['loss'] - wide['loss']) < 0.03 * abs(wide['loss'])
  assert narrow['skipped'] == 0
  for leaf in jax.tree.leaves(params):
    assert leaf.dtype == np.float32
    assert np.isfinite(leaf).all()


@pytest.mark.parametrize('backbone', ['vit_test_patch4', 'resnet_test'])
def test_products_of_float32_keep_its_digits(backbone):
  # Accelerators round them to TF32 or bfloat16 unless a program says not to.
  settings = {'model.backbone': backbone}
  _, step, state, batch = training_data.made_step(**settings)
  mapped = jax.vmap(step, (None, 0), axis_name=mapping.AXIS)
  one_device = jax.tree.map(lambda a: a[None], batch)
  program = jax.jit(mapped).lower(state, one_device).as_text()
  products = re.findall(r'.*stablehlo\.(?:dot_general|convolution).*', program)
  assert len(products) > 20
  rounded = [line for line in products if 'HIGHEST' not in line]
  assert not [line for line in rounded if re.search(r'x(f32|f64)>', line)]


@pytest.mark.slow
def test_bits_repeat_where_xla_is_asked_for_it():
  flags = f'{os.environ.get("XLA_FLAGS", "")} --xla_gpu_deterministic_ops=true'
  program = (
    'from tests.training.step import test_accelerator as own\n'
    'print(own.digest())'
  )
  found = {
    subprocess.run(
      [sys.executable, '-c', program],
      env=os.environ | {'XLA_FLAGS': flags},
      stdout=subprocess.PIPE,
      text=True,
      check=True,
    ).stdout.strip()
    for _ in range(2)
  }
  assert len(found) == 1
