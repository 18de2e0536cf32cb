"""Values and types that would be wrong in silence are named."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import hier_jax
from hier_jax import evaluation, layers, lorentz, losses, models, poincare

KEY = jax.random.key(0)
LABELS = np.arange(16) // 4
NEAR = 0.3 * jax.random.normal(KEY, (16, 8)) / 8**0.5
FAR = 40 * NEAR
PROXIES = losses.init_hier_proxies(KEY, 12, 8)


def regularizer(z, c, labels=LABELS):
  return losses.hier(KEY, z, labels, PROXIES, c=c, k=4, triplets_per_anchor=3)[
    0
  ]


def over_devices(z, c):
  f = lambda z, labels: losses.sup_con(z, labels, c=c, axis_name='i')
  return jax.pmap(f, 'i')(z.reshape(4, 4, 8), LABELS.reshape(4, 4))


def sharded(z, c):
  rows = jax.P('i')
  mesh = jax.make_mesh((4,), ('i',), axis_types=(jax.sharding.AxisType.Auto,))
  f = lambda z, labels: losses.sup_con(z, labels, c=c, axis_name='i')
  return jax.jit(
    jax.shard_map(f, mesh=mesh, in_specs=(rows, rows), out_specs=jax.P())
  )(z, LABELS)


@pytest.mark.parametrize(
  'f',
  [
    lambda z, c: poincare.dist(z, z, c=c),
    jax.jit(regularizer),
    pytest.param(jax.jit(jax.grad(regularizer)), marks=pytest.mark.slow),
    over_devices,
    sharded,
    jax.jit(jax.grad(lambda z, c: poincare.dist_matrix(z, z, c=c).sum())),
  ],
  ids=['eager', 'jit', 'grad', 'pmap', 'shard_map', 'custom_vjp'],
)
def test_points_outside_their_ball_are_named(f):
  c = 0.1
  # What was traced without the checks is no hindrance.
  jax.block_until_ready(f(NEAR, c))
  with hier_jax.debug_checks():
    jax.block_until_ready(f(NEAR, c))
  with (
    pytest.raises(ValueError, match=r'[zx]\[0\] is no point') as error,
    hier_jax.debug_checks(),
  ):
    jax.block_until_ready(f(FAR, c))
  # On several devices it is the first row of one of them.
  radius = float(re.search(r'\| is ([\d.]+),', str(error.value))[1])
  radii = np.sqrt(c) * np.linalg.norm(FAR[::4], axis=1)
  assert np.min(np.abs(radii - radius)) < 1e-5


@pytest.mark.parametrize(
  'f',
  [
    lambda x, c: poincare.dist(x, -x, c=c),
    lambda x, c: poincare.midpoint(jnp.stack([x, -x], 1), c=c),
  ],
  ids=['points', 'sets of points'],
)
def test_each_point_is_inside_the_ball_of_its_own_curvature(f):
  x, c = jnp.array([[2.5, 0.0], [0.0, 0.2]]), jnp.array([0.1, 10.0])
  with hier_jax.debug_checks():
    assert np.isfinite(f(x, c)).all()
  with (
    pytest.raises(ValueError, match='is no point of the ball'),
    hier_jax.debug_checks(),
  ):
    jax.block_until_ready(f(x, c[::-1]))


def no_number(z):
  return z.at[3, 2].set(jnp.nan)


@pytest.mark.parametrize(
  ('f', 'message'),
  [
    (lambda: poincare.dist(NEAR, NEAR, c=jnp.float32(-0.5)), 'c is -0.5'),
    (lambda: losses.sup_con(no_number(NEAR), LABELS), r'z\[3, 2\] is nan'),
    (lambda: poincare.exp0(no_number(FAR), c=1), r'u\[3, 2\] is nan'),
    (
      lambda: losses.proxy_anchor(NEAR, LABELS + 1, PROXIES[:4]),
      r'labels\[12\] is 4, expected a class in 0\.\.3',
    ),
    (
      lambda: losses.arc_face(NEAR, LABELS - 1, PROXIES[:4]),
      r'labels\[0\] is -1',
    ),
  ],
)
def test_wrong_values_are_named(f, message):
  run = lambda: jax.block_until_ready(jax.jit(lambda: f())())
  run()
  with pytest.raises(ValueError, match=message), hier_jax.debug_checks():
    run()


def test_rows_that_do_not_count_may_have_any_label():
  where = LABELS < 3
  with hier_jax.debug_checks():
    f = lambda z: losses.proxy_anchor(z, LABELS, PROXIES[:3], where=where)
    jax.block_until_ready(jax.jit(f)(NEAR))


def test_without_the_switch_nothing_is_traced():
  text = lambda: str(jax.make_jaxpr(regularizer)(NEAR, 0.1))
  before = text()
  with hier_jax.debug_checks():
    assert 'debug_callback' in text()
  assert text() == before
  assert 'callback' not in before


@pytest.mark.parametrize(
  'f',
  [
    lambda c: poincare.dist(NEAR, NEAR, c=c),
    lambda c: poincare.to_ball(NEAR, c=c, clip_radius=2.3),
    lambda c: lorentz.from_poincare(NEAR, c=c),
    lambda c: regularizer(NEAR, c),
    lambda c: losses.triplet(NEAR, LABELS, c=c),
    lambda c: layers.BallHead(4, c=c).init(KEY, NEAR),
    lambda c: layers.HypLinear(4, c=c).init(KEY, NEAR),
    lambda c: layers.HypMLR(4, c=c).init(KEY, NEAR),
    lambda c: layers.HypDistance(4, c=c).init(KEY, NEAR),
    lambda c: evaluation.retrieval_metrics(np.asarray(NEAR), LABELS, c=c),
  ],
)
@pytest.mark.parametrize('c', [-1, -0.5, np.float32(-2)])
def test_a_negative_curvature_is_refused(f, c):
  with pytest.raises(ValueError, match=rf'{c}'):
    f(c)


FLOATS = LABELS.astype(np.float32)
MEMORY = losses.init_memory(32, 8)


@pytest.mark.parametrize(
  'f',
  [
    lambda y: losses.proxy_anchor(NEAR, y, PROXIES),
    lambda y: losses.normalized_softmax(NEAR, y, PROXIES),
    lambda y: losses.soft_triple(NEAR, y, PROXIES[:, None]),
    lambda y: losses.sup_con(NEAR, y),
    lambda y: losses.triplet(NEAR, y),
    lambda y: losses.smooth_ap(NEAR, y),
    lambda y: losses.hap(NEAR, y[..., None]),
    lambda y: losses.enqueue(MEMORY, NEAR, y),
    lambda y: jax.eval_shape(lambda z: regularizer(z, 0.1, y), NEAR),
  ],
)
def test_labels_that_are_no_integers_are_refused(f):
  for labels in (LABELS, LABELS > 1):
    jax.eval_shape(lambda labels=labels: f(labels))
  with pytest.raises(ValueError, match='labels are float32, expected integers'):
    f(FLOATS)
  with pytest.raises(ValueError, match=r'expected, got shapes'):
    f(np.stack([LABELS, LABELS])[None])


@pytest.mark.parametrize('name', ['vit_test_patch4', 'resnet_test'])
def test_pixels_that_are_not_normalized_are_refused(name):
  images = np.zeros((2, 8, 8, 3), np.uint8)
  model = models.create_backbone(name, image_size=8)
  with pytest.raises(ValueError, match=r'uint8 \(2, 8, 8, 3\), expected float'):
    model.init(KEY, images, train=False)
  with pytest.raises(ValueError, match=r'float32 \(8, 8, 3\), expected float'):
    model.init(KEY, np.zeros((8, 8, 3), np.float32), train=False)
  whole = models.create(name, image_size=8, embedding_dim=4)
  with pytest.raises(ValueError, match=r'float32 .*expected uint8'):
    whole.init(KEY, images / np.float32(255), train=False)
