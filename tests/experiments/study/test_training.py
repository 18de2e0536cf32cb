import jax.numpy as jnp
import numpy as np
import pytest

from experiments.study import arms, spaces, training
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
    z = training.embed(program, found.params, RUN.x)
    wanted = np.tanh(0.1**0.5 * tangent) / 0.1**0.5
    np.testing.assert_allclose(np.linalg.norm(z, axis=1), wanted, rtol=1e-4)
