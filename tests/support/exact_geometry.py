"""Points of the ball by regime, and oracles in long double.

The oracles are the textbook formulas, written as they stand: with 64 bits of
mantissa they have digits to lose.
"""

import numpy as np

CURVATURES = (1e-6, 0.1, 1.0, 10.0)
DIMENSIONS = (2, 16, 128, 512)
# Shares of the ball's radius.
REGIMES = {
  'origin': lambda rng, n: 10 ** rng.uniform(-6, -2, n),
  'head': lambda rng, n: rng.uniform(0.3, 0.62, n),
  'mid': lambda rng, n: rng.uniform(0.05, 0.9, n),
  'boundary': lambda rng, n: 1 - 10 ** rng.uniform(-6, -3, n),
}


def directions(rng, *shape):
  v = rng.standard_normal(shape)
  return v / np.linalg.norm(v, axis=-1, keepdims=True)


def ball(rng, n, d, c, regime):
  """float32 points `[n, d]`."""
  radius = REGIMES[regime](rng, n)[:, None] / np.sqrt(c or 1)
  return (directions(rng, n, d) * radius).astype(np.float32)


def pairs(rng, n, m, d, c, regime):
  """float32 points `[n, d]` and `[m, d]`; 'close': each y is near some x."""
  if regime != 'close':
    return ball(rng, n, d, c, regime), ball(rng, m, d, c, regime)
  x = ball(rng, n, d, c, 'mid')
  step = 10 ** rng.uniform(-5, -2, (m, 1)) / np.sqrt(c)
  y = x[rng.permutation(n)[:m]].astype(float) + directions(rng, m, d) * step
  return x, y.astype(np.float32)


def wide(*arrays):
  return [np.asarray(a).astype(np.longdouble) for a in arrays]


def curvature(c):
  """What float32 makes of c, as a long double."""
  return np.longdouble(np.float32(c))


def dot(x, y):
  return np.sum(x * y, -1, keepdims=True)


def norm(x):
  return np.sqrt(dot(x, x))


def cosine(x, y):
  return (dot(x, y) / (norm(x) * norm(y)))[..., 0]


def mobius_add(x, y, c):
  xy, xx, yy = dot(x, y), dot(x, x), dot(y, y)
  top = (1 + 2 * c * xy + c * yy) * x + (1 - c * xx) * y
  return top / (1 + 2 * c * xy + c * c * xx * yy)


def gyration(x, y, v, c):
  """Ungar's closed form."""
  xy, xx, yy = dot(x, y), dot(x, x), dot(y, y)
  xv, yv = dot(x, v), dot(y, v)
  along_x = -(c**2) * xv * yy + c * yv + 2 * c**2 * xy * yv
  along_y = -(c**2) * yv * xx - c * xv
  bottom = 1 + 2 * c * xy + c**2 * xx * yy
  return v + 2 * (along_x * x + along_y * y) / bottom


def coadd(x, y, c):
  xx, yy = dot(x, x), dot(y, y)
  return ((1 - c * yy) * x + (1 - c * xx) * y) / (1 - c**2 * xx * yy)


def conformal(x, c):
  return 2 / (1 - c * dot(x, x))


def exp0(u, c):
  r = np.sqrt(c) * norm(u)
  return np.tanh(r) / r * u


def log0(x, c):
  r = np.sqrt(c) * norm(x)
  return np.arctanh(r) / r * x


def scalar_mul(r, x, c):
  return exp0(r * log0(x, c), c)


def expmap(x, v, c):
  return mobius_add(x, exp0(conformal(x, c) * v / 2, c), c)


def logmap(x, y, c):
  return 2 / conformal(x, c) * log0(mobius_add(-x, y, c), c)


def geodesic(t, x, y, c):
  return mobius_add(x, scalar_mul(t, mobius_add(-x, y, c), c), c)


def transport(x, y, v, c):
  return gyration(y, -x, v, c) * conformal(x, c) / conformal(y, c)


def dist(x, y, c):
  """`[...]`, by the form that is accurate for close points."""
  gap = lambda a: 1 - c * np.sum(a * a, -1)
  s = c * np.sum((x - y) ** 2, -1) / (gap(x) * gap(y))
  return 2 * np.arcsinh(np.sqrt(s)) / np.sqrt(c)


def dist_to_hyperplane(x, p, a, c):
  w = mobius_add(-p, x, c)
  s = 2 * np.sqrt(c) * dot(w, a) / ((1 - c * dot(w, w)) * norm(a))
  return (np.arcsinh(s) / np.sqrt(c))[..., 0]


def busemann(x, omega, c):
  omega = omega / norm(omega)
  apart = omega - np.sqrt(c) * x
  return (np.log(dot(apart, apart) / (1 - c * dot(x, x))) / np.sqrt(c))[..., 0]


def horospherical_projection(x, omega, c):
  half = np.sqrt(c) * busemann(x, omega, c)[..., None] / 2
  return -np.tanh(half) / np.sqrt(c) * omega / norm(omega)


def midpoint(x, w, c):
  factor = conformal(x, c)
  top = np.sum(w[..., None] * factor * x, -2)
  return scalar_mul(0.5, top / np.sum(w[..., None] * (factor - 1), -2), c)


def relative_error(got, want):
  """Largest error of an entry `[...]`, as a share of it."""
  return float(np.max(np.abs(np.asarray(got) - want) / np.abs(want)))


def row_error(got, want):
  """Largest error of a vector `[..., d]`, as a share of its length."""
  got = np.asarray(got).astype(np.longdouble)
  return float(np.max(norm(got - want) / norm(want)))
