import jax.numpy as jnp
import numpy as np
import optax
import pytest

from experiments.study import added, arms, spaces, training
from experiments.study.carried import Carried
from tests.support import small_study

# Whole losses and trainings are compiled.
pytestmark = pytest.mark.slow

DATA = small_study.make()
ROWS = np.flatnonzero(DATA.labels < 12)
RUN = training.Run(
  jnp.asarray(DATA.x), ROWS, DATA.labels[ROWS], DATA.subgroup[:12], epochs=2
)


@pytest.fixture(autouse=True)
def _small(monkeypatch):
  small_study.shrink(monkeypatch)


def trained(name='proxy_anchor+alone', seed=0, **more):
  arm = arms.arm(name)
  point = spaces.defaults(arm.space) | more
  return training.train(arm, point, RUN, dim=4, seed=seed)


def test_a_search_compiles_once():
  trained()
  before = training._steps._cache_size()
  trained(alpha=3.0, delta=0.2, lr=0.1, proxy_lr=0.01, weight_decay=0.1)
  trained(images_per_class=3, epochs=0.33, seed=5)
  assert training._steps._cache_size() == before


def test_training_lowers_the_loss_and_moves_every_parameter():
  first, last = trained(epochs=0.2), trained(lr=0.01)
  assert last.steps == 10 and first.steps == 2 and last.loss < first.loss
  kernels = [
    np.asarray(t.params['head']['params']['linear']['kernel'])
    for t in (first, last)
  ]
  proxies = [np.asarray(t.params['proxies']['proxies']) for t in (first, last)]
  assert not np.allclose(*kernels) and not np.allclose(*proxies)


def test_rates_are_of_their_parameters():
  still = trained(lr=0.0, proxy_lr=0.1)
  other = trained(lr=0.0, proxy_lr=0.2)
  kernel = [
    np.asarray(t.params['head']['params']['linear']['kernel'])
    for t in (still, other)
  ]
  np.testing.assert_array_equal(*kernel)
  proxies = [np.asarray(t.params['proxies']['proxies']) for t in (still, other)]
  assert not np.allclose(*proxies)


def test_embeddings_lie_on_the_clip_s_sphere_unless_free():
  arm = arms.arm('sup_con+alone')
  # As many dimensions as features: all tangent vectors are of one length, 4,
  # or with a free radius 1.
  for radius, tangent in (('clip', 2.3), ('free', 1.0)):
    point = spaces.defaults(arm.space) | {'radius': radius, 'lr': 0.0}
    found = training.train(arm, point, RUN, dim=16, seed=0)
    program = training.program_of(arm, point, 16, 12)
    z = training.embed(program, found, RUN.x)
    wanted = np.tanh(0.1**0.5 * tangent) / 0.1**0.5
    np.testing.assert_allclose(np.linalg.norm(z, axis=1), wanted, rtol=1e-4)


def test_one_cycle_is_the_quickstart_s():
  steps = 50
  whole = optax.cosine_onecycle_schedule(steps, 1.0)
  want = [whole(count) for count in range(steps)]
  got = training.one_cycle(jnp.arange(steps), jnp.float32(steps))
  np.testing.assert_allclose(got, want, atol=1e-5)


def test_state_goes_from_step_to_step_and_is_told_after_each_epoch(monkeypatch):
  seen = []

  def advance(key, z, labels, params, values, c, step):
    del key, labels, values, c
    assert z.shape == (12, 4)
    moved = {'v': params['added']['v'] + step.context['shift']}
    return step.state + step.count, params | {'added': moved}

  def told(state):
    seen.append(float(state))
    return {'shift': np.float32(100)}

  def loss(key, z, labels, params, values, c, step):
    del key, labels, values, c
    return 0 * jnp.sum(params['v']) + 0 * step.base(z)

  entry = added.Added(
    loss,
    {},
    lambda key, dim, values: {'v': jnp.zeros(dim)},
    lambda x, labels, group: {'shift': np.float32(1)},
    carried=Carried(lambda *_: jnp.int32(0), advance, told),
  )
  monkeypatch.setitem(added.ADDED, 'counting', entry)
  found = trained('sup_con+counting')
  # Ten steps of two at a time, 60 images of 12 a step.
  assert found.steps == 10 and seen == [sum(range(6)), sum(range(10))]
  np.testing.assert_array_equal(found.params['added']['v'], 6 * 1.0 + 4 * 100)
