"""Ranking losses in float64, and the programs that their tests share."""

import functools
import inspect

import jax
import jax.numpy as jnp
import numpy as np

from hier_jax import losses
from hier_jax.losses import _memory as memory
from tests.support import exact_geometry

ALL = np.ones(24, bool)
# Options of a program; all others, numbers, are arguments of it.
STATIC = ('c', 'ks', 'margins')


def score_table(z, others, c):
  """Scores of rows of z and of others in float64."""
  z, others = np.asarray(z, np.float64), np.asarray(others, np.float64)
  if c is not None:
    d = exact_geometry.dist(
      *exact_geometry.wide(z[:, None], others[None]),
      exact_geometry.curvature(c),
    )
    return -d.astype(float)
  unit = lambda x: x / np.linalg.norm(x, axis=1, keepdims=True)
  return unit(z) @ unit(others).T


def sigmoid(x):
  return 0.5 * (1 + np.tanh(x / 2))


def bound(t, temperature, slope, delta):
  """The bound of the Heaviside function, piece by piece."""
  if t < 0:
    return sigmoid(t / temperature)
  if t <= delta:
    return sigmoid(t / temperature) + 0.5
  return slope * (t - delta) + sigmoid(delta / temperature) + 0.5


def smooth_ap_of(s, level, temperature=0.01, **_):
  items, others = np.flatnonzero(level), range(len(s))
  rank = lambda i, among: (
    1 + sum(sigmoid((s[j] - s[i]) / temperature) for j in among if j != i)
  )
  return 1 - np.mean([rank(i, items) / rank(i, others) for i in items])


def recall_of(s, level, ks=(1, 2, 4, 8, 16), temperature=0.01, **options):
  spread = np.broadcast_to(options.get('rank_temperature', 1.0), len(ks))
  items, others = np.flatnonzero(level), range(len(s))
  rank = lambda i: (
    1 + sum(sigmoid((s[j] - s[i]) / temperature) for j in others if j != i)
  )
  recalls = []
  for k, t in zip(ks, spread, strict=True):
    found = sum(sigmoid((k - rank(i)) / t) for i in items)
    recalls.append(min(found, k) / min(k, len(items)))
  return 1 - np.mean(recalls)


def hap_of(
  s, level, temperature=0.01, slope=100.0, delta=0.05, alpha=1.0, depth=1, **_
):
  items, others = np.flatnonzero(level), range(len(s))
  rel = {i: (level[i] / depth) ** alpha / sum(level == level[i]) for i in items}
  total = 0
  for i in items:
    rank, hrank = 1, rel[i]
    for j in others:
      if j == i:
        continue
      if level[j] < level[i]:
        rank += bound(s[j] - s[i], temperature, slope, delta)
      else:
        rank += s[j] >= s[i]
      if j in rel and s[j] >= s[i]:
        hrank += min(rel[i], rel[j])
    total += hrank / rank
  return 1 - total / sum(rel.values())


def roadmap_of(s, level, weight=0.1, margins=(0.9, 0.6), **options):
  near, far = margins
  pull = np.mean(np.maximum(near - s[level > 0], 0))
  push = np.sum(np.maximum(s[level == 0] - far, 0)) / max(sum(level == 0), 1)
  return (1 - weight) * hap_of(s, level, **options) + weight * (pull + push)


ORACLES = {
  'smooth_ap': smooth_ap_of,
  'recall_at_k': recall_of,
  'sup_ap': hap_of,
  'roadmap': roadmap_of,
  'hap': hap_of,
}


def oracle(name, z, labels, remembered=None, c=None, of=None, **settings):
  """The mean over queries, a query at a time; `of` for another loss of one."""
  labels = np.asarray(labels).reshape(len(z), -1)
  others, classes = np.asarray(z, np.float64), labels
  if remembered is not None:
    others = np.concatenate([others, remembered[0]])
    classes = np.concatenate(
      [classes, remembered[1].reshape(-1, labels.shape[1])]
    )
  found = []
  for i in range(len(z)):
    rest = np.arange(len(others)) != i
    s = score_table(z[i : i + 1], others[rest], c)[0]
    level = np.cumprod(classes[rest] == labels[i], 1).sum(1)
    if level.any():
      depth = {'depth': labels.shape[1]} if name == 'hap' else {}
      found.append((of or ORACLES[name])(s, level, **depth, **settings))
  return np.mean(found)


def case(name, c=None, n=24, classes=5, seed=0):
  rng = np.random.default_rng(seed)
  z = exact_geometry.ball(rng, n, 6, c or 1.0, 'mid')
  # The last class has one row, hence no positive.
  labels = np.append(rng.integers(0, classes, n - 1), 2 * classes)
  if name == 'hap':
    labels = np.stack([labels // 2, labels], 1)
  return z, labels


def no_memory(levels=None):
  """A memory of 7 rows, none of them filled."""
  return losses.init_memory(7, 6, levels=levels)


@functools.cache
def _compiled(name, **static):
  def f(z, options, labels, where, memory):
    loss = getattr(losses, name)
    return loss(z, labels, where=where, memory=memory, **static, **options)

  return jax.jit(jax.value_and_grad(f, (0, 1)))


def evaluate(name, z, labels, where=ALL, memory=None, **settings):
  """Value of a loss, gradient by z and slopes by options, as NumPy arrays.

  All calls of one name, `STATIC` settings and z `[24, 6]` share a program.
  """
  signature = inspect.signature(getattr(losses, name)).parameters
  static = {k: v for k, v in settings.items() if k in STATIC}
  options = {
    k: np.float32(settings.get(k, p.default))
    for k, p in signature.items()
    if k not in STATIC and isinstance(p.default, float)
  }
  if memory is None:
    memory = no_memory(labels.shape[1] if labels.ndim == 2 else None)
  f = _compiled(name, **static)
  value, (by_z, by_options) = jax.device_get(
    f(z, options, labels, where, memory)
  )
  return value, by_z, by_options


def remembered_rows(name, c=None):
  """A memory of 7 rows of which 5 are filled, and those 5."""
  z, labels = case(name, c, n=7, seed=5)
  filled = np.arange(7) < 5
  state = memory.Memory(
    jnp.asarray(z), jnp.asarray(labels), jnp.asarray(filled), jnp.int32(5)
  )
  return state, (z[:5], labels[:5])


def circle(*degrees):
  """Rows `[n, 2]` at these angles."""
  angles = np.deg2rad(degrees)
  return np.stack([np.cos(angles), np.sin(angles)], 1).astype(np.float32)


def true_ap(s, level, **_):
  """1 - the average precision of the true ranking."""
  order = np.argsort(-s)
  hit = level[order] > 0
  return 1 - np.mean((np.cumsum(hit) / np.arange(1, len(s) + 1))[hit])
