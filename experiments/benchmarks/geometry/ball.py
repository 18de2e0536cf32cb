"""Points of the Poincare ball by regime, and the truth about them.

The truth is the formula in `np.longdouble` (64 bits of significand on x86),
for exactly the points and the curvature that a library was given.
"""

import numpy as np

_RADII = {  # as a share of the ball's radius
  'near the origin': lambda rng, n: 10 ** rng.uniform(-6, -2, n),
  'close pairs': lambda rng, n: rng.uniform(0.05, 0.9, n),
  "head's range": lambda rng, n: rng.uniform(0.3, 0.62, n),
  'mid': lambda rng, n: rng.uniform(0.05, 0.9, n),
  # Inside the margins at which all libraries project, the widest being 4e-3.
  'outer': lambda rng, n: 1 - 10 ** rng.uniform(-2.39, -1, n),
  'boundary': lambda rng, n: 1 - 10 ** rng.uniform(-6, -3, n),
}
REGIMES = tuple(_RADII)
CLOSE = 'close pairs'
_CLOSENESS = lambda rng, n: 10 ** rng.uniform(-5, -2, n)
_OUTERMOST = 1 - 5e-7  # rounding must not carry a point past it


def wide_curvature(c: float) -> np.longdouble:
  """The curvature that a float32 computation is given."""
  return np.longdouble(np.float32(c))


def _vectors(rng, lengths, d):
  directions = rng.standard_normal((len(lengths), d))
  directions /= np.linalg.norm(directions, axis=1, keepdims=True)
  return lengths[:, None] * directions


def _redraw(propose, good):
  """Rows of `propose()`, each drawn again until it is good."""
  rows = propose()
  while not np.all(ok := good(rows)):
    rows = np.where(ok[:, None], rows, propose())
  return rows


def sample(rng, regime, n, m, d, c, dtype=np.float32):
  """Draws points whose directions are uniform.

  After rounding to the dtype every point is inside the ball and no x equals
  any y. Of close pairs, y_j belongs to x_(j mod n).

  Args:
    rng: numpy generator.
    regime: one of REGIMES.
    n: number of points x.
    m: number of points y.
    d: dimensions.
    c: curvature, positive.
    dtype: of the result.

  Returns:
    x `[n, d]` and y `[m, d]`.
  """
  radius = float(1 / np.sqrt(wide_curvature(c)))

  def inside(z):
    norms = np.linalg.norm(z.astype(np.float64), axis=1)
    return norms <= _OUTERMOST * radius

  def points(k):
    lengths = radius * _RADII[regime](rng, k)
    return _vectors(rng, lengths, d).astype(dtype)

  def propose_y():
    if regime != CLOSE:
      return points(m)
    steps = _vectors(rng, radius * _CLOSENESS(rng, m), d)
    return (x[np.arange(m) % n].astype(np.float64) + steps).astype(dtype)

  def apart(y):
    return inside(y) & ~(y[:, None] == x[None]).all(-1).any(1)

  x = _redraw(lambda: points(n), inside)
  return x, _redraw(propose_y, apart)


def close_pair_weights(n, m):
  """1 for each y_j with its x, of `sample`'s close pairs, and 0 elsewhere."""
  return (np.arange(n)[:, None] == np.arange(m)[None] % n).astype(np.float32)


def _gap(x, c):
  return 1 - c * np.sum(x * x, -1)


class Pairs:
  """All pairs of x `[n, d]` and y `[m, d]`, in long double.

  s = c|x-y|^2 / ((1 - c|x|^2)(1 - c|y|^2)).
  """

  def __init__(self, x, y, c):
    self.x, self.y = x.astype(np.longdouble), y.astype(np.longdouble)
    self.c = wide_curvature(c)
    self.a, self.b = _gap(self.x, self.c), _gap(self.y, self.c)
    sq = np.stack([np.sum((row - self.y) ** 2, 1) for row in self.x])
    self.s = self.c * sq / (self.a[:, None] * self.b)

  def distance(self):
    """2 asinh(sqrt(s)) / sqrt(c) `[n, m]`."""
    return 2 / np.sqrt(self.c) * np.arcsinh(np.sqrt(self.s))

  def gradient(self, weights):
    """The gradient of sum(weights * distance) by x, and its size.

    Returns:
      The gradient `[n, d]`, and the sum of the norms of its terms `[n]`: a
      distance has a gradient of norm 2 / (1 - c|x|^2) in x.
    """
    by_s = np.sqrt(self.c) / np.sqrt(self.s * (1 + self.s))
    h = 2 * weights.astype(np.longdouble) * by_s
    pulls = h / (self.a[:, None] * self.b)
    push = (h * self.s).sum(1) / self.a + pulls.sum(1)
    size = 2 / self.a * np.abs(weights).sum(1)
    return push[:, None] * self.x - pulls @ self.y, size


def exp0(u, c):
  """tanh(r) u / r, r = sqrt(c)|u|, in long double."""
  u = u.astype(np.longdouble)
  r = np.sqrt(wide_curvature(c) * np.sum(u * u, -1, keepdims=True))
  return np.tanh(r) / r * u


def log0(x, c):
  """artanh(r) x / r, r = sqrt(c)|x|, in long double."""
  x = x.astype(np.longdouble)
  gap = _gap(x, wide_curvature(c))[:, None]
  r = np.sqrt(wide_curvature(c) * np.sum(x * x, -1, keepdims=True))
  return np.arcsinh(r / np.sqrt(gap)) / r * x
