"""Squared distances of all pairs, and their gradient, in memory O(n m).

Everything is a sum over features or rows of matrices of the size of the result,
made in fused loops over blocks of them.
"""

import functools

import jax
import jax.numpy as jnp
from jax import lax

from hier_jax import numerics
from hier_jax.poincare import _rounding

# Features, or rows, handled in one fused loop over a matrix: enough to hide the
# traffic of its accumulator, few enough to stay in registers and compile fast.
_BLOCK = 32
# Features from which the sum over blocks carries its error along: of fewer
# blocks it is hardly longer than a pairwise sum.
_LONG = 128
# How much taller than wide a matrix is made the other way round: along the
# lanes of a TPU the longer side takes half the time.
_TALL = 8


def _blocks(x):
  """Rows of `[n, ...]` in blocks `[n / b, b, ...]`, filled up with zeros."""
  block = max(1, min(_BLOCK, x.shape[0]))
  count = -(-x.shape[0] // block)
  pad = [(0, count * block - x.shape[0])] + [(0, 0)] * (x.ndim - 1)
  return jnp.pad(x, pad).reshape(count, block, *x.shape[1:])


def _tree_sum(terms):
  """Pairwise sum, whose roundings grow with the logarithm of their number."""
  while len(terms) > 1:
    terms = [sum(terms[i : i + 2]) for i in range(0, len(terms), 2)]
  return terms[0]


def _sum_blocks(term, rows, like, compensate=False):
  """sum_k term(*rows[k]), pairwise inside blocks.

  Args:
    term: makes an array like `like` from one row of each array.
    rows: arrays `[K, ...]`.
    like: an array of the shape and dtype of the result.
    compensate: whether the sum of the blocks carries its error along.

  Returns:
    The sum.
  """
  if jax.default_backend() == 'gpu':
    # One kernel, which makes the terms as it sums them.
    return jnp.sum(jax.vmap(term)(*rows), 0)

  def add(sums, block):
    part = _tree_sum([term(*row) for row in zip(*block, strict=True)])
    if not compensate:
      return (sums[0] + part,), None
    total, rounding = _rounding.two_sum(sums[0], part)
    return (total, sums[1] + rounding), None

  zero = numerics.varying_as(jnp.zeros_like(like), *rows)
  zeros = (zero,) * (2 if compensate else 1)
  sums, _ = lax.scan(add, zeros, tuple(map(_blocks, rows)))
  return sum(sums)


def _pull_rows(g, x, y):
  """sum_j g_ij (x_i - y_j) `[n, d]`, each difference taken before its product.

  A matmul sums g_ij y_j instead, and loses the digits that x_i and y_j share.
  """
  term = lambda g_j, y_j: g_j[:, None] * (x - y_j[None])
  return _sum_blocks(term, (g.T, y), x)


def _pull_matmul(g, x, y):
  matmul = functools.partial(jnp.matmul, precision=lax.Precision.HIGHEST)
  return jnp.sum(g, 1)[:, None] * x - matmul(g, y)


_PULLS = {'rowwise': _pull_rows, 'matmul': _pull_matmul}
BACKWARDS = ('auto', *_PULLS)
# Pairs whose |x - y|^2 is a smaller share of |x|^2 + |y|^2 lose more than
# three bits of their difference to a matmul.
_CLOSE = 1 / 64


def pulls(g, x, y, sq, backward):
  """Half the gradients of sum(g |x_i - y_j|^2) by x and y.

  Args:
    g: `[n, m]`, 0 for coinciding pairs.
    x: `[n, d]`.
    y: `[m, d]`.
    sq: `[n, m]`, the squared distances.
    backward: 'rowwise' keeps the digits that x_i and y_j share, 'matmul' is
      faster and loses them; 'auto' is row-wise where any pair is close, and
      on a GPU, which would wait for its host to decide.

  Returns:
    sum_j g_ij (x_i - y_j) `[n, d]` and sum_i g_ij (y_j - x_i) `[m, d]`.
  """

  def both(name):
    pull = _PULLS[name]
    return lambda: (pull(g, x, y), pull(g.T, y, x))

  if backward == 'auto' and jax.default_backend() == 'gpu':
    backward = 'rowwise'
  if backward != 'auto':
    return both(backward)()
  norms = numerics.dot(x, x) + numerics.dot(y, y).T
  # A minimum of floats compiles in half the time of any().
  least = jnp.min(jnp.where(sq > 0, sq - _CLOSE * norms, 0), initial=0)
  return lax.cond(least < 0, both('rowwise'), both('matmul'))


def sqdist(x, y):
  """|x_i - y_j|^2 `[n, m]` of `[n, d]` and `[m, d]`.

  Direct differences: nothing of size n m d is stored, and close pairs keep the
  digits that |x|^2 + |y|^2 - 2<x, y> would cancel.
  """
  if x.shape[0] > _TALL * y.shape[0]:
    return sqdist(y, x).T
  term = lambda x_k, y_k: (x_k[:, None] - y_k[None]) ** 2
  like = jnp.zeros((x.shape[0], y.shape[0]), x.dtype)
  compensate = x.shape[1] > _LONG
  return _sum_blocks(term, (x.T, y.T), like, compensate)


@jax.custom_vjp
def sqdist_matrix(x, y):
  """`sqdist`, whose gradient, row-wise, holds nothing larger; reverse mode."""
  return sqdist(x, y)


def _sqdist_matrix_fwd(x, y):
  return sqdist(x, y), (x, y)


def _sqdist_matrix_bwd(residuals, g):
  x, y = residuals
  return 2 * _pull_rows(g, x, y), 2 * _pull_rows(g.T, y, x)


sqdist_matrix.defvjp(_sqdist_matrix_fwd, _sqdist_matrix_bwd)
