"""What each arm adds to its base loss."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.study import added, spaces
from hier_jax import losses, numerics, poincare

# Whole losses and trainings are compiled.
pytestmark = pytest.mark.slow

LABELS = np.arange(24) // 2
X = np.random.default_rng(0).standard_normal((24, 6)).astype(np.float32)
SUBGROUP = np.arange(12) // 3
KEY = jax.random.key(0)


def point(entry, **more):
  values = {
    k: v if entry.space[k].static else jnp.float32(v)
    for k, v in spaces.defaults(entry.space).items()
  }
  return values | more


def embeddings(c):
  x = jnp.asarray(X[:, :4])
  return numerics.unit(x) if c is None else poincare.to_ball(x, c=c)


def program_of(entry, values):
  """weight -> the added loss and its gradient by the embeddings."""
  context = entry.context(X, LABELS, SUBGROUP)
  params = entry.init(jax.random.key(1), 4, values)
  z = embeddings(entry.c)

  def loss(z, weight):
    new = values | {'weight': weight}
    return entry.loss(KEY, z, LABELS, params, new, entry.c, context)

  program = jax.jit(jax.value_and_grad(loss))
  return lambda weight: program(z, jnp.float32(weight))


@pytest.mark.parametrize('name', [n for n in added.ADDED if n != 'alone'])
def test_every_entry_pulls_and_is_weighed(name):
  entry = added.ADDED[name]
  program = program_of(entry, point(entry))
  loss, grad = program(1.0)
  assert loss > 0 and np.isfinite(grad).all()
  # A stop-gradient leaves the encoder alone: that is this entry.
  assert bool(np.any(grad)) == (name != 'star_proxies_apart')
  np.testing.assert_allclose(program(2.0)[0], 2 * loss, rtol=1e-6)


def test_official_is_the_library_s():
  entry = added.ADDED['official']
  values = point(entry, num_proxies=32)
  loss, _ = program_of(entry, values)(0.5)
  proxies = losses.init_hier_proxies(jax.random.key(1), 32, 4)
  wanted, _ = losses.hier(
    KEY, embeddings(0.1), LABELS, proxies, triplets_per_anchor=4
  )
  np.testing.assert_allclose(loss, 0.5 * wanted, rtol=1e-5)


def test_arms_that_look_at_the_hierarchy_say_so():
  other = np.roll(SUBGROUP, 1)
  for name, entry in added.ADDED.items():
    a, b = (entry.context(X, LABELS, s) for s in (SUBGROUP, other))
    same = all(np.array_equal(a[k], b[k]) for k in a)
    assert same == ('true_tree' not in name)


def test_levels_are_coarse_to_fine():
  levels = added.ADDED['happier'].context(X, LABELS, SUBGROUP)['levels']
  assert [len(np.unique(column)) for column in levels.T][-1] == 12
  assert levels.shape == (12, 2)
