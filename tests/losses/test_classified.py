"""Class proxies that are spread over devices, beside those that each has."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hier_jax import losses
from tests.support import sharded, vectors

ROWS, CLASSES, DIM = 24, 10, 5
CENTERS = {'soft_triple': 3, 'sub_center_arc_face': 3}
OPTIONS = {'soft_triple': {'center_weight': 0.3}}
NAMES = (
  'proxy_anchor',
  'proxy_nca_pp',
  'normalized_softmax',
  'cos_face',
  'arc_face',
  'sub_center_arc_face',
  'soft_triple',
)


def batch(name):
  """Rows, labels of few classes, some of none, proxies and who counts."""
  keys = jax.random.split(jax.random.key(0), 3)
  z = jax.random.normal(keys[0], (ROWS, DIM))
  labels = jnp.arange(ROWS, dtype=jnp.int32) % 7
  if name != 'proxy_anchor':
    labels = labels.at[3].set(CLASSES).at[4].set(-1)
  proxies = losses.init_class_proxies(
    keys[1], CLASSES, DIM, centers=CENTERS.get(name)
  )
  return z, labels, proxies, jax.random.bernoulli(keys[2], 0.8, (ROWS,))


def shares(devices, proxies):
  """Proxies `[devices, share, ...]`, filled up with ones."""
  more = -len(proxies) % devices
  filled = jnp.pad(
    proxies, [(0, more)] + [(0, 0)] * (proxies.ndim - 1), constant_values=1
  )
  return filled.reshape(devices, -1, *proxies.shape[1:])


def check(name, devices, **mapped):
  z, labels, proxies, where = batch(name)
  f = functools.partial(getattr(losses, name), **OPTIONS.get(name, {}))
  alone = lambda z, proxies: f(z, labels, proxies, where=where)
  value, wanted = jax.jit(jax.value_and_grad(alone, (0, 1)))(z, proxies)

  def step(z, labels, proxies, where):
    on_many = lambda z, proxies: f(
      z, labels, proxies, where=where, num_classes=CLASSES, axis_name='i'
    )
    return jax.value_and_grad(on_many, (0, 1))(z, proxies)

  rows = [sharded.rows_over(devices, a) for a in (z, labels, where)]
  run = sharded.mapped(step, devices, (0, 0, 0, 0))
  values, (by_z, by_proxies) = run(
    rows[0], rows[1], shares(devices, proxies), rows[2]
  )
  np.testing.assert_allclose(values, np.full(devices, value), rtol=1e-6)
  by_proxies = by_proxies.reshape(-1, *proxies.shape[1:])
  # What fills up is moved by nothing.
  assert not np.any(by_proxies[CLASSES:])
  for got, want in zip(
    (by_z.reshape(z.shape), by_proxies[:CLASSES]), wanted, strict=True
  ):
    # A device's gradient by its own holds all devices' losses.
    vectors.assert_near(got / devices, want, 1e-6)


@pytest.mark.parametrize('name', NAMES)
def test_shares_of_the_classes_give_the_loss_of_all(name):
  check(name, 4)


@pytest.mark.parametrize('devices', [1, 2, 8])
@pytest.mark.parametrize('name', ['proxy_anchor', 'cos_face', 'soft_triple'])
def test_on_any_number_of_devices(name, devices):
  check(name, devices)


def test_shares_of_another_size_are_refused():
  z, labels, proxies, _ = batch('cos_face')
  with pytest.raises(ValueError, match='num_classes is 11, but there are 10'):
    losses.cos_face(z, labels, proxies, num_classes=11)
  step = lambda z, labels: losses.cos_face(
    z, labels, proxies, num_classes=CLASSES, axis_name='i'
  )
  rows = [sharded.rows_over(4, a) for a in (z, labels)]
  with pytest.raises(ValueError, match='has 10 class proxies, expected 3'):
    jax.eval_shape(jax.vmap(step, axis_name='i'), *rows)
