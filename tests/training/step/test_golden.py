"""Six steps of the real training step, in float64, against NumPy by hand."""

import importlib

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import traverse_util

from hier_jax import layers, mining
from hier_jax.training.distributed import mapping
from hier_jax.training.step import state as state_lib
from hier_jax.training.step import train_step as step_lib
from tests.losses.test_lca import oracle
from tests.support import numpy_training, training_data

pytestmark = pytest.mark.optimized

STEPS, STEPS_PER_EPOCH = 6, 3
ROWS, CLASSES, PROXIES, DIM, WIDTH = 8, 5, 12, 6, 10
TRIPLETS = {'data': 40, 'proxy': 60}
CLIP_VALUE, DECAY = 0.02, 0.05
# The rate. Exact in float32, in which optax computes the schedule.
HEIGHT = 2.0**-6


def config():
  made = training_data.config(
    **{
      'model.embedding_dim': DIM,
      'loss.num_proxies': PROXIES,
      'loss.hier.k': 3,
      'loss.hier_weight': 0.7,
      'data.batch_size': ROWS,
      'optim.lr': HEIGHT * 180 / ROWS,
      'optim.warmup_epochs': 1,
      'optim.schedule': 'step',
      'optim.step_every': 1,
      'optim.weight_decay': DECAY,
      'optim.clip_value': CLIP_VALUE,
    }
  )
  made.optim.scales.update(
    backbone=0.5, head=1.0, hierarchical_proxies=2.0, class_proxies=3.0
  )
  return made


class Network(nn.Module):
  """A linear backbone under the real head."""

  @nn.compact
  def __call__(self, x, *, train=False):
    del train
    f = nn.Dense(WIDTH, use_bias=False, name='backbone')(x)
    return layers.BallHead(DIM, name='head')(f)


def draw(rng):
  """Parameters by path, and the batches; embeddings in and out of the clip."""
  shapes = {
    'model/backbone/kernel': (7, WIDTH),
    'model/head/linear/kernel': (WIDTH, DIM),
    'model/head/linear/bias': (DIM,),
    'loss/class_proxies': (CLASSES, DIM),
    'loss/hierarchical_proxies': (PROXIES, DIM),
  }
  params = {k: rng.normal(size=shape) for k, shape in shapes.items()}
  params['model/head/linear/kernel'] *= 0.3
  batches = [
    {
      'image': rng.normal(size=(ROWS, 7)),
      'label': rng.permutation(CLASSES)[: ROWS // 2].repeat(2).astype(np.int32),
    }
    for _ in range(STEPS)
  ]
  return params, batches


def draw_lca(rng):
  """Fixed triplets and Gumbel noise of both terms."""
  drawn = {}
  for term, nodes in (('data', ROWS), ('proxy', PROXIES)):
    count = TRIPLETS[term]
    i, j, k = rng.integers(0, nodes, (3, count)).astype(np.int32)
    rows = mining.Triplets(i, j, k, np.ones(count, np.float32))
    drawn[term] = rows, rng.gumbel(size=(2, count, PROXIES))
  return drawn


@pytest.fixture
def fixed(monkeypatch):
  """Puts fixed triplets and noise in the place of HIER's draws."""
  drawn = draw_lca(np.random.default_rng(1))
  hier = importlib.import_module('hier_jax.losses._hier')
  lca_losses = hier.lca_losses
  rows, noise = zip(*drawn.values(), strict=True)
  monkeypatch.setattr(
    mining,
    'draw_triplets',
    lambda *args: mining.Triplets(
      *map(jnp.concatenate, zip(*rows, strict=True))
    ),
  )
  monkeypatch.setattr(
    hier,
    'lca_losses',
    lambda keys, *args, **kwargs: lca_losses(noise, *args, **kwargs),
  )
  return drawn


def trained(config, params, batches):
  """Parameters by path after each step of ours, and the losses."""
  nested = traverse_util.unflatten_dict(
    {path: jnp.asarray(p) for path, p in params.items()}, sep='/'
  )
  optimizer = training_data.optimizer(config, STEPS_PER_EPOCH)
  state = state_lib.TrainState(
    step=jnp.zeros((), jnp.int32),
    params=nested,
    batch_stats={},
    opt_state=optimizer.init(nested),
    skipped=jnp.zeros((), jnp.int32),
  )
  step = mapping.map_step(
    step_lib.make_train_step(config, Network(), optimizer),
    devices=jax.local_devices()[:1],
  )
  for batch in batches:
    state, metrics = step(state, batch)
    flat = traverse_util.flatten_dict(state.params, sep='/')
    yield float(metrics['loss']), {k: np.asarray(p) for k, p in flat.items()}


def by_hand(config, params, batches, drawn):
  """The same by `golden`; and whether anything was clipped, of both kinds."""

  def lca(term, d):
    rows, noise = drawn[term]
    loss, grad, _ = oracle(d, rows, noise, 0.1, 0.1)
    return loss / len(noise[0]), grad / len(noise[0])

  moments = {k: (np.zeros_like(p),) * 2 for k, p in params.items()}
  for t, batch in enumerate(batches):
    loss, grads, clipped = numpy_training.gradients(
      params, batch['image'], batch['label'], lca, c=0.1, r=2.3, hier_weight=0.7
    )
    assert clipped.any()
    assert not clipped.all()
    # Every epoch half as fast; the backbone rests in the first.
    rate = HEIGHT * 0.5 ** (t // STEPS_PER_EPOCH)
    scales = dict(config.optim.scales)
    scales['backbone'] *= t >= STEPS_PER_EPOCH
    bounded = 0
    new = {}
    for path, group in numpy_training.GROUPS.items():
      g = np.clip(grads[path], -CLIP_VALUE, CLIP_VALUE)
      bounded += np.sum(g != grads[path])
      new[path], moments[path] = numpy_training.adamw(
        params[path],
        g,
        moments[path],
        t + 1,
        rate=rate * scales[group],
        decay=DECAY,
      )
    assert 0 < bounded < sum(g.size for g in grads.values())
    params = new
    yield loss, params


def test_six_steps_equal_those_by_hand(fixed):
  params, batches = draw(np.random.default_rng(0))
  settings = config()
  with jax.enable_x64():
    ours = list(trained(settings, params, batches))
  wanted = by_hand(settings, params, batches, fixed)
  for (loss, got), (want_loss, want) in zip(ours, wanted, strict=True):
    # Metrics are float32.
    np.testing.assert_allclose(loss, want_loss, rtol=1e-6)
    for path in numpy_training.GROUPS:
      assert got[path].dtype == np.float64
      np.testing.assert_allclose(got[path], want[path], rtol=0, atol=1e-12)
