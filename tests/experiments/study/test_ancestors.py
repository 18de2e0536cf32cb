"""Costs and picks of ancestors against float64 NumPy."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import special

from experiments.study import ancestors
from hier_jax import losses, mining, poincare
from tests.support import vectors

# Whole losses and trainings are compiled.
pytestmark = pytest.mark.slow

N, P, T = 9, 6, 14


@functools.cache
def case():
  """Costs `[N, P]`, triplets, a few of weight 0, and Gumbel noise."""
  rng = np.random.default_rng(0)
  cost = rng.uniform(0.1, 2, (N, P)).astype(np.float32)
  rows = np.stack([rng.permutation(N)[:3] for _ in range(T)], 1)
  weight = (np.arange(T) % 5 > 0).astype(np.float32)
  triplets = mining.Triplets(*map(jnp.asarray, (*rows, weight)))
  return cost, triplets, rng.gumbel(size=(2, T, P)).astype(np.float32)


def softmax(x):
  return special.softmax(x, -1)


def sinkhorn(logits, weight, steps=3):
  """The factor of each proxy, in plain numbers; the loop of the paper."""
  q = np.exp(logits)[weight > 0]
  start = q.copy()
  for _ in range(steps):
    q = q / q.sum(1, keepdims=True) / len(q)
    q = q / q.sum(0, keepdims=True) / q.shape[1]
  # Rows and columns were scaled: what columns have in common.
  scale = q / start
  return scale[0] / scale[0].max()


def oracle(cost, triplets, noise, options):
  """The loss of `picked_loss`, triplet by triplet."""
  temperature, margin, estimator, hinge, barred, balance = options
  cost = np.asarray(cost, np.float64)
  i, j, k, weight = map(np.asarray, triplets)
  near = np.maximum(cost[i], cost[j])
  far = np.maximum(near, cost[k])
  logits = [-near / temperature, -far / temperature]
  for n, own in enumerate(logits):
    if balance:
      logits[n] = own + balance * np.log(sinkhorn(own, weight))
  h = {'relu': lambda x: max(x, 0), 'softplus': lambda x: np.logaddexp(0, x)}
  total = 0
  for t in np.flatnonzero(weight):
    picks = []
    for n in range(2):
      own = logits[n][t] + (0 if noise is None else noise[n, t])
      if n == 1 and barred:
        with np.errstate(divide='ignore'):
          own = own + np.log(1 - picks[0])
      hard = np.eye(P)[own.argmax()]
      picks.append(softmax(own) if estimator == 'softmax' else hard)
    p, q = picks
    lead = [(cost[row[t]] * (p - q)).sum() for row in (i, j, k)]
    paid = sum(
      h[hinge](s * x + margin) for s, x in zip((1, 1, -1), lead, strict=True)
    )
    total += (1 - p @ q) * paid
  return total / weight.sum()


OPTIONS = {
  'softplus': dict(hinge='softplus'),
  'barred': dict(barred=True),
  'balance': dict(balance=1.0),
  'half_balance': dict(balance=0.5, estimator='argmax'),
  'noisy_soft': dict(estimator='softmax'),
  'ghhc': dict(estimator='softmax', barred=True, hinge='softplus'),
  'all': dict(barred=True, hinge='softplus', balance=1.0),
}


@functools.cache
def program(**options):
  def f(cost, noise, temperature, margin):
    return ancestors.picked_loss(
      noise,
      cost,
      case()[1],
      temperature=temperature,
      margin=margin,
      **options,
    )

  return f, jax.jit(jax.value_and_grad(f, has_aux=True))


@pytest.mark.parametrize('name', OPTIONS)
def test_picked_loss_matches_the_oracle(name):
  cost, triplets, noise = case()
  given = OPTIONS[name]
  full = dict(estimator='gumbel', hinge='relu', barred=False, balance=0) | given
  quiet = None if full['estimator'] == 'argmax' else noise
  want = oracle(cost, triplets, quiet, (0.3, 0.2, *full.values()))
  eager, jitted = program(**given)
  (loss, aux), grad = jitted(cost, noise, 0.3, 0.2)
  np.testing.assert_allclose(loss, want, rtol=1e-5)
  np.testing.assert_allclose(eager(cost, noise, 0.3, 0.2)[0], want, rtol=1e-5)
  chex.assert_tree_all_finite((aux, grad))
  assert np.any(np.asarray(grad))
  if full['barred'] and full['estimator'] != 'softmax':
    assert aux['collision_rate'] == 0


@pytest.mark.parametrize('estimator', ['gumbel', 'softmax', 'argmax'])
def test_without_switches_it_is_the_librarys_loss(estimator):
  cost, triplets, noise = case()
  given = estimator == 'gumbel'

  @jax.jit
  @functools.partial(jax.value_and_grad, has_aux=True)
  def want(cost):
    return losses.lca(
      jax.random.key(0),
      cost,
      triplets,
      gumbel=noise if given else None,
      temperature=0.3,
      margin=0.2,
      estimator=estimator,
    )

  quiet = noise if given else None
  (loss, aux), grad = program(estimator=estimator)[1](cost, quiet, 0.3, 0.2)
  (right, stats), slopes = want(cost)
  np.testing.assert_allclose(loss, right, rtol=1e-6)
  vectors.assert_near(grad, slopes, 1e-5)
  for key, value in stats.items():
    np.testing.assert_allclose(aux[key], value, rtol=1e-5, atol=1e-6)


def test_balanced_picks_use_all_proxies_alike():
  rng = np.random.default_rng(1)
  logits = rng.normal(size=(300, 5)) + np.array([3, 0, 0, 0, -3])
  weight = np.ones(300)
  bias = ancestors.balancing_bias(jnp.float32(logits), jnp.ones(300), steps=60)
  share = softmax(logits + np.asarray(bias)).mean(0)
  np.testing.assert_allclose(share, 1 / 5, rtol=1e-3)
  few = ancestors.balancing_bias(jnp.float32(logits), jnp.ones(300))
  want = np.log(sinkhorn(logits, weight))
  np.testing.assert_allclose(few, want, rtol=1e-4, atol=1e-4)
  none = ancestors.balancing_bias(jnp.float32(logits), jnp.zeros(300))
  assert not np.any(np.asarray(none))


def ball(n, seed, length=2.0):
  u = jax.random.normal(jax.random.key(seed), (n, 4)) * length / 2
  return poincare.to_ball(u, c=0.4, clip_radius=None)


def angle_outside(x, p, c, k):
  """From the definition: the angle at p, by Moebius addition."""
  x, p = (np.asarray(a, np.float64) * np.sqrt(c) for a in (x, p))
  m, xy, xx = -p, -p @ x, x @ x
  pp = p @ p
  towards = (1 + 2 * xy + xx) * m + (1 - pp) * x
  cosine = towards @ p / np.linalg.norm(towards) / np.sqrt(pp)
  psi = np.arcsin(min(1, k * (1 - pp) / np.sqrt(pp)))
  return max(0, np.arccos(np.clip(cosine, -1, 1)) - psi)


@pytest.mark.parametrize('k', [0.1, 1.0])
def test_cone_energy_is_the_angle_outside_the_cone(k):
  x, p = ball(6, 1), ball(5, 2)
  f = jax.jit(ancestors.cone_energy)
  got = f(x, p, 0.4, k)
  want = [[angle_outside(a, b, 0.4, k) for b in p] for a in x]
  np.testing.assert_allclose(got, want, rtol=1e-3, atol=1e-3)
  assert np.any(np.asarray(got) > 0.5)
  np.testing.assert_allclose(
    ancestors.cone_energy(x, p, 0.4, k), got, rtol=1e-4, atol=1e-4
  )


def test_cone_energy_is_zero_on_the_ray_and_finite_anywhere():
  p = jnp.array([[1.0, 0.0], [0.0, 0.0]])
  x = jnp.array([[1.3, 0.0], [1.0, 0.0], [0.0, 0.0], [-1.0, 0.0]])
  energy = ancestors.cone_energy(x, p, 0.4)
  assert energy[0, 0] == 0
  # Behind the parent the angle is pi.
  assert energy[3, 0] > 2.5
  total = lambda x, p: jnp.sum(ancestors.cone_energy(x, p, 0.4))
  grads = jax.grad(total, (0, 1))(x, p)
  chex.assert_tree_all_finite((energy, grads))


def test_order_factor_grows_where_a_parent_lies_outside():
  r_x, r_p = np.array([0.5, 2, 3.0]), np.array([1.0, 2.5])
  want = 1 + 0.7 * np.maximum(r_p[None] - r_x[:, None] + 0.25, 0)
  for f in (ancestors.order_factor, jax.jit(ancestors.order_factor)):
    got = f(jnp.float32(r_x), jnp.float32(r_p), 0.7, 0.25)
    np.testing.assert_allclose(got, want, rtol=1e-6)


def test_unknown_options_are_named():
  cost, triplets, noise = case()
  with pytest.raises(ValueError, match="hinge is 'square', expected one of"):
    ancestors.picked_loss(noise, cost, triplets, hinge='square')
  with pytest.raises(ValueError, match="estimator is 'rao', expected one of"):
    ancestors.picked_loss(noise, cost, triplets, estimator='rao')
