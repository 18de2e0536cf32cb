"""The LCA loss against official vectors and a float64 oracle."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from hier_jax import losses
from hier_jax.losses import _lca, _lca_picks, _lca_sums
from hier_jax.mining import Triplets
from tests.support import vectors

pytestmark = pytest.mark.optimized

OFFICIAL = ['tiny', 'small', 'small_c1']


def official_triplets(arrays, term):
  i, j, k = arrays[f'{term}/ijk'].astype(np.int32)
  return Triplets(
    anchor=i, positive=j, negative=k, weight=np.ones(len(i), np.float32)
  )


def official_noise(arrays, term):
  return jnp.stack([arrays[f'{term}/noise0'], arrays[f'{term}/noise1']])


def picks(logits, estimator):
  """The pick and the softmax it is differentiated as, in float64."""
  soft = np.exp(logits - logits.max())
  soft /= soft.sum()
  hard = np.eye(len(soft))[np.argmax(logits)]
  return (soft if estimator == 'softmax' else hard), soft


def oracle(dist, triplets, noise, temperature, margin, estimator='gumbel'):
  """Loss, gradient, triplets apart: one at a time, from the equations."""
  dist = dist.astype(np.float64)
  grad, total, valid = np.zeros_like(dist), 0.0, 0.0
  rows = zip(triplets.anchor, triplets.positive, triplets.negative, strict=True)
  for n, (i, j, k) in enumerate(rows):
    m = np.maximum(dist[i], dist[j])
    far = np.maximum(m, dist[k])
    y_a, soft_a = picks(noise[0][n] - m / temperature, estimator)
    y_b, soft_b = picks(noise[1][n] - far / temperature, estimator)
    apart = 1 - y_a @ y_b
    valid += apart
    dy, paid = np.zeros(dist.shape[1]), 0.0
    for row, sign in ((i, 1), (j, 1), (k, -1)):
      h = sign * dist[row] @ (y_a - y_b) + margin
      if h > 0:
        paid += h
        grad[row] += apart * sign * (y_a - y_b)
        dy += apart * sign * dist[row]
    total += apart * paid
    # By the picks; where they are soft, the weight 1 - p.q has a slope too.
    paid = paid if estimator == 'softmax' else 0.0
    by_a, by_b = dy - paid * y_b, -dy - paid * y_a
    g_m = -soft_a * (by_a - soft_a @ by_a) / temperature
    g_far = -soft_b * (by_b - soft_b @ by_b) / temperature
    # Equal distances share the slope of their maximum.
    share = lambda a, b: ((a > b) + 0.5 * (a == b)).astype(float)
    of_k = share(dist[k], m)
    grad[k] += of_k * g_far
    g_m = g_m + (1 - of_k) * g_far
    of_j = share(dist[j], dist[i])
    grad[j] += of_j * g_m
    grad[i] += (1 - of_j) * g_m
  return total, grad, valid


def random_case(seed=0, n=30, proxies=17, count=950):
  """Distances, triplets of rows that may be equal, and noise."""
  rng = np.random.default_rng(seed)
  dist = rng.uniform(0.5, 3, (n, proxies)).astype(np.float32)
  i, j, k = rng.integers(0, n, (3, count)).astype(np.int32)
  weight = np.ones(count, np.float32)
  noise = rng.gumbel(size=(2, count, proxies)).astype(np.float32)
  return dist, Triplets(anchor=i, positive=j, negative=k, weight=weight), noise


@pytest.fixture(autouse=True)
def _small_chunks(monkeypatch):
  """More than one chunk, the last one partly filled."""
  monkeypatch.setattr(_lca_sums, 'CHUNK', {'cpu': 17 * 400})


@pytest.mark.parametrize(
  ('normalize_by', 'jit'),
  [('all', False), ('valid', True)],
  ids=['all-eager', 'valid-jit'],
)
def test_lca_matches_float64_oracle(normalize_by, jit):
  dist, triplets, noise = random_case()
  f = lambda dist: losses.lca(
    None,
    dist,
    triplets,
    gumbel=noise,
    temperature=0.3,
    margin=0.2,
    normalize_by=normalize_by,
  )
  f = jax.value_and_grad(f, has_aux=True)
  (loss, stats), grad = (jax.jit(f) if jit else f)(dist)
  total, want, valid = oracle(dist, triplets, noise, 0.3, 0.2)
  count = len(triplets.weight)
  divisor = count if normalize_by == 'all' else valid
  np.testing.assert_allclose(loss, total / divisor, rtol=1e-5)
  vectors.assert_near(grad, want / divisor, 1e-5)
  np.testing.assert_allclose(stats['collision_rate'], 1 - valid / count, 1e-5)


@pytest.mark.parametrize('estimator', ['softmax', 'argmax'])
@pytest.mark.parametrize('temperature', [1e-3, 0.3, 100.0])
def test_estimators_without_noise_match_the_oracle(estimator, temperature):
  dist, triplets, noise = random_case()
  f = lambda dist, temperature: losses.lca(
    jax.random.key(0),
    dist,
    triplets,
    temperature=temperature,
    margin=0.2,
    estimator=estimator,
  )
  (loss, stats), grad = jax.jit(jax.value_and_grad(f, has_aux=True))(
    dist, temperature
  )
  count = len(triplets.weight)
  # The temperature as the loss sees it.
  temperature = float(np.float32(temperature))
  total, want, valid = oracle(
    dist, triplets, 0 * noise, temperature, 0.2, estimator
  )
  np.testing.assert_allclose(loss, total / count, rtol=1e-5)
  # Slopes are quotients by temperature of differences of the distances.
  vectors.assert_near(grad, want / count, 1e-5)
  np.testing.assert_allclose(
    stats['collision_rate'], 1 - valid / count, rtol=1e-5, atol=1e-6
  )


def soft_loss(dist, triplets, temperature, margin, normalize_by):
  """The loss of soft picks, plainly, for JAX or finite differences."""
  i, j, k = (
    dist[a] for a in (triplets.anchor, triplets.positive, triplets.negative)
  )
  near = jnp.maximum(i, j)
  p, q = (
    jax.nn.softmax(-m / temperature) for m in (near, jnp.maximum(near, k))
  )
  apart = 1 - jnp.sum(p * q, 1)
  d = lambda rows, sign: jnp.sum(sign * rows * (p - q), 1) + margin
  hinges = sum(jax.nn.relu(d(*a)) for a in ((i, 1), (j, 1), (k, -1)))
  divisor = {'all': len(apart), 'valid': jnp.sum(apart)}[normalize_by]
  return jnp.sum(apart * hinges) / divisor


@pytest.mark.parametrize('normalize_by', ['all', 'valid'])
def test_soft_picks_have_the_gradient_of_their_loss(normalize_by):
  """Against JAX's own derivative and central differences in float64."""
  dist, triplets, _ = random_case(n=5, proxies=3, count=40)
  options = dict(temperature=0.3, margin=0.2, normalize_by=normalize_by)
  f = lambda dist: losses.lca(
    jax.random.key(0), dist, triplets, estimator='softmax', **options
  )[0]
  loss, grad = jax.jit(jax.value_and_grad(f))(dist)
  with jax.enable_x64(True):
    wide = jnp.asarray(dist, jnp.float64)
    plain = jax.jit(lambda dist: soft_loss(dist, triplets, **options))
    value, want = jax.jit(jax.value_and_grad(plain))(wide)
    step = 1e-6 * np.eye(15).reshape(15, 5, 3)
    slopes = [float(plain(wide + h) - plain(wide - h)) / 2e-6 for h in step]
  np.testing.assert_allclose(loss, value, rtol=1e-5)
  vectors.assert_near(want, np.reshape(slopes, (5, 3)), 1e-6)
  vectors.assert_near(grad, want, 1e-5)


def test_noise_of_both_picks_can_be_shared():
  dist, triplets, noise = random_case()

  @functools.partial(jax.jit, static_argnums=0)
  def f(shared, noise=None):
    # So warm that the noise alone decides.
    return losses.lca(
      jax.random.key(0),
      dist,
      triplets,
      gumbel=noise,
      temperature=1e4,
      shared_noise=shared,
    )

  chex.assert_trees_all_close(
    f(True, noise), f(False, noise[[0, 0]]), rtol=1e-6
  )
  separate, shared = (f(s)[1]['collision_rate'] for s in (False, True))
  assert separate < 0.1 < 0.99 < shared


def test_weight_zero_is_as_if_absent():
  dist, triplets, noise = random_case(count=500)
  keep = np.random.default_rng(1).random(500) < 0.4
  part = jax.tree.map(lambda a: a[keep], triplets)
  masked = triplets._replace(weight=keep.astype(np.float32))
  f = jax.jit(
    jax.value_and_grad(
      lambda d, t, noise: losses.lca(None, d, t, gumbel=noise)[0]
    )
  )
  got, want = f(dist, masked, noise), f(dist, part, noise[:, keep])
  jax.tree.map(
    functools.partial(vectors.assert_near, tolerance=1e-5), got, want
  )


def test_noise_does_not_depend_on_chunks(monkeypatch):
  dist, triplets, _ = random_case()
  f = lambda dist: losses.lca(jax.random.key(0), dist, triplets)[0]
  results = []
  for elements in (17, 17 * 64, 2**20):
    monkeypatch.setattr(_lca_sums, 'CHUNK', {'cpu': elements})
    results.append(jax.jit(jax.value_and_grad(f))(dist))
    jax.clear_caches()
  near = functools.partial(vectors.assert_near, tolerance=2e-6)
  jax.tree.map(near, results[1], results[0])
  jax.tree.map(near, results[2], results[0])


@pytest.mark.parametrize('case', OFFICIAL)
def test_losses_and_gradients_match_official_vectors(case):
  arrays = vectors.under(f'hier/{case}')
  _, _, margin, temperature, _, _, _ = arrays['meta']
  batch = len(arrays['z'])
  dist = arrays['f64/dist'][:, batch:]
  gradient = np.zeros(dist.shape)
  for term, nodes in (
    ('data', slice(0, batch)),
    ('proxy', slice(batch, None)),
  ):
    f = lambda dist, term=term: losses.lca(
      None,
      dist,
      official_triplets(arrays, term),
      gumbel=official_noise(arrays, term),
      temperature=temperature,
      margin=margin,
    )[0]
    loss, gradient[nodes] = jax.jit(jax.value_and_grad(f))(dist[nodes])
    np.testing.assert_allclose(loss, arrays[f'f64/{term}/loss'], rtol=2e-6)
  vectors.assert_near(gradient, arrays['f64/grad/dist'][:, batch:], 5e-6)


def repeated(count, seed=3, proxies=6):
  """One triplet, many times; both of its picks are of the pair (i, j)."""
  rng = np.random.default_rng(seed)
  dist = rng.uniform(0, 0.5, (3, proxies)).astype(np.float32)
  row = lambda r: np.full(count, r, np.int32)
  return dist, Triplets(
    row(0), row(1), row(1), weight=np.ones(count, np.float32)
  )


@pytest.mark.slow
def test_picks_follow_the_softmax_of_the_distances():
  """LCA frequencies of a million draws against softmax(-max(d_i, d_j) / t)."""
  count, temperature = 500_000, 0.2
  dist, triplets = repeated(count, proxies=12)
  settings = _lca_sums.Settings('gumbel', False, None, rows=(3,))
  (_, (apart,), _), (used,) = jax.jit(_lca_sums.lca_sums, static_argnums=5)(
    dist, [triplets], [jax.random.key(0)], temperature, 0.1, settings
  )
  p = np.exp(-np.maximum(dist[0], dist[1]).astype(float) / temperature)
  p /= p.sum()
  assert np.sum(used) == 2 * count
  _, chance = scipy.stats.chisquare(used, 2 * count * p)
  assert 1e-3 < chance < 1 - 1e-3
  # The picks are independent: they coincide as often as independent ones.
  same = np.sum(p**2)
  _, chance = scipy.stats.chisquare(
    [apart, count - apart], [count * (1 - same), count * same]
  )
  assert chance > 1e-3
  perplexity = np.exp(-np.sum(p * np.log(p)))
  _, stats = losses.lca(
    jax.random.key(0), dist, triplets, temperature=temperature
  )
  np.testing.assert_allclose(stats['lca_perplexity'], perplexity, rtol=1e-3)
  assert stats['lca_used'] == 12


@pytest.mark.parametrize('estimator', _lca_picks.ESTIMATORS)
@pytest.mark.parametrize('normalize_by', ['all', 'valid'])
@pytest.mark.slow
def test_groups_pay_what_each_pays_by_itself(
  estimator, normalize_by, monkeypatch
):
  # The first chunk ends within a group.
  monkeypatch.setattr(_lca_sums, 'CHUNK', {'cpu': 250})
  rng = np.random.default_rng(0)
  rows, counts, proxies = (9, 6), (40, 24), 7
  dist = rng.uniform(0, 0.5, (sum(rows), proxies)).astype(np.float32)
  groups = [
    Triplets(
      *rng.integers(0, n, (3, t)).astype(np.int32),
      weight=rng.integers(0, 2, t).astype(np.float32),
    )
    for n, t in zip(rows, counts, strict=True)
  ]
  keys = list(jax.random.split(jax.random.key(0)))
  options = dict(estimator=estimator, normalize_by=normalize_by)
  options |= dict(
    temperature=0.2, margin=0.1, shared_noise=False, axis_name=None
  )

  def together(dist):
    terms = _lca.lca_losses(keys, dist, groups, rows=rows, **options)
    return terms[0][0] + 2 * terms[1][0], [stats for _, stats in terms]

  def apart(dist):
    each = zip(keys, jnp.split(dist, [rows[0]]), groups, strict=True)
    terms = [losses.lca(*group, **options) for group in each]
    return terms[0][0] + 2 * terms[1][0], [stats for _, stats in terms]

  got, want = (
    jax.jit(jax.value_and_grad(f, has_aux=True))(dist)
    for f in (together, apart)
  )
  chex.assert_trees_all_close(got[0], want[0], rtol=1e-5)
  vectors.assert_near(got[1], want[1], 1e-5)


def test_rao_blackwellized_gradient_has_the_same_mean_and_less_variance():
  dist, triplets = repeated(400)
  triplets = triplets._replace(negative=np.full(400, 2, np.int32))

  def slopes(estimator):
    f = lambda dist, key: losses.lca(
      key, dist, triplets, temperature=0.3, margin=0.3, estimator=estimator
    )[0]
    keys = jax.random.split(jax.random.key(0), 200)
    return jax.jit(jax.vmap(jax.value_and_grad(f), (None, 0)))(dist, keys)

  loss, official = slopes('gumbel')
  same, averaged = slopes('gumbel_rao')
  # The same noise makes the same picks.
  chex.assert_trees_all_close(loss, same, rtol=1e-5)
  gap = np.asarray(official - averaged, np.float64)
  error = gap.std(0, ddof=1) / np.sqrt(len(gap))
  assert np.all(np.abs(gap.mean(0)) <= 4 * error)
  assert np.sum(np.var(averaged, 0)) < np.sum(np.var(official, 0))


def test_rao_noise_is_conditional_on_the_pick():
  """Against the noise of a million draws that led to that pick."""
  weight = np.float64([1.0, 0.5, 0.2, 0.05])
  v = np.float64([0.3, -1.0, 2.0, 0.7])
  rng = np.random.default_rng(0)
  noisy = weight / rng.exponential(size=(1_000_000, 4))
  soft = noisy / noisy.sum(1, keepdims=True)
  slopes = soft * (v - soft @ v[:, None])
  rows = 40_000
  seeds = _lca_sums.noise_lib.triplet_seeds(
    [jax.random.key(0)], [0], [rows], 1 + _lca_picks.RAO_DRAWS
  )
  for picked in range(4):
    led = slopes[np.argmax(noisy, 1) == picked]
    want = led.mean(0)
    got = _lca_picks.rao_slope(
      jnp.broadcast_to(jnp.float32(weight), (rows, 4)),
      jnp.full(rows, picked),
      lambda draw: _lca_sums.noise_lib.exponential_rates(seeds[:, draw], 4),
      jnp.broadcast_to(jnp.float32(v), (rows, 4)),
    )
    error = np.hypot(
      led.std(0) / np.sqrt(len(led)), np.std(got, 0) / np.sqrt(rows)
    )
    assert np.max(np.abs(np.mean(got, 0) - want) / error) < 4.5
    averaged = led.std(0) / np.sqrt(_lca_picks.RAO_DRAWS)
    np.testing.assert_allclose(np.std(got, 0), averaged, rtol=0.05)


def test_vmap_is_a_loop():
  dist, triplets, _ = random_case(count=300)
  f = jax.value_and_grad(lambda dist, key: losses.lca(key, dist, triplets)[0])
  keys = jax.random.split(jax.random.key(0), 3)
  got = jax.jit(jax.vmap(f, (None, 0)))(dist, keys)
  want = [jax.jit(f)(dist, key) for key in keys]
  want = jax.tree.map(lambda *a: jnp.stack(a), *want)
  near = functools.partial(vectors.assert_near, tolerance=2e-6)
  jax.tree.map(near, got, want)


def test_other_derivatives_raise():
  dist, triplets, noise = random_case(count=20)
  f = lambda dist: losses.lca(None, dist, triplets, gumbel=noise)[0]
  with pytest.raises(TypeError, match='forward-mode'):
    jax.jvp(f, (dist,), (dist,))
  for second in (jax.jacfwd(jax.grad(f)), jax.jacrev(jax.grad(f))):
    with pytest.raises(TypeError, match='reverse mode alone'):
      second(jnp.asarray(dist))


def test_no_gradient_by_temperature_and_margin():
  dist, triplets, noise = random_case(count=20)
  f = lambda temperature, margin: losses.lca(
    None,
    dist,
    triplets,
    gumbel=noise,
    temperature=temperature,
    margin=margin,
  )[0]
  assert jax.jit(jax.grad(f, (0, 1)))(0.1, 0.1) == (0, 0)


def test_bad_input_is_named():
  dist, triplets, noise = random_case(count=20)
  f = lambda noise, key=None, **options: losses.lca(
    key, dist, triplets, gumbel=noise, **options
  )
  with pytest.raises(ValueError, match=r"'mean'.*'all' or 'valid'"):
    f(noise, normalize_by='mean')
  with pytest.raises(ValueError, match=r"'soft'.*'gumbel_rao', 'softmax'"):
    f(noise, estimator='soft')
  with pytest.raises(ValueError, match=r'\(2, 20, 16\).*\(2, 20, 17\)'):
    f(noise[..., 1:])
  with pytest.raises(ValueError, match="estimator 'gumbel', or a key alone"):
    f(noise, estimator='gumbel_rao')
  with pytest.raises(ValueError, match='key is None'):
    f(None)
  with pytest.raises(ValueError, match='gumbel is int32, expected floats'):
    f(noise.astype(np.int32))
  with pytest.raises(ValueError, match=r'dist has shape \(17,\), expected'):
    losses.lca(jax.random.key(0), dist[0], triplets)
  with pytest.raises(
    ValueError, match=r'triplets.anchor has shape \(19,\), .*20'
  ):
    losses.lca(
      jax.random.key(0), dist, triplets._replace(anchor=triplets.anchor[1:])
    )
