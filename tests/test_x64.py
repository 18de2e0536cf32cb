"""The public functions where jax_enable_x64 is set: nothing is left to it.

Computations are in the dtype of their floating-point inputs, integers are
int32, and draws are the same. What a program is made of is read in its jaxpr.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.extend import core

from hier_jax import evaluation, layers, lorentz, losses, poincare
from hier_jax import mining as triplets_lib
from hier_jax.poincare import wrapped_normal
from hier_jax.training.step import device_views
from tests import test_lorentz
from tests.losses import test_noise, test_proxy, test_softmax
from tests.support import (
  ball_operations,
  exact_geometry,
  pair_losses,
  ranking_losses,
)

pytestmark = pytest.mark.x64
rng = np.random.default_rng(0)
KEY = 0
C = 0.5
POINTS, OTHERS = exact_geometry.pairs(rng, 24, 20, 6, C, 'mid')
LABELS = np.append(rng.integers(0, 5, 23), 5)
PROXIES = 0.3 * rng.standard_normal((32, 6)).astype(np.float32)
HIER = {'c': C, 'k': 5, 'triplets_per_anchor': 6}


def of_layer(layer):
  """Of an input and the layer's parameters, whose values do not matter."""
  variables = jax.eval_shape(layer.init, jax.random.key(KEY), POINTS)
  leaves, tree = jax.tree.flatten(variables)

  def f(x, *leaves):
    return layer.apply(jax.tree.unflatten(tree, leaves), x)

  return f, (POINTS, *(np.ones(leaf.shape, leaf.dtype) for leaf in leaves))


def with_memory(name):
  """A loss whose memory is filled by the batch before."""

  def f(z, old):
    memory = losses.init_memory(30, 6)
    memory = losses.enqueue(memory, old, LABELS[:20])
    return getattr(losses, name)(z, LABELS, memory=memory)

  return f


def sampled(x):
  near = jnp.exp(-poincare.dist_matrix(x, x, c=C))
  neighbors, count = triplets_lib.reciprocal_neighbors(near, 5)
  return triplets_lib.sample_triplets(
    jax.random.key(KEY), neighbors, count, len(x), per_anchor=4
  )


def lca(dist, estimator='gumbel'):
  rows = np.random.default_rng(1).integers(0, 24, (3, 90)).astype(np.int32)
  triplets = triplets_lib.Triplets(*rows, weight=np.ones(90, np.float32))
  return losses.lca(jax.random.key(KEY), dist, triplets, estimator=estimator)


def hier(z, proxies):
  return losses.hier(jax.random.key(KEY), z, LABELS, proxies, **HIER)


def regularized(z, proxies):
  return losses.regularized(
    losses.sup_con, jax.random.key(KEY), z, LABELS, proxies, **HIER
  )


def drawn(dtype):
  return poincare.random_uniform(
    jax.random.key(KEY), (50, 3), c=C, radius=1.5, dtype=dtype
  )


def of_ball():
  cases = {
    name: (
      functools.partial(op, c=C),
      ball_operations.arguments(kinds, rng, 6, 4, C, 'mid'),
    )
    for name, (kinds, op, _) in ball_operations.OPS.items()
  }
  weights = np.ones((4, 6), np.float32)
  return cases | {
    'clip_norm': (lambda u: poincare.clip_norm(u, 0.5), (POINTS,)),
    'dist_matrix': (
      functools.partial(poincare.dist_matrix, c=C),
      (POINTS, OTHERS),
    ),
    'frechet_mean': (
      functools.partial(poincare.frechet_mean, c=C),
      (POINTS.reshape(4, 6, 6), weights),
    ),
    'hyperplane_matrix': (
      functools.partial(poincare.hyperplane_matrix, c=C),
      (POINTS, OTHERS, OTHERS + 1),
    ),
    'matvec': (functools.partial(poincare.matvec, c=C), (weights, POINTS)),
    'project': (functools.partial(poincare.project, c=C), (3 * POINTS,)),
    'riemannian_gradient': (
      functools.partial(poincare.riemannian_gradient, c=C),
      (POINTS,),
    ),
    'to_ball': (
      functools.partial(poincare.to_ball, c=C, clip_radius=0.5),
      (POINTS,),
    ),
    'wrapped_normal.log_prob': (
      functools.partial(wrapped_normal.log_prob, scale=0.5, c=C),
      (POINTS, POINTS[::-1]),
    ),
    'wrapped_normal.sample': (
      lambda loc: wrapped_normal.sample(jax.random.key(KEY), loc, 0.5, c=C),
      (POINTS,),
    ),
  }


def of_losses():
  cases = {}
  for module in (pair_losses, ranking_losses):
    for name, settings in module.CASES:
      labels = LABELS
      if name == 'hap':
        labels = np.stack([LABELS // 2, LABELS], 1)
      f = functools.partial(getattr(losses, name), labels=labels, **settings)
      cases[f'{name} {settings}'] = f, (POINTS,)
  for oracle in (*test_softmax.ONE, *test_softmax.MANY):
    f, z, labels, proxies = test_softmax.case(oracle)
    f = lambda z, p, f=f, labels=labels: f(z, labels, p)
    cases[oracle.__name__] = f, (z, proxies)
  anchor = lambda z, p: losses.proxy_anchor(z, LABELS, p)
  spread = lambda z, p: losses.soft_triple(z, LABELS, p, center_weight=0.2)
  hyp = lambda z, c: losses.hyp(z, np.arange(24) // 2, c=c)
  return cases | {
    'proxy_anchor': (anchor, (POINTS, PROXIES[:6])),
    'soft_triple center_weight': (
      spread,
      (POINTS, PROXIES[:30].reshape(10, 3, 6)),
    ),
    'hyp': (functools.partial(hyp, c=C), (POINTS,)),
    'hyp cosine': (functools.partial(hyp, c=None), (POINTS,)),
  }


# Name -> a function of floating-point arrays, and these in float32.
CASES = {f'poincare.{name}': case for name, case in of_ball().items()}
CASES |= {
  f'lorentz.{name}': (functools.partial(f, c=C), (POINTS[:4], POINTS[4:8]))
  for name, f in test_lorentz.POINTS.items()
}
CASES['lorentz.inner'] = lorentz.inner, (POINTS, POINTS[::-1])
CASES |= {f'losses.{name}': case for name, case in of_losses().items()}
CASES |= {
  f'layers.{name}': functools.partial(of_layer, layer)
  for name, layer in {
    'BallHead': layers.BallHead(4, c=C, radial_scale=0.5),
    'BallHead sphere': layers.BallHead(4, c=0),
    'HypDistance': layers.HypDistance(3, c=C),
    'HypLinear': layers.HypLinear(3, c=C),
    'HypMLR': layers.HypMLR(3, c=C),
    'HypMLR hnn': layers.HypMLR(3, c=C, form='hnn'),
  }.items()
}
# Noise and memories are float32 whatever a loss computes in.
FLOAT32_INSIDE = (
  {
    f'losses.{name} memory': (with_memory(name), (POINTS, OTHERS))
    for name in ('sup_con', 'smooth_ap')
  }
  | {
    'losses.hier': (hier, (POINTS, PROXIES)),
    'losses.regularized': (regularized, (POINTS, PROXIES)),
  }
  | {
    f'losses.lca {estimator}': (
      functools.partial(lca, estimator=estimator),
      (rng.uniform(0.5, 3, (24, 17)).astype(np.float32),),
    )
    for estimator in ('gumbel', 'gumbel_rao', 'softmax', 'argmax')
  }
)
ALL = CASES | FLOAT32_INSIDE
# Without arrays of floats.
DRAWS = {
  'poincare.random_uniform': functools.partial(drawn, jnp.float32),
  'losses.init_class_proxies': lambda: losses.init_class_proxies(
    jax.random.key(KEY), 4, 3
  ),
  'losses.init_hier_proxies': lambda: losses.init_hier_proxies(
    jax.random.key(KEY), 4, 3
  ),
  'losses.init_memory': lambda: losses.init_memory(4, 3),
  'losses.enqueue': lambda: losses.enqueue(
    losses.init_memory(30, 6), POINTS, LABELS
  ),
  'triplets': lambda: sampled(POINTS),
  'augment.views': lambda: device_views.views(
    np.arange(864, dtype=np.uint8).reshape(2, 12, 12, 3),
    np.int32([[12, 7], [5, 12]]),
    np.array([True, False]),
    size=8,
  ),
  'layers.Curvature': lambda: layers.Curvature(0.3).init_with_output(
    jax.random.key(KEY)
  ),
}


@functools.cache
def made(name):
  case = ALL[name]
  return case() if callable(case) else case


def test_every_public_function_is_here():
  names = [name.split()[0].split('[')[0] for name in (*ALL, *DRAWS)]
  for module in (poincare, lorentz, losses, layers):
    short = module.__name__.removeprefix('hier_jax.')
    for name in module.__all__:
      if name not in ('CLIP_RADIUS', 'Memory', 'wrapped_normal'):
        assert f'{short}.{name}' in names


def value_and_gradients(f):
  """Of arrays, to the value, and the gradients of what it sums to."""

  def run(*args):
    out, pull = jax.vjp(f, *args)
    return out, pull(jax.tree.map(jnp.ones_like, out))

  return run


def arrays_of(jaxpr):
  """Abstract values of a jaxpr and of those in it."""
  for eqn in jaxpr.eqns:
    yield from (v.aval for v in (*eqn.invars, *eqn.outvars))
    for inner in jax.tree.leaves(
      eqn.params, is_leaf=lambda p: isinstance(p, core.ClosedJaxpr | core.Jaxpr)
    ):
      if isinstance(inner, core.ClosedJaxpr):
        inner = inner.jaxpr
      if isinstance(inner, core.Jaxpr):
        yield from arrays_of(inner)


def traced(run, *args):
  """What a program returns, and the dtypes of the arrays that it makes.

  Numbers of Python are none.
  """
  jaxpr, out = jax.make_jaxpr(run, return_shape=True)(*args)
  return out, {
    a.dtype.name
    for a in arrays_of(jaxpr.jaxpr)
    if isinstance(getattr(a, 'dtype', None), np.dtype)
    if not (a.weak_type or a.shape == ())
  }


def dtypes(tree):
  return [leaf.dtype for leaf in jax.tree.leaves(tree)]


@pytest.mark.parametrize('name', ALL)
def test_float32_stays_float32(name):
  f, args = made(name)
  with jax.enable_x64(True):
    (out, gradients), found = traced(value_and_gradients(f), *args)
  assert {d.name for d in dtypes(out)} <= {'float32', 'int32', 'bool'}
  assert dtypes(gradients) == dtypes(args)
  assert 'float32' in found
  assert 'float64' not in found


@pytest.mark.parametrize('name', ALL)
def test_float64_stays_float64(name):
  f, args = made(name)
  with jax.enable_x64(True):
    args = [np.asarray(a, np.float64) for a in args]
    results, found = traced(value_and_gradients(f), *args)
  assert set(dtypes(results)) == {jnp.dtype(jnp.float64)}
  assert name in FLOAT32_INSIDE or 'float32' not in found


@pytest.mark.parametrize(
  'name', [name for name in FLOAT32_INSIDE if name != 'losses.regularized']
)
def test_losses_are_the_same(name):
  f, args = made(name)
  want = jax.jit(value_and_gradients(f))(*args)
  with jax.enable_x64(True):
    got = jax.jit(value_and_gradients(f))(*args)
  want, got = jax.device_get((want, got))
  # Of the same numbers in another order, in sums of some dozen terms.
  for a, b in zip(*map(jax.tree.leaves, (got, want)), strict=True):
    scale = max(float(np.max(np.abs(b))), 1e-6)
    assert float(np.max(np.abs(a - b))) <= 64 * 6e-8 * scale


@pytest.mark.parametrize('name', DRAWS)
def test_what_is_drawn_is_the_same(name):
  want = jax.jit(lambda: DRAWS[name]())()
  with jax.enable_x64(True):
    got = jax.jit(lambda: DRAWS[name]())()
  assert dtypes(got) == dtypes(want)
  for a, b in zip(*map(jax.tree.leaves, (got, want)), strict=True):
    if a.dtype == jnp.float32:
      np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)
    else:
      np.testing.assert_array_equal(a, b)


def oracles():
  """Losses and their values in float64."""
  for module in (pair_losses, ranking_losses):
    for name, settings in module.CASES:
      labels = LABELS
      if name == 'hap':
        labels = np.stack([LABELS // 2, LABELS], 1)
      yield (
        f'losses.{name} {settings}',
        functools.partial(module.oracle, name, POINTS, labels, **settings),
      )
  for oracle in (*test_softmax.ONE, *test_softmax.MANY):
    _, *args = test_softmax.case(oracle)
    yield f'losses.{oracle.__name__}', functools.partial(oracle, *args)
  yield (
    'losses.proxy_anchor',
    functools.partial(test_proxy.oracle, POINTS, LABELS, PROXIES[:6]),
  )


ORACLES = dict(oracles())


@pytest.mark.parametrize(('name', 'oracle'), ORACLES.items(), ids=list(ORACLES))
def test_losses_keep_the_digits_of_float64(name, oracle):
  f, args = made(name)
  with jax.enable_x64(True):
    got = jax.jit(f)(*(np.asarray(a, np.float64) for a in args))
  np.testing.assert_allclose(got, oracle(), rtol=1e-10)


def test_uniform_points_have_the_digits_of_float64():
  with jax.enable_x64(True):
    x = drawn(jnp.float64)
    assert x.dtype == jnp.float64
    assert not np.any(np.asarray(x) == np.float32(x))
    assert np.all(poincare.dist0(x, c=C) <= 1.5 * (1 + 1e-12))


@pytest.mark.parametrize('dtype', [np.float32, np.float64])
@pytest.mark.parametrize('many', [False, True])
@pytest.mark.filterwarnings('error')
def test_retrieval_is_the_same(dtype, many):
  n = 524 if many else 60
  x = np.random.default_rng(2).standard_normal((n, 5)).astype(dtype)
  labels = np.arange(n) % 2
  for product in ('float32', 'bfloat16'):
    options = {'block': 256, 'tile': 64, 'product': product}
    want = evaluation.per_query(x, labels, **options)
    with jax.enable_x64(True):
      got = evaluation.per_query(x, labels, **options)
    for a, b in zip(got, want, strict=True):
      np.testing.assert_array_equal(a, b)


def test_the_nearest_proxy_is_picked_most_often():
  """Rates that are negative never pick it."""
  dist = np.float32([[0.3, 0.3, 0.1]])
  number = 50_000
  triplets = triplets_lib.Triplets(
    *np.zeros((3, number), np.int32), weight=np.ones(number, np.float32)
  )
  chance = np.exp(-dist[0].astype(float) / 0.1)
  chance /= chance.sum()
  # Two independent picks of one distribution.
  collide = np.sum(chance**2)
  for double in (False, True):
    with jax.enable_x64(double):
      _, stats = jax.jit(functools.partial(losses.lca, temperature=0.1))(
        jax.random.key(KEY), dist, triplets
      )
    error = np.sqrt(collide * (1 - collide) / number)
    assert abs(float(stats['collision_rate']) - collide) <= 4 * error


def test_picks_follow_their_weights():
  with jax.enable_x64(True):
    test_noise.test_winners_follow_their_weights(12)
    test_noise.test_extremes_are_finite()
