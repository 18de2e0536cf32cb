"""Regime c: blocks that are trained on the tokens that enter them."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.study import (
  arms,
  blocks,
  features,
  regimes,
  runner,
  search,
  spaces,
  training,
)
from hier_jax import models
from tests.support import small_study

# The features are of blocks 7 to 10, of 12.
NETWORK = models.ViT(
  patch_size=4, width=8, depth=12, num_heads=2, image_size=8, layer_scale=0.5
)
BLOCKS = 2


@functools.cache
def variables():
  """Parameters that differ from block to block, and are not small."""
  images = np.zeros((1, 8, 8, 3), np.float32)
  shapes = jax.eval_shape(
    lambda: NETWORK.init(jax.random.key(0), images, train=False)
  )
  rng = np.random.default_rng(0)
  return jax.tree.map(lambda a: np.float32(rng.normal(0, 0.4, a.shape)), shapes)


@functools.cache
def made():
  """'x' and 'tokens' of the images of `small_study.make`."""
  labels = small_study.make().labels
  rng = np.random.default_rng(1)
  center = rng.integers(0, 256, (small_study.CLASSES, 8, 8, 3))
  noise = rng.normal(0, 30, (len(labels), 8, 8, 3))
  pixels = np.uint8(np.clip(center[labels] + noise, 0, 255))
  return features._computed(NETWORK, variables(), pixels, 40, BLOCKS)


def data():
  params = variables()['params']
  return dataclasses.replace(
    small_study.make(),
    x=made()['x'],
    tokens=made()['tokens'],
    blocks={name: params[name] for name in features.last_blocks(BLOCKS)},
  )


@pytest.fixture(autouse=True)
def _small(monkeypatch):
  small_study.shrink(monkeypatch)
  tuned = dataclasses.replace(
    regimes.REGIMES['tiny'],
    blocks=BLOCKS,
    space=regimes.REGIMES['c'].space,
  )
  monkeypatch.setitem(regimes.REGIMES, 'tuned', tuned)
  monkeypatch.setattr(models, 'create_backbone', lambda *_, **__: NETWORK)


def test_blocks_on_their_tokens_are_the_whole_network():
  assert made()['tokens'].dtype == np.float16
  frozen = jnp.asarray(runner.standardized(made()['x']))
  # Without what the trained blocks make.
  blind = frozen.at[:, : 2 * NETWORK.width].set(np.nan)
  x = blocks.Tokens(blind, jnp.asarray(made()['tokens']))
  got = jax.jit(blocks.Blocks(NETWORK, BLOCKS).apply)(
    {'params': data().blocks}, x
  )
  # Of numbers of about 1, kept in float16.
  np.testing.assert_allclose(got, frozen, rtol=1e-3, atol=1e-3)


def test_rows_are_embedded_in_their_order_whatever_their_number():
  x = blocks.Tokens(np.arange(300.0)[:, None], np.zeros((300, 2, 1)))
  seen = []

  def apply(x):
    seen.append(len(x.tokens))
    return 2 * x.frozen

  for n in (3, 256, 300):
    found = blocks.in_batches(apply, blocks.take(x, slice(n)))
    np.testing.assert_array_equal(found[:, 0], 2 * np.arange(n))
  assert set(seen) == {256}


def run_of():
  """A run on tokens, of the classes below 12."""
  found = data()
  frozen = jnp.asarray(runner.standardized(found.x))
  rows = np.flatnonzero(found.labels < 12)
  return training.Run(
    blocks.Tokens(frozen, jnp.asarray(found.tokens)),
    rows,
    found.labels[rows],
    found.subgroup[:12],
    epochs=2,
    pretrained=found.blocks,
  )


ARM = arms.arm('sup_con+distillation')
POINT = spaces.defaults(regimes.arm('c', ARM.name).space)


@functools.cache
def trained(rate, lr=1e-2):
  point = POINT | {'backbone_lr': rate, 'lr': lr}
  return training.train(ARM, point, run_of(), dim=4, seed=0)


def parts(found):
  """Parameters of the blocks, and of the head."""
  params = found.params['head']['params']
  return params['backbone'], params['head']


def moved(tree, other):
  """Of each array, whether it differs anywhere."""
  leaves = zip(*map(jax.tree.leaves, (tree, other)), strict=True)
  return [not np.array_equal(a, b) for a, b in leaves]


def test_what_an_arm_is_told_is_of_the_frozen_network():
  run = run_of()
  np.testing.assert_array_equal(run.features, run.x.frozen[run.rows])


@pytest.mark.slow
def test_blocks_and_head_have_rates_of_their_own():
  before = training._steps._cache_size()
  still, tuned, below = trained(0.0), trained(1e-3), trained(1e-3, 0.0)
  # No rate is a constant of the program.
  assert training._steps._cache_size() == before + 1
  # To the bit.
  assert not any(moved(parts(trained.__wrapped__(1e-3)), parts(tuned)))
  assert not any(moved(parts(still)[0], run_of().pretrained))
  assert all(moved(parts(tuned)[0], run_of().pretrained))
  assert any(moved(parts(tuned)[1], parts(below)[1]))
  first = training.train(
    ARM, POINT | {'lr': 0.0, 'backbone_lr': 0.0}, run_of(), dim=4, seed=0
  )
  assert not any(moved(parts(below)[1], parts(first)[1]))


@pytest.mark.slow
def test_classes_held_out_pass_through_the_trained_blocks():
  program = training.program_of(ARM, POINT, 4, 12, blocks=BLOCKS)
  tuned = trained(1e-3)
  encoder = {'backbone': run_of().pretrained, 'head': parts(tuned)[1]}
  params = {**tuned.params, 'head': {'params': encoder}}
  held = blocks.take(run_of().x, np.arange(70, 120))
  z, of_still = (
    training.embed(program, found, held)
    for found in (tuned, tuned._replace(params=params))
  )
  assert z.shape == (50, 4) and np.isfinite(z).all()
  assert np.abs(z - of_still).max() > 1e-3


@pytest.mark.slow
def test_run_repeats_and_differs_from_one_of_frozen_blocks():
  made = runner.Runner(data())

  def ran(regime, **more):
    point = spaces.defaults(regimes.arm(regime, 'sup_con+alone').space)
    job = search.Target(regime, 'A', 'sup_con+alone').job(point | more, 0)
    line = made.run(job)
    return {k: line[k] for k in ('metrics', 'loss', 'steps', 'diverged')}

  first = ran('tuned', backbone_lr=1e-3)
  assert ran('tuned', backbone_lr=1e-3) == first and not first['diverged']
  assert ran('tuned', backbone_lr=0.0)['loss'] != first['loss']
  # The same features serve a head alone.
  assert not ran('tiny')['diverged']
