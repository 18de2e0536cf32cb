"""Squared distances of all pairs."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hier_jax.poincare import _pairwise

pytestmark = pytest.mark.optimized


def test_sqdist_matrix_is_direct_and_differentiable():
  rng = np.random.default_rng(2)
  x, y = (rng.standard_normal((n, 70)).astype(np.float32) for n in (130, 65))
  want = np.sum((x[:, None].astype(float) - y[None]) ** 2, -1)
  np.testing.assert_allclose(_pairwise.sqdist_matrix(x, y), want, rtol=1e-6)
  g = rng.standard_normal((130, 65)).astype(np.float32)
  _, vjp = jax.vjp(_pairwise.sqdist_matrix, x, y)
  by_x, by_y = vjp(jnp.asarray(g))
  apart = 2 * g[..., None].astype(float) * (x[:, None].astype(float) - y[None])
  np.testing.assert_allclose(by_x, apart.sum(1), rtol=1e-4, atol=1e-4)
  np.testing.assert_allclose(by_y, -apart.sum(0), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
  ('rows', 'shape'), [(5, (1, 5, 3)), (32, (1, 32, 3)), (70, (3, 32, 3))]
)
def test_rows_fill_as_few_blocks_as_hold_them(rows, shape):
  x = jnp.ones((rows, 3))
  blocks = _pairwise._blocks(x)
  assert blocks.shape == shape
  np.testing.assert_array_equal(blocks.reshape(-1, 3)[:rows], x)
  assert blocks.sum() == x.sum()
