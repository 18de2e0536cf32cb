"""The values and gradients of the authors' program."""

import functools

import jax
import numpy as np
import pytest

from hier_jax import poincare
from tests.support import vectors


@pytest.mark.parametrize('case', ['c0.1_mid', 'c1.0_mid'])
@pytest.mark.parametrize(
  ('official', 'ours'),
  [
    ('dist', poincare.dist),
    ('dist_matrix', poincare.dist_matrix),
    ('mobius_add', poincare.mobius_add),
    ('expmap0', poincare.exp0),
    ('logmap0', poincare.log0),
    ('project', poincare.project),
  ],
)
def test_official_vectors(official, ours, case):
  # The official denominator is 1e-5 too large: up to 1e-4 in this range.
  arrays = vectors.under(f'pmath/{official}/{case}')
  names = [k.removeprefix('in/') for k in arrays if k.startswith('in/')]
  inputs = [arrays[f'in/{name}'] for name in names]
  c = float(case[1:].split('_')[0])
  out, vjp = jax.vjp(lambda *a: ours(*a, c=c), *inputs)
  np.testing.assert_allclose(out, arrays['f64/out'], rtol=1e-4, atol=1e-5)
  for name, gradient in zip(names, vjp(arrays['ct']), strict=True):
    want = arrays[f'f64/grad/{name}']
    np.testing.assert_allclose(
      gradient, want, rtol=2e-4, atol=2e-4 * np.abs(want).max()
    )


@pytest.mark.parametrize(
  ('case', 'c', 'clip_radius'), [('std', 0.1, 2.3), ('c1', 1.0, 1.0)]
)
def test_official_vectors_of_to_ball(case, c, clip_radius):
  arrays = vectors.under(f'topoincare/{case}')
  f = functools.partial(poincare.to_ball, c=c, clip_radius=clip_radius)
  out, vjp = jax.vjp(f, arrays['in/x'])
  np.testing.assert_allclose(out, arrays['f64/out'], rtol=2e-6)
  (gradient,) = vjp(arrays['ct'])
  want = arrays['f64/grad/x']
  np.testing.assert_allclose(
    gradient, want, rtol=1e-4, atol=1e-5 * np.abs(want).max()
  )
