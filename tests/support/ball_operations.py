"""The operations of the ball, points to try them on, and how wrong they are."""

import functools

import numpy as np

from hier_jax import poincare
from tests.support import exact_geometry

# Name -> arguments, the operation, its oracle in long double. Arguments: x, y
# points; X triples of points; v directions of any length; u tangent vectors at
# x as long as the ball is wide; t numbers in [0, 1]; w weights.
OPS = {
  'mobius_add': ('xy', poincare.mobius_add, exact_geometry.mobius_add),
  'mobius_sub': (
    'xy',
    poincare.mobius_sub,
    lambda x, y, c: exact_geometry.mobius_add(x, -y, c),
  ),
  'coadd': ('xy', poincare.coadd, exact_geometry.coadd),
  'cosub': (
    'xy',
    poincare.cosub,
    lambda x, y, c: exact_geometry.coadd(x, -y, c),
  ),
  'gyration': ('xyv', poincare.gyration, exact_geometry.gyration),
  'antipode': ('x', poincare.antipode, lambda x, c: -x),
  'scalar_mul': (
    'tx',
    poincare.scalar_mul,
    lambda t, x, c: exact_geometry.scalar_mul(t[:, None], x, c),
  ),
  'pointwise_mul': (
    'vx',
    poincare.pointwise_mul,
    lambda w, x, c: exact_geometry.exp0(w * exact_geometry.log0(x, c), c),
  ),
  'fn_apply': (
    'x',
    functools.partial(poincare.fn_apply, lambda v: v * abs(v) + v),
    lambda x, c: exact_geometry.exp0(
      (v := exact_geometry.log0(x, c)) * abs(v) + v, c
    ),
  ),
  'exp0': ('v', poincare.exp0, exact_geometry.exp0),
  'log0': ('x', poincare.log0, exact_geometry.log0),
  'round_trip': (
    'x',
    lambda x, c: poincare.exp0(poincare.log0(x, c=c), c=c),
    lambda x, c: x,
  ),
  'expmap': ('xu', poincare.expmap, exact_geometry.expmap),
  'logmap': ('xy', poincare.logmap, exact_geometry.logmap),
  'geodesic': (
    'txy',
    poincare.geodesic,
    lambda t, x, y, c: exact_geometry.geodesic(t[:, None], x, y, c),
  ),
  'geodesic_unit': (
    'txv',
    poincare.geodesic_unit,
    lambda t, x, v, c: exact_geometry.expmap(
      x,
      t[:, None] * v / exact_geometry.norm(v) / exact_geometry.conformal(x, c),
      c,
    ),
  ),
  'conformal_factor': (
    'x',
    poincare.conformal_factor,
    lambda x, c: exact_geometry.conformal(x, c)[:, 0],
  ),
  'inner': (
    'xvv',
    poincare.inner,
    lambda x, u, v, c: (
      exact_geometry.conformal(x, c) ** 2 * exact_geometry.dot(u, v)
    )[:, 0],
  ),
  'norm': (
    'xv',
    poincare.norm,
    lambda x, v, c: (exact_geometry.conformal(x, c) * exact_geometry.norm(v))[
      :, 0
    ],
  ),
  'egrad_to_rgrad': (
    'xv',
    poincare.egrad_to_rgrad,
    lambda x, g, c: g / exact_geometry.conformal(x, c) ** 2,
  ),
  'parallel_transport': (
    'xyv',
    poincare.parallel_transport,
    exact_geometry.transport,
  ),
  'transport0': (
    'xv',
    poincare.transport0,
    lambda x, v, c: 2 * v / exact_geometry.conformal(x, c),
  ),
  'transport0_back': (
    'xv',
    poincare.transport0_back,
    lambda x, v, c: v * exact_geometry.conformal(x, c) / 2,
  ),
  'dist': ('xy', poincare.dist, exact_geometry.dist),
  'dist0': (
    'x',
    poincare.dist0,
    lambda x, c: exact_geometry.dist(x, 0 * x, c),
  ),
  'dist_to_hyperplane': (
    'xyv',
    functools.partial(poincare.dist_to_hyperplane, signed=True),
    exact_geometry.dist_to_hyperplane,
  ),
  'busemann': ('xv', poincare.busemann, exact_geometry.busemann),
  'horospherical_projection': (
    'xv',
    poincare.horospherical_projection,
    exact_geometry.horospherical_projection,
  ),
  'midpoint': (
    'Xw',
    poincare.midpoint,
    exact_geometry.midpoint,
  ),
}
# Where an error is a share not of the result, which may vanish, but of what it
# is made of.
SCALES = {
  'mobius_add': lambda x, y, c: np.maximum(*map(exact_geometry.norm, (x, y))),
  'geodesic': lambda t, x, y, c: np.maximum(*map(exact_geometry.norm, (x, y))),
  'geodesic_unit': lambda t, x, v, c: np.maximum(
    exact_geometry.norm(x), t[:, None] / 2
  ),
  'expmap': lambda x, u, c: exact_geometry.norm(x),
  'coadd': lambda x, y, c: np.minimum(*map(exact_geometry.norm, (x, y))),
  'inner': lambda x, u, v, c: (
    exact_geometry.conformal(x, c) ** 2
    * exact_geometry.norm(u)
    * exact_geometry.norm(v)
  )[:, 0],
  'dist_to_hyperplane': lambda x, p, a, c: (
    exact_geometry.dist(x, p, c)
    + 1
    / np.abs(exact_geometry.cosine(exact_geometry.mobius_add(-p, x, c), a))
    / np.sqrt(c)
  ),
  'midpoint': lambda x, w, c: exact_geometry.norm(x).max(1),
  # It moves by 2 / |omega - sqrt(c) x| for each unit that omega does.
  'busemann': lambda x, omega, c: (
    exact_geometry.dist(x, 0 * x, c)
    + 20
    / exact_geometry.norm(omega / exact_geometry.norm(omega) - np.sqrt(c) * x)[
      :, 0
    ]
    / np.sqrt(c)
  ),
}
SCALES['mobius_sub'] = SCALES['mobius_add']
SCALES['cosub'] = SCALES['coadd']
SCALES['horospherical_projection'] = lambda x, omega, c: SCALES['busemann'](
  x, omega, c
)[:, None]


def arguments(kinds, rng, n, d, c, regime):
  """float32 arguments of an operation."""
  width = 1 / np.sqrt(c or 1)
  x = exact_geometry.ball(rng, n, d, c, regime)
  draws = {
    'x': lambda: x,
    'X': lambda: exact_geometry.ball(rng, 3 * n, d, c, regime).reshape(n, 3, d),
    'w': lambda: rng.uniform(0.1, 1, (n, 3)),
    'y': lambda: exact_geometry.ball(rng, n, d, c, regime),
    'v': lambda: (
      exact_geometry.directions(rng, n, d) * rng.uniform(0.1, 2, (n, 1)) * width
    ),
    'u': lambda: (
      exact_geometry.directions(rng, n, d)
      * rng.uniform(0.1, 2, (n, 1))
      * width
      * (1 - c * np.sum(x.astype(float) ** 2, 1, keepdims=True))
      / 2
    ),
    't': lambda: rng.uniform(0, 1, n),
  }
  return [draws[kind]().astype(np.float32) for kind in kinds]


def error(name, got, args, c):
  oracle = OPS[name][2]
  wide, c = exact_geometry.wide(*args), exact_geometry.curvature(c)
  want = oracle(*wide, c)
  size = np.abs if want.ndim == 1 else exact_geometry.norm
  scale = size(want)
  if name in SCALES:
    scale = np.maximum(scale, SCALES[name](*wide, c))
  assert got.shape == want.shape
  return float(
    np.max(size(np.asarray(got).astype(np.longdouble) - want) / scale)
  )
