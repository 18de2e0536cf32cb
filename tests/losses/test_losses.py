"""What all losses have in common."""

import functools
import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hier_jax import losses, mining
from hier_jax.training.step import objective
from tests.support import exact_geometry

ROWS, DIM, CLASSES = 12, 4, 6
# From 16,384 numbers or so on, XLA's maxima on a CPU leave NaN out.
MANY = 192
KEY = jax.random.key(0)
OPTIONS = [
  *((name, {}) for name in objective.LOSSES),
  ('multi_similarity', {'epsilon': 0.1}),
  ('triplet', {'mining': 'all'}),
  ('triplet', {'mining': 'hard'}),
  ('sup_con', {'c': 0.5}),
  ('triplet', {'c': 0.0}),
  ('smooth_ap', {'c': 0.5}),
]


def test_dir_shows_what_is_meant():
  public = [name for name in dir(losses) if not name.startswith('_')]
  assert public == sorted(losses.__all__)


def test_regularized_has_the_options_of_hier_and_their_defaults():
  of = lambda f: inspect.signature(f).parameters
  shared = {
    name: p.default
    for name, p in of(losses.hier).items()
    if p.kind is p.KEYWORD_ONLY
  }
  assert losses.regularized.__name__ == 'regularized'
  own = of(losses.regularized)
  assert {name: own[name].default for name in shared} == shared
  # Though HIER is left out.
  with pytest.raises(TypeError, match="unexpected keyword argument 'tau'"):
    losses.regularized(jnp.dot, KEY, 1, 1, None, hier_weight=0, tau=1.0)


def of_rows(name, settings, labels):
  """The loss of rows `[12, 4]`, its parameters bound."""
  f = functools.partial(getattr(losses, name), labels=labels, **settings)
  parameters = objective._parameters(name)
  centers = 3 if 'centers' in parameters else None
  if centers or 'proxies' in parameters:
    proxies = losses.init_class_proxies(KEY, CLASSES, DIM, centers=centers)
    return jax.jit(
      lambda z: f(z, **{'centers' if centers else 'proxies': proxies})
    )
  return jax.jit(lambda z: f(z))


def rows(count=ROWS):
  return exact_geometry.ball(np.random.default_rng(0), count, DIM, 0.5, 'mid')


def with_nan(row, count=ROWS):
  z = np.array(rows(count))
  z[row, 1] = np.nan
  return z


@pytest.mark.parametrize('count', [ROWS, MANY])
@pytest.mark.parametrize(('name', 'settings'), OPTIONS)
def test_a_row_that_is_nan_makes_the_loss_nan(name, settings, count):
  f = of_rows(name, settings, np.arange(count) // 2 % CLASSES)
  assert np.isfinite(f(rows(count)))
  assert np.isnan(f(with_nan(5, count)))


@pytest.mark.parametrize('mining', ['all', 'hard', 'semi_hard'])
def test_a_negative_that_is_nan_makes_the_triplet_loss_nan(mining):
  labels = np.r_[np.arange(10) // 2, 5, 6]
  f = of_rows('triplet', {'mining': mining}, labels)
  assert np.isnan(f(with_nan(11)))


@pytest.mark.parametrize('count', [ROWS, MANY])
def test_a_row_that_is_nan_makes_hap_nan(count):
  labels = np.stack([np.arange(count) // 4, np.arange(count) // 2], 1)
  assert np.isnan(losses.hap(with_nan(5, count), labels))


@pytest.mark.parametrize('count', [ROWS, MANY])
@pytest.mark.parametrize('estimator', ['gumbel', 'softmax'])
@pytest.mark.parametrize('c', [0.1, None])
def test_a_node_that_is_nan_makes_hier_nan(c, estimator, count):
  proxies = losses.init_hier_proxies(KEY, count - 3, DIM)
  f = jax.jit(
    lambda z, v: losses.hier(
      KEY,
      z,
      np.arange(count) // 2,
      v,
      c=c,
      k=3,
      triplets_per_anchor=1,
      estimator=estimator,
    )[0]
  )
  assert np.isfinite(f(rows(count), proxies))
  assert np.isnan(f(with_nan(11, count), proxies))
  assert np.isnan(f(rows(count), proxies.at[3, 0].set(jnp.nan)))


# What a loss needs besides settings, and for its curvature to be looked at.
NEEDED = {
  'key': KEY,
  'metric': lambda z, labels: z.sum(),
  'z': 0.1 * np.eye(4, 3, dtype=np.float32),
  'labels': np.arange(4) // 2,
  'proxies': np.eye(2, 3),
  'centers': np.ones((2, 2, 3)),
  'hier_proxies': np.eye(4, 3),
  'memory': losses.init_memory(8, 3),
  'num_classes': 2,
  'num_proxies': 4,
  'dim': 3,
  'dist': np.zeros((3, 2)),
  'triplets': mining.Triplets(*np.arange(3)[:, None], np.ones(1)),
}
MORE = {
  'hap': {'labels': np.arange(4)[:, None] // 2},
  'hier': {'k': 2},
  'regularized': {'k': 2},
  'roadmap': {'margins': (0.9, 0.6)},
}
# Those that must be above 0, but for an exponent.
POSITIVE = {'alpha', 'beta', 'clip_radius', 'rank_temperature'}
POSITIVE |= {'scale', 'temperature'}


def settings():
  """(loss, setting) of each setting that is a number."""
  for name in losses.__all__:
    if inspect.isfunction(f := getattr(losses, name)):
      for p in inspect.signature(f).parameters.values():
        if 'float' in p.annotation or "Real[ArrayLike, '']" in p.annotation:
          yield name, p.name


def needed_by(f, name):
  given = {
    p.name: NEEDED[p.name]
    for p in inspect.signature(f).parameters.values()
    if p.name in NEEDED and p.default is p.empty
  }
  return given | MORE.get(name, {})


@pytest.mark.parametrize(('name', 'setting'), [*settings()])
def test_settings_that_are_no_numbers_are_named(name, setting):
  f = getattr(losses, name)
  needed = needed_by(f, name)
  wrong = [float('nan'), np.float32('inf')]
  if setting in POSITIVE and (name, setting) != ('hap', 'alpha'):
    wrong += [0, -0.5]
  for value in wrong:
    with pytest.raises(ValueError, match=rf'\b{setting} .*{value}\b.*'):
      f(**needed | {setting: value})


def taking(*arguments):
  """(loss, argument) of each loss that takes one of these."""
  for name in losses.__all__:
    if inspect.isfunction(f := getattr(losses, name)):
      for argument in set(arguments) & set(inspect.signature(f).parameters):
        yield name, argument


ARRAYS = {*taking('z', 'labels', 'proxies', 'centers', 'hier_proxies')}
# The metric of `regularized` sees its rows first; these centers are a number.
ARRAYS -= {('regularized', 'z'), ('regularized', 'labels')}
ARRAYS -= {('init_class_proxies', 'centers')}


@pytest.mark.parametrize(('name', 'argument'), sorted(ARRAYS))
def test_what_is_no_array_is_named(name, argument):
  f = getattr(losses, name)
  needed = needed_by(f, name)
  shown = 'proxies' if argument in ('centers', 'hier_proxies') else argument
  for wrong in (needed[argument].tolist(), None, np.array(['goose', 'crab'])):
    with pytest.raises(TypeError, match=f'^{shown} is .*, expected an array'):
      f(**needed | {argument: wrong})


@pytest.mark.parametrize('name', sorted({n for n, _ in taking('key')}))
def test_what_is_no_key_is_named(name):
  f = getattr(losses, name)
  needed = needed_by(f, name)
  for wrong in (0, jnp.array(0), jax.random.split(KEY), 'seed'):
    with pytest.raises(TypeError, match=r'^key is .*, expected one PRNG key'):
      f(**needed | {'key': wrong})
  for right in (jax.random.PRNGKey(0), jax.random.key(0, impl='rbg')):
    f(**needed | {'key': right})


@pytest.mark.parametrize(
  ('metric', 'error', 'words'),
  [
    ('sup_con', TypeError, "metric is 'sup_con', expected a function"),
    (None, TypeError, 'metric is None, expected a function'),
    (lambda z, y: z.sum(1), ValueError, r'returns \(4,\), expected a scalar'),
    (lambda z, y: (z.sum(), {}), ValueError, r'returns \(\(\), {}\), expected'),
    (lambda z, y: None, ValueError, 'returns None, expected a scalar'),
  ],
)
def test_metrics_of_no_scalar_are_named(metric, error, words):
  needed = needed_by(losses.regularized, 'regularized')
  with pytest.raises(error, match=words):
    losses.regularized(**needed | {'metric': metric})


def test_the_settings_of_losses_are_found():
  found = list(settings())
  assert len(found) > 50
  assert {('hier', 'clip_radius'), ('hier', 'c'), ('lca', 'margin')} <= {*found}


@pytest.mark.parametrize('dtype', [np.int64, np.uint64])
def test_labels_that_jax_would_cut_are_named(dtype):
  """2^32 is class 0 in int32."""
  z, labels = np.eye(3, dtype=np.float32), np.array([0, 2**32, 7], dtype)
  with pytest.raises(ValueError, match='labels hold 4294967296'):
    losses.sup_con(z, labels)
  small = np.unique(labels, return_inverse=True)[1].astype(dtype)
  assert losses.sup_con(z, small) == losses.sup_con(z, small.astype(np.int32))


def test_the_default_curvature_is_the_same_for_all():
  defaults = {
    name: inspect.signature(getattr(losses, name)).parameters['c'].default
    for name in ('hier', 'hyp', 'regularized')
  }
  assert defaults == dict.fromkeys(defaults, 0.1)
