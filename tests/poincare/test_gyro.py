"""Matrices that act on the gyrovector space."""

import numpy as np

from hier_jax import poincare
from tests.support import exact_geometry


def test_matvec_is_a_homomorphism_and_scales_lengths():
  rng = np.random.default_rng(5)
  x = exact_geometry.ball(rng, 20, 4, 0.5, 'mid')
  m, n = rng.standard_normal((2, 4, 4)).astype(np.float32) / 2
  both = poincare.matvec(m @ n, x, c=0.5)
  chain = poincare.matvec(m, poincare.matvec(n, x, c=0.5), c=0.5)
  np.testing.assert_allclose(both, chain, rtol=2e-5, atol=1e-6)
  c = exact_geometry.curvature(0.5)
  (wide,) = exact_geometry.wide(x)
  oracle = exact_geometry.exp0(exact_geometry.log0(wide, c) @ m.T, c)
  error = exact_geometry.row_error(poincare.matvec(m, x, c=0.5), oracle)
  assert error <= 8 * np.finfo(np.float32).eps
