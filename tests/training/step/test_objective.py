"""Every metric loss a config can name, alone and with HIER."""

import functools
import inspect

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hier_jax import layers, losses, poincare
from hier_jax.training.config import checks
from hier_jax.training.config.default import default_config
from hier_jax.training.step import objective
from tests.support import sharded, training_data

CLASSES, ROWS, DIM = 8, 16, 16


def batch(seed=0):
  rng = np.random.default_rng(seed)
  z = rng.standard_normal((ROWS, DIM)).astype(np.float32)
  z = poincare.to_ball(z, c=0.1, clip_radius=2.3)
  return z, np.arange(ROWS, dtype=np.int32) // 2


def params_of(config):
  params = objective.init_params(jax.random.key(0), config.loss, CLASSES, DIM)
  proxies = losses.init_hier_proxies(jax.random.key(1), 24, DIM)
  return params | {'hierarchical_proxies': proxies}


def loss_of(config, *args, **options):
  """`objective.loss` as the step of a config calls it."""
  return objective.loss(
    *args,
    settings=config.loss,
    model=config.model,
    images_per_class=config.data.images_per_class,
    **options,
  )


def test_every_loss_of_single_labels_is_there():
  of_rows = lambda name: (
    'where' in inspect.signature(getattr(losses, name)).parameters
  )
  # `hap` ranks by levels of labels, `enqueue` is no loss.
  found = set(filter(of_rows, losses.__all__)) - {'hap', 'enqueue'}
  assert set(objective.LOSSES) == found


def test_options_are_those_of_the_signatures():
  assert objective.options('soft_triple') == {
    'scale': 20.0,
    'temperature': 0.1,
    'margin': 0.01,
    'center_weight': 0.0,
    'centers': 10,
  }
  assert objective.options('hyp') == {'temperature': 0.2, 'hyperbolic': True}
  assert objective.options('multi_similarity')['hyperbolic'] is False


def test_options_of_hier_are_those_of_its_signature():
  parameters = inspect.signature(losses.hier).parameters
  ball, hier = objective.ball_options(), objective.hier_options()
  assert ball == {key: parameters[key].default for key in ('c', 'clip_radius')}
  config = default_config()
  assert {key: config.model[key] for key in ball} == ball
  assert config.loss.hier.to_dict() == hier
  assert hier['k'] == parameters['k'].default
  assert not {*ball, 'axis_name'} & set(hier)


@functools.cache
def traced(name):
  """Value and gradients of a loss alone, and what its config makes of it."""
  config = training_data.config(
    **{'loss.metric': name, 'loss.hier_weight': 0.0}
  )
  checks.validate(config)
  z, labels = batch()
  params = params_of(config)
  del params['hierarchical_proxies']
  f = lambda z, params: loss_of(config, jax.random.key(0), z, labels, params)
  f = jax.jit(jax.value_and_grad(f, (0, 1), has_aux=True))
  return f.trace(z, params), z, params


@pytest.mark.parametrize('name', objective.LOSSES)
def test_every_loss_trains_its_rows_and_parameters(name):
  program, z, params = traced(name)
  (value, aux), grads = program.lower().compile()(z, params)
  assert set(aux) == {'loss', 'metric'}
  chex.assert_tree_all_finite((value, grads))
  assert all(jnp.any(g != 0) for g in jax.tree.leaves(grads))
  centers = {'soft_triple': (10,), 'sub_center_arc_face': (3,)}.get(name, ())
  if 'class_proxies' in params:
    chex.assert_shape(params['class_proxies'], (CLASSES, *centers, DIM))


def with_hier(name, **settings):
  config = training_data.config(**{'loss.metric': name, **settings})
  checks.validate(config)
  f = lambda z, labels, params, axis_name: loss_of(
    config, jax.random.key(5), z, labels, params, axis_name=axis_name
  )
  return config, f


@pytest.mark.parametrize('second', ['sup_ap', 'hyp'])
def test_second_loss_is_added_with_its_weight(second):
  settings = {'loss.hier_weight': 0.0, 'loss.metric_weight': 2.0}
  config, f = with_hier('proxy_anchor', **settings)
  both = {'loss.second': second, 'loss.second_weight': 3.0}
  _, added = with_hier('proxy_anchor', **settings, **both)
  z, labels = batch()
  params = params_of(config)
  alone, _ = jax.jit(lambda z, p: f(z, labels, p, None))(z, params)
  value, aux = jax.jit(lambda z, p: added(z, labels, p, None))(z, params)
  other = {'sup_ap': {}, 'hyp': {'c': 0.1}}[second]
  other = jax.jit(lambda z: getattr(losses, second)(z, labels, **other))(z)
  assert float(other) > 0
  np.testing.assert_allclose(value, alone + 6 * other, rtol=1e-6)
  np.testing.assert_allclose(aux['metric'], alone / 2, rtol=1e-6)
  np.testing.assert_allclose(aux['second'], other, rtol=1e-6)


def test_second_loss_of_no_weight_is_left_out():
  settings = {'loss.hier_weight': 0.0, 'loss.second': 'sup_ap'}
  config, f = with_hier(
    'proxy_anchor', **settings, **{'loss.second_weight': 0.0}
  )
  z, labels = batch()
  value, aux = f(z, labels, params_of(config), None)
  assert value == aux['metric'] and 'second' not in aux


def test_second_loss_alone_takes_the_memory():
  settings = {'loss.memory.size': 32, 'loss.hier_weight': 0.0}
  config, _ = with_hier(
    'proxy_anchor', **settings, **{'loss.second': 'sup_con'}
  )
  z, labels = batch()
  memory = losses.enqueue(
    objective.init_memory(config.loss.memory, DIM), *batch(seed=1)
  )
  params = params_of(config)
  run = lambda memory: loss_of(
    config, jax.random.key(0), z, labels, params, memory=memory
  )
  value, without = run(memory)[0], run(None)[0]
  seen = losses.sup_con(z, labels, memory=memory)
  alone = losses.sup_con(z, labels)
  np.testing.assert_allclose(value - without, seen - alone, rtol=1e-4)
  assert abs(float(seen - alone)) > 1e-3


@pytest.mark.parametrize('name', ['proxy_anchor', 'hyp'])
def test_sum_of_metric_and_hier(name):
  config, f = with_hier(name, **{'loss.hier_weight': 2.0})
  z, labels = batch()
  params = params_of(config)
  total, aux = jax.jit(lambda z, p: f(z, labels, p, None))(z, params)
  metric = {
    'proxy_anchor': lambda z: losses.proxy_anchor(
      z, labels, params['class_proxies']
    ),
    'hyp': lambda z: losses.hyp(z, labels, c=0.1),
  }[name]
  metric = jax.jit(metric)(z)
  np.testing.assert_allclose(aux['metric'], metric, rtol=1e-6)
  hier, stats = jax.jit(
    lambda z, v: losses.hier(
      jax.random.key(5), z, labels, v, k=6, triplets_per_anchor=5
    )
  )(z, params['hierarchical_proxies'])
  np.testing.assert_allclose(aux['hier'], hier, rtol=1e-6)
  np.testing.assert_allclose(total, metric + 2 * hier, rtol=1e-6)
  assert {f'hier/{key}' for key in stats} < set(aux)


HIGHEST = (jax.lax.Precision.HIGHEST,) * 2


def precisions(jaxpr):
  """Those of a jaxpr's products."""
  return {
    eqn.params['precision']
    for eqn in equations(jaxpr)
    if eqn.primitive.name == 'dot_general'
  }


@pytest.mark.parametrize('name', objective.LOSSES)
def test_no_product_of_a_loss_has_a_lower_precision(name):
  # Some have no product at all.
  assert precisions(traced(name)[0].jaxpr.jaxpr) <= {HIGHEST}


@pytest.mark.parametrize('c', [0.1, None])
def test_no_product_of_head_and_hier_has_a_lower_precision(c):
  config = training_data.config(**{'loss.metric': 'sup_con', 'model.c': c})
  head = layers.BallHead(DIM, c=c)
  features = np.zeros((ROWS, 8), np.float32)
  variables = head.init(jax.random.key(0), features)
  labels = np.arange(ROWS, dtype=np.int32) // 2

  def loss(variables, params, features):
    z = head.apply(variables, features)
    key = jax.random.key(0)
    return loss_of(config, key, z, labels, params)[0]

  jaxpr = jax.make_jaxpr(jax.grad(loss, (0, 1, 2)))(
    variables, params_of(config), features
  )
  assert precisions(jaxpr.jaxpr) == {HIGHEST}


def equations(jaxpr):
  """Those of a jaxpr and of all that is inside them."""
  for eqn in jaxpr.eqns:
    yield eqn
    for inner in jax.tree.leaves(eqn.params, is_leaf=is_jaxpr):
      if is_jaxpr(inner):
        yield from equations(getattr(inner, 'jaxpr', inner))


def is_jaxpr(leaf):
  return hasattr(leaf, 'eqns') or hasattr(leaf, 'jaxpr')


@pytest.mark.slow
def test_hyp_with_hier_on_devices_is_that_of_one():
  config, f = with_hier('hyp')
  z, labels = batch()
  proxies = params_of(config)['hierarchical_proxies']

  def loss(z, labels, v, axis_name):
    return f(z, labels, {'hierarchical_proxies': v}, axis_name)[0]

  sharded.assert_like_one_device(loss, (z, labels), (proxies,))


@pytest.mark.parametrize('c', [None, 0.0])
def test_losses_of_cosines_and_of_euclidean_space(c):
  name, z, labels = 'sup_con', *batch()
  config, f = with_hier(
    name,
    **{
      'model.c': c,
      'model.clip_radius': None,
      f'loss.{name}.hyperbolic': True,
    },
  )
  params = params_of(config)
  total, aux = jax.jit(lambda z, p: f(z, labels, p, None))(z, params)
  metric = losses.sup_con(z, labels, c=c)
  np.testing.assert_allclose(aux['metric'], metric, rtol=1e-6)
  assert metric != losses.sup_con(z, labels, c=0.1)
  chex.assert_tree_all_finite((total, aux))


def test_memory_is_read_from_its_step_on_and_moves_on():
  config = training_data.config(
    **{
      'loss.metric': 'contrastive',
      'loss.hier_weight': 0.0,
      'loss.memory.size': 32,
      'loss.memory.start_step': 3,
    }
  )
  checks.validate(config)
  z, labels = batch()
  memory = objective.advance(
    objective.init_memory(config.loss.memory, DIM), *batch(seed=1)
  )
  assert int(memory.position) == ROWS
  value = lambda step: loss_of(
    config, jax.random.key(0), z, labels, {}, memory=memory, step=step
  )[0]
  alone = losses.contrastive(z, labels)
  np.testing.assert_allclose(value(2), alone, rtol=1e-6)
  np.testing.assert_allclose(
    value(3), losses.contrastive(z, labels, memory=memory), rtol=1e-6
  )
  assert abs(value(3) - alone) > 1e-3
