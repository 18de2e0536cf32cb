"""The kernel for GPUs, in Pallas's interpreter, beside the sums in XLA."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, PartitionSpec

from hier_jax import losses
from hier_jax.losses import _lca_kernel, _lca_sums, _noise
from hier_jax.mining import Triplets

_TAU, _MARGIN = np.float32(0.1), np.float32(0.1)


def _case(nodes, proxies, count, step=0.0):
  """Distances, the same ones often where they are multiples of a step."""
  rng = np.random.default_rng(0)
  dist = rng.uniform(0, 2, (nodes, proxies)).astype(np.float32)
  if step:
    dist = step * np.round(dist / step).astype(np.float32)
  rows = rng.integers(0, nodes, (3, count)).astype(np.int32)
  # Side by side, as anchors' triplets are, and some that are not.
  rows[0, : count // 2] = np.sort(rows[0, : count // 2])
  weight = rng.integers(0, 2, count).astype(np.float32)
  return jnp.asarray(dist), Triplets(*map(jnp.asarray, (*rows, weight)))


def _by_kernel(dist, triplets, key, shared_noise):
  nodes = jnp.stack(triplets[:3])
  count = nodes.shape[1]
  seeds = _noise.triplet_seeds([key], [0], [count], 2)
  paid, picks, grad = _lca_kernel.triplet_gradients(
    *(dist, nodes, triplets.weight, seeds, _TAU, _MARGIN),
    shared_noise=shared_noise,
    interpret=True,
  )
  apart = jnp.where(picks[0] != picks[1], triplets.weight, 0)
  return jnp.sum(apart * paid), jnp.sum(apart), grad


@pytest.mark.parametrize('shared_noise', [False, True])
@pytest.mark.parametrize(
  ('nodes', 'proxies', 'count', 'step'),
  [(37, 50, 95, 0.0), (20, 64, 40, 0.25), (3, 1, 7, 0.0)],
)
def test_it_is_the_sums_and_their_gradient(
  nodes, proxies, count, step, shared_noise
):
  dist, triplets = _case(nodes, proxies, count, step)
  key = jax.random.key(3)
  settings = _lca_sums.Settings('gumbel', shared_noise, None, False, (nodes,))
  ((loss, apart, _), _), (grad,) = _lca_sums._one_pass(
    dist, [triplets], [key], _TAU, _MARGIN, settings
  )
  found = _by_kernel(dist, triplets, key, shared_noise)
  np.testing.assert_allclose(found[0], loss[0], rtol=1e-5)
  np.testing.assert_array_equal(found[1], apart[0])
  scale = max(1e-9, float(jnp.abs(grad).max()))
  np.testing.assert_allclose(found[2], grad, atol=2e-6 * scale)
  assert (float(jnp.abs(grad).max()) > 0) == (proxies > 1)


def test_nan_reads_nothing_beyond_its_row():
  dist, triplets = _case(12, 20, 30)
  dist = dist.at[:, 3].set(jnp.nan)
  nodes, count = jnp.stack(triplets[:3]), 30
  seeds = _noise.triplet_seeds([jax.random.key(0)], [0], [count], 2)
  _, picks, _ = _lca_kernel.triplet_gradients(
    *(dist, nodes, triplets.weight, seeds, _TAU, _MARGIN),
    shared_noise=False,
    interpret=True,
  )
  assert int(picks.max()) < 20


def _hier(z, proxies, axis_name=None):
  labels = jnp.arange(len(z), dtype=jnp.int32) // 2
  return losses.hier(
    jax.random.key(1),
    z,
    labels,
    proxies,
    k=4,
    triplets_per_anchor=3,
    axis_name=axis_name,
  )


@pytest.fixture
def in_use(monkeypatch):
  """Has the loss take the kernel, in the interpreter."""
  interpreted = functools.partial(_lca_kernel.triplet_gradients, interpret=True)
  monkeypatch.setattr(_lca_kernel, 'fits', lambda *_, **__: True)
  monkeypatch.setattr(_lca_kernel, 'triplet_gradients', interpreted)


def _batch():
  keys = jax.random.split(jax.random.key(0))
  z = 0.3 * jax.random.normal(keys[0], (12, 5))
  return z, losses.init_hier_proxies(keys[1], 9, 5)


def _loss_and_grads():
  jax.clear_caches()
  return jax.jit(jax.value_and_grad(_hier, (0, 1), has_aux=True))(*_batch())


@pytest.fixture(scope='module')
def wanted():
  return _loss_and_grads()


def test_the_loss_with_it_is_the_loss(wanted, in_use):
  found = _loss_and_grads()
  jax.tree.map(
    functools.partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-6),
    found,
    wanted,
  )


def test_it_works_inside_shard_map(wanted, in_use):
  mesh = jax.make_mesh((1,), ('data',), axis_types=(AxisType.Auto,))

  def one(z, proxies):
    loss, grads = jax.value_and_grad(
      lambda z, proxies: _hier(z, proxies, 'data')[0], (0, 1)
    )(z, proxies)
    return loss, grads

  rows, all_of_it = PartitionSpec('data'), PartitionSpec()
  mapped = jax.shard_map(
    one,
    mesh=mesh,
    in_specs=(rows, all_of_it),
    out_specs=(all_of_it, (rows, all_of_it)),
    check_vma=False,
  )
  loss, grads = jax.jit(mapped)(*_batch())
  (want, _), want_grads = wanted
  np.testing.assert_allclose(loss, want, rtol=1e-5)
  for found, grad in zip(grads, want_grads, strict=True):
    np.testing.assert_allclose(found, grad, rtol=1e-5, atol=1e-6)


def test_it_is_not_for_a_cpu_nor_unless_asked_for(monkeypatch):
  dist = jnp.zeros((3, 4))
  if jax.default_backend() == 'cpu':
    monkeypatch.setenv(_lca_kernel.SWITCH, '1')
    assert not _lca_kernel.fits(dist, 'gumbel', given=False)
  monkeypatch.delenv(_lca_kernel.SWITCH)
  assert not _lca_kernel.fits(dist, 'gumbel', given=False)


@pytest.mark.skipif(
  jax.__version_info__ >= (0, 11), reason='that lowers with a GPU at hand only'
)
@pytest.mark.parametrize('proxies', [50, 512, 4096])
def test_it_lowers_for_cuda(proxies):
  shapes = [
    ((9, proxies), jnp.float32),
    ((3, 25), jnp.int32),
    ((25,), jnp.float32),
    ((25, 2, 2), jnp.uint32),
    ((), jnp.float32),
    ((), jnp.float32),
  ]
  lowered = _lca_kernel.triplet_gradients.trace(
    *(jax.ShapeDtypeStruct(*shape) for shape in shapes), shared_noise=False
  ).lower(lowering_platforms=('cuda',))
  assert 'triton' in lowered.as_text()


def test_it_is_taken_only_where_it_fits(monkeypatch):
  class Nvidia:
    device_kind = 'NVIDIA H100'

  flags = {_lca_kernel.SWITCH: '1', 'XLA_FLAGS': ''}
  for name, value in flags.items():
    monkeypatch.setenv(name, value)
  monkeypatch.setattr(jax, 'default_backend', lambda: 'gpu')
  monkeypatch.setattr(jax, 'devices', lambda: [Nvidia])
  dist = jax.ShapeDtypeStruct((2**14, 2**13), jnp.float32)
  fits = _lca_kernel.fits
  assert fits(dist, 'gumbel', given=False)
  wide = jax.ShapeDtypeStruct((4, 2**13 + 1), jnp.float32)
  assert not fits(wide, 'gumbel', given=False)
  assert not fits(dist.update(dtype=jnp.float64), 'gumbel', given=False)
  assert not fits(dist, 'softmax', given=False)
  assert not fits(dist, 'gumbel', given=True)
  for name, value in (
    (_lca_kernel.SWITCH, '0'),
    ('XLA_FLAGS', '--xla_gpu_deterministic_ops=true'),
  ):
    with monkeypatch.context() as other:
      other.setenv(name, value)
      assert not fits(dist, 'gumbel', given=False)
  monkeypatch.setattr(Nvidia, 'device_kind', 'AMD Instinct')
  assert not fits(dist, 'gumbel', given=False)


def test_it_is_told_whether_noise_is_given(monkeypatch):
  asked = []

  def fits(dist, estimator, *, given):
    asked.append(given)
    return False

  monkeypatch.setattr(_lca_kernel, 'fits', fits)
  dist, triplets = _case(6, 5, 4)
  jax.clear_caches()
  losses.lca(jax.random.key(0), dist, triplets)
  assert asked and not any(asked)
  asked.clear()
  losses.lca(None, dist, triplets, gumbel=jnp.zeros((2, 4, 5)))
  assert asked and all(asked)
