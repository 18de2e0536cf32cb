"""What each arm adds to its base loss."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.study import added, carried, mined, spaces, trees, variants
from experiments.study.carried import Step
from hier_jax import losses, numerics, poincare

# Whole losses and trainings are compiled.
pytestmark = pytest.mark.slow

LABELS = np.arange(24) // 2
X = np.random.default_rng(0).standard_normal((24, 6)).astype(np.float32)
SUBGROUP = np.arange(12) // 3
KEY = jax.random.key(0)
# A teacher's only parameter.
HEAD = jnp.float32(0.5)


def point(entry, **more):
  values = {
    k: v if entry.space[k].static else jnp.float32(v)
    for k, v in spaces.defaults(entry.space).items()
  }
  return values | more


def embeddings(c):
  x = jnp.asarray(X[:, :4])
  return numerics.unit(x) if c is None else poincare.to_ball(x, c=c)


def base(z):
  """A base loss of the embeddings."""
  return losses.sup_con(z, LABELS)


def step_of(entry, params, **more):
  """What the loss may look at in its first step."""
  context = entry.context(X, LABELS, SUBGROUP)
  state = None
  if entry.carried is not None:
    every = {'head': HEAD, 'added': params}
    state = entry.carried.init(every, 12, len(LABELS), 4)
    # Without means nothing is similar to anything.
    if entry.carried is carried.MEANS:
      state = carried.running_means(state, X[:, :4], LABELS)
  embed = lambda head: embeddings(entry.c) * head
  return Step(context, state, base=base, embed=embed)._replace(**more)


def program_of(entry, values, **more):
  """(weight, values) -> the added loss and its gradient by the embeddings.

  That by its parameters is finite.
  """
  params = entry.init(jax.random.key(1), 4, values)
  step = step_of(entry, params, **more)
  moving = {k: v for k, v in values.items() if not entry.space[k].static}

  def loss(z, params, moving):
    return entry.loss(KEY, z, LABELS, params, values | moving, entry.c, step)

  program = jax.jit(jax.value_and_grad(loss, argnums=(0, 1)))
  z = embeddings(entry.c)

  def run(weight, **others):
    new = {k: jnp.float32(v) for k, v in ({'weight': weight} | others).items()}
    found, (by_z, by_params) = program(z, params, moving | new)
    assert all(np.isfinite(v).all() for v in by_params.values())
    return found, by_z

  return run


@functools.cache
def default_program(name):
  """That of an entry's default values, which tests share."""
  entry = added.ADDED[name]
  return program_of(entry, point(entry))


@pytest.mark.parametrize('name', [n for n in added.ADDED if n != 'alone'])
def test_every_entry_pulls_and_is_weighed(name):
  program = default_program(name)
  loss, grad = program(1.0)
  assert loss > 0 and np.isfinite(grad).all()
  # A stop-gradient leaves the encoder alone: that is this entry.
  assert bool(np.any(grad)) == (name != 'star_proxies_apart')
  np.testing.assert_allclose(program(2.0)[0], 2 * loss, rtol=1e-6)


def star(values, params, key=KEY, k=6, **switches):
  """HIER* of the embeddings, of the weight 1."""

  def loss(z, switches):
    return variants.hier_star(
      key,
      z,
      LABELS,
      params['hier_proxies'],
      temperature=values['tau'],
      k=k,
      triplets_per_anchor=4,
      proxy_term=values['proxy_term'],
      **switches,
    )[0]

  return jax.jit(loss)(embeddings(0.1), switches)


def test_teacher_s_embeddings_decide_the_triplets():
  entry = added.ADDED['star_teacher']
  values = point(entry)
  params = entry.init(jax.random.key(1), 4, values)
  other = poincare.to_ball(jnp.asarray(X[::-1, :4]), c=0.1)
  embed = lambda head: other * head
  loss, _ = program_of(entry, values, embed=embed)(1.0)
  theirs, own = (
    star(values, params, similarity=mined.similarity_of(points, 0.1))
    for points in (other * HEAD, embeddings(0.1))
  )
  np.testing.assert_allclose(loss, theirs, rtol=1e-5)
  assert abs(float(loss) - float(own)) > 1e-3


@pytest.mark.parametrize('name', ['star_memory', 'hier_memory'])
def test_memory_s_rows_are_nodes(name):
  entry = added.ADDED[name]
  values = point(entry)
  params = entry.init(jax.random.key(1), 4, values)
  empty = step_of(entry, params).state
  assert len(empty.labels) == 2 * len(LABELS)
  past = poincare.to_ball(jnp.asarray(X[::-1, 2:]), c=0.1)
  memory = losses.enqueue(empty, past, jnp.asarray(LABELS[::-1].copy()))
  loss, _ = program_of(entry, values, state=memory)(1.0)
  np.testing.assert_allclose(
    loss, star(values, params, memory=memory), rtol=1e-5
  )


def test_memory_s_rows_are_nodes_of_the_triplet_too():
  entry = added.ADDED['triplet_memory']
  values = point(entry)
  past = poincare.to_ball(jnp.asarray(X[::-1, 2:]), c=0.1)
  memory = losses.enqueue(
    step_of(entry, {}).state, past, jnp.asarray(LABELS[::-1].copy())
  )
  loss, _ = program_of(entry, values, state=memory)(1.0)
  want, without = (
    values['weight']
    * variants.mined_triplet(
      KEY,
      embeddings(0.1),
      jnp.asarray(LABELS),
      c=0.1,
      margin=values['margin'],
      k=values['k'],
      k_max=added._K_MAX,
      triplets_per_anchor=added.TRIPLETS,
      **nodes,
    )[0]
    for nodes in ({'memory': memory}, {})
  )
  np.testing.assert_allclose(loss, want, rtol=1e-5)
  assert abs(float(loss) - float(without)) > 1e-3


def test_ratio_makes_both_losses_pull_alike():
  pull = jax.grad(base)(embeddings(0.1))
  for weight in (1.0, 3.0):
    _, grad = default_program('star_ratio')(weight)
    np.testing.assert_allclose(
      np.linalg.norm(grad), weight * np.linalg.norm(pull), rtol=1e-4
    )


def test_tree_s_leaves_are_class_proxies_where_there_are_some():
  entry = added.ADDED['dasgupta']
  values = point(entry)
  means = jnp.asarray(np.random.default_rng(1).standard_normal((12, 4)))
  leaves = jax.random.normal(jax.random.key(2), (12, 4))
  found, grad = program_of(entry, values, state=means, class_proxies=leaves)(2)
  assert not np.any(grad)
  unit = np.asarray(means / jnp.linalg.norm(means, axis=1, keepdims=True))
  radius = np.linalg.norm(poincare.log0(embeddings(0.1), c=0.1), axis=1).mean()
  points = trees.leaves(leaves, radius, c=0.1)
  want = 2 * trees.dasgupta(KEY, points, unit @ unit.T, temperature=0.05)
  np.testing.assert_allclose(found, want, rtol=1e-4)


def test_tree_comes_on_top_of_hier_star():
  entry = added.ADDED['star_dasgupta']
  values = point(entry)
  program = default_program('star_dasgupta')
  none, once, twice = (program(1, tree_weight=w)[0] for w in (0.0, 1.0, 2.0))
  params = entry.init(jax.random.key(1), 4, values)
  want = star(values, params, jax.random.split(KEY)[1])
  np.testing.assert_allclose(none, want, rtol=1e-5)
  np.testing.assert_allclose(twice - once, once - none, rtol=1e-4)
  assert once > none


def test_hpl_is_proxy_anchor_of_the_classes_above():
  entry = added.ADDED['hpl']
  leaves = jax.random.normal(jax.random.key(2), (12, 4))
  program = program_of(entry, point(entry), class_proxies=leaves)
  found = program(2, level_alpha=8.0)[0]
  levels = entry.context(X, LABELS, SUBGROUP)['levels']
  # Of 12 classes both levels have 2 nodes, and are one.
  assert levels.shape[1] == 2
  unit = np.asarray(numerics.unit(leaves))
  means = np.stack([unit[levels[:, 0] == node].mean(0) for node in range(2)])
  want = 2 * losses.proxy_anchor(
    embeddings(0.1), jnp.asarray(levels[LABELS, 0]), jnp.asarray(means), alpha=8
  )
  np.testing.assert_allclose(found, want, rtol=1e-5)


def test_second_sup_con_is_that_of_the_classes():
  found = default_program('second_sup_con')(2.0)[0]
  want = 2 * losses.sup_con(embeddings(0.1), LABELS, temperature=0.1)
  np.testing.assert_allclose(found, want, rtol=1e-5)


def test_second_happier_is_that_of_the_classes():
  entry = added.ADDED['second_happier']
  found = program_of(entry, point(entry, relevance=2.0))(2.0)[0]
  want = 2 * losses.hap(
    embeddings(0.1), jnp.asarray(LABELS)[:, None], alpha=2.0
  )
  np.testing.assert_allclose(found, want, rtol=1e-5)


def test_k_follows_the_batch():
  entry = added.ADDED['star_batch_k']
  values = point(entry, k=jnp.float32(20))
  params = entry.init(jax.random.key(1), 4, values)
  # Two rows of a class, and as many of its one relative.
  want = star(values, params, k=4)
  found = default_program('star_batch_k')(1.0, k=20)[0]
  np.testing.assert_allclose(found, want, rtol=1e-5)


def test_official_is_the_library_s():
  entry = added.ADDED['official']
  values = point(entry, num_proxies=32)
  loss, _ = program_of(entry, values)(0.5)
  proxies = losses.init_hier_proxies(jax.random.key(1), 32, 4)
  hier = functools.partial(losses.hier, KEY, triplets_per_anchor=4)
  wanted, _ = jax.jit(hier)(embeddings(0.1), LABELS, proxies)
  np.testing.assert_allclose(loss, 0.5 * wanted, rtol=1e-5)


def test_arms_that_look_at_the_hierarchy_say_so():
  other = np.roll(SUBGROUP, 1)
  for name, entry in added.ADDED.items():
    a, b = (entry.context(X, LABELS, s) for s in (SUBGROUP, other))
    same = all(np.array_equal(a[k], b[k]) for k in a)
    assert same == ('true_tree' not in name)


def test_arms_that_look_at_frozen_features_say_so():
  other = np.random.default_rng(2).standard_normal(X.shape)
  for entry in added.ADDED.values():
    a, b = (entry.context(x, LABELS, SUBGROUP) for x in (X, other))
    same = all(np.array_equal(a[k], b[k]) for k in a)
    assert same == (not entry.frozen)
    if not entry.frozen:
      entry.context(None, LABELS, SUBGROUP)


def test_levels_are_coarse_to_fine():
  levels = added.ADDED['happier'].context(X, LABELS, SUBGROUP)['levels']
  assert [len(np.unique(column)) for column in levels.T][-1] == 12
  assert levels.shape == (12, 2)


@pytest.mark.parametrize(
  'name', [name for name in added.ADDED if name.endswith(('_own', '_ema'))]
)
def test_what_is_learned_in_training_becomes_the_context(name):
  entry = added.ADDED[name]
  means = np.random.default_rng(0).normal(size=(40, 4))
  state = {'means': means} if name.endswith('_ema') else means
  told = entry.carried.context(state)
  first = entry.context(None, np.arange(40), None)
  assert {k: v.shape for k, v in told.items()} == {
    k: v.shape for k, v in first.items()
  }
  assert any(np.any(told[k] != first[k]) for k in first)
