import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.study import added as added_lib
from experiments.study import arms, spaces
from hier_jax.errors import UserError

# Whole losses and trainings are compiled.
pytestmark = pytest.mark.slow

# Four classes of two images.
LABELS = jnp.arange(8) // 2


def test_unknown_arm():
  with pytest.raises(UserError, match="'sup_con\\+nothing' is unknown"):
    arms.arm('sup_con+nothing')
  with pytest.raises(UserError, match='unknown'):
    arms.arm('sup_con')


@pytest.mark.parametrize('added', list(added_lib.ADDED))
def test_base_space_is_part_of_every_arm(added):
  for base in arms.BASES:
    arm = arms.arm(f'{base}+{added}')
    assert arm.base_space.items() <= arm.space.items()
    assert ('proxy_lr' in arm.space) == arm.base.proxies
    assert not set(arm.base_space) & set(arm.added.space)


def test_only_hyp_is_compiled_for_images_per_class():
  static = {
    base: arms.arm(f'{base}+alone').space['images_per_class'].static
    for base in arms.BASES
  }
  assert static == {base: base == 'hyp' for base in arms.BASES}


@pytest.mark.parametrize('base', list(arms.BASES))
def test_base_loss_takes_traced_values(base):
  entry = arms.BASES[base]
  z = 0.3 * jax.random.normal(jax.random.key(0), (8, 4))
  proxies = jax.random.normal(jax.random.key(1), (4, 4))

  def loss(values):
    return entry.loss(
      z, LABELS, proxies, {**values, 'images_per_class': 2}, added_lib.CURVATURE
    )

  values = {k: jnp.float32(v) for k, v in spaces.defaults(entry.space).items()}
  found = jax.jit(jax.grad(loss))(values)
  # The first hyperparameter is the scale that the front is drawn over.
  assert np.isfinite(list(found.values())).all() and found[next(iter(values))]
