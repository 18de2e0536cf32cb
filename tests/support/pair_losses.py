"""Pairwise and triplet losses in float64, and the programs that tests share."""

import functools
import inspect

import jax
import numpy as np

from hier_jax import losses
from tests.support import exact_geometry

ALL = np.ones(24, bool)
# Options that are arguments of a program, so that one serves all their values.
TRACED = {
  'circle': ('scale',),
  'lifted_structure': ('margin',),
  'multi_similarity': ('alpha', 'beta'),
  'n_pair': ('temperature',),
  'sup_con': ('temperature',),
}


def tables(z, x, c):
  """Similarities and distances in float64."""
  z, x = (np.asarray(a, np.float64) for a in (z, x))
  if c is not None:
    d = exact_geometry.dist(
      *exact_geometry.wide(z[:, None], x[None]), exact_geometry.curvature(c)
    )
    return -d.astype(float), d.astype(float)
  u, v = (a / np.linalg.norm(a, axis=1, keepdims=True) for a in (z, x))
  return u @ v.T, np.linalg.norm(u[:, None] - v[None], axis=-1)


def oracle(
  name,
  z,
  labels,
  c=None,
  mining=None,
  epsilon=None,
  squared=False,
  fixed=None,
  memory=None,
):
  """An anchor at a time, from the equations.

  Circle's weights are of the rows `fixed`; `memory` is rows and their labels.
  """
  old, old_labels = memory or (z[:0], labels[:0])
  table = lambda z: tables(z, np.concatenate([z, old]), c)
  s, d = table(z)
  weighed = s if fixed is None else table(fixed)[0]
  n, classes = len(z), np.concatenate([labels, old_labels])
  terms = []
  for i in range(n):
    p = [j for j in range(len(classes)) if classes[j] == labels[i] and j != i]
    q = np.flatnonzero(classes != labels[i]).tolist()
    if name == 'contrastive':
      terms += [d[i, j] ** 2 / 2 for j in p]
      terms += [max(0.5 - d[i, j], 0) ** 2 / 2 for j in q]
    elif name == 'lifted_structure':
      for j in p:
        pushed = np.append(d[i, q], d[labels != classes[j], j])
        push = np.log(np.sum(np.exp(1 - pushed)))
        terms.append(max(d[i, j] + push, 0) ** 2 / 2)
    elif name == 'multi_similarity':
      kept_p, kept_q = p, q
      if epsilon is not None:
        kept_p = [j for j in p if s[i, j] < max(s[i, q]) + epsilon]
        kept_q = [j for j in q if p and s[i, j] > min(s[i, p]) - epsilon]
      terms.append(
        np.log1p(np.sum(np.exp(-2 * (s[i, kept_p] - 0.5)))) / 2
        + np.log1p(np.sum(np.exp(50 * (s[i, kept_q] - 0.5)))) / 50
      )
    elif name == 'triplet' and p and q:
      e = d[i] ** 2 if squared else d[i]
      beyond = {j: [k for k in q if e[k] > e[j]] for j in p}
      triplets = {
        'all': [(e[j], e[k]) for j in p for k in q],
        'hard': [(max(e[p]), min(e[q]))],
        'semi_hard': [
          (e[j], min(e[beyond[j]]) if beyond[j] else max(e[q])) for j in p
        ],
      }[mining]
      terms += [max(far - near + 0.2, 0) for far, near in triplets]
    elif name == 'n_pair':
      terms += [np.log1p(np.exp((s[i, q] - s[i, j]) / 0.1).sum()) for j in p]
    elif name == 'sup_con' and p:
      others = np.delete(s[i], i) / 0.1
      terms.append(np.log(np.sum(np.exp(others))) - np.mean(s[i, p]) / 0.1)
    elif name == 'circle' and p and q:
      a, b = s[i, p], s[i, q]
      far, near = 1.4 - weighed[i, p], weighed[i, q] + 0.4
      pull = np.exp(-80 * np.maximum(far, 0) * (a - 0.6))
      push = np.exp(80 * np.maximum(near, 0) * (b - 0.4))
      terms.append(np.log1p(pull.sum() * push.sum()))
  return np.mean(terms)


def case(settings, n=24, classes=5):
  rng = np.random.default_rng(0)
  z = exact_geometry.ball(rng, n, 6, settings.get('c') or 1.0, 'mid')
  # The last class has one row, hence no positive.
  labels = np.append(rng.integers(0, classes, n - 1), classes)
  return z, labels


def no_memory():
  """A memory without rows."""
  return losses.init_memory(26, 6)


@functools.cache
def program(name, **settings):
  """Value and gradient by z of a loss, in one program.

  Returns:
    a function of z `[24, 6]`, labels, the rows that count, a memory of 26 rows
    and the options of `TRACED`, to NumPy arrays.
  """
  loss = functools.partial(getattr(losses, name), **settings)
  signature = inspect.signature(loss).parameters
  defaults = {key: signature[key].default for key in TRACED.get(name, ())}

  def f(z, remembered, labels, where, memory, options):
    memory = memory._replace(embeddings=remembered)
    return loss(z, labels, where=where, memory=memory, **options)

  f = jax.jit(jax.value_and_grad(f, (0, 1)))

  def run(z, labels, where=ALL, memory=None, **options):
    memory = no_memory() if memory is None else memory
    value, (by_z, by_memory) = jax.device_get(
      f(z, memory.embeddings, labels, where, memory, defaults | options)
    )
    assert not np.any(by_memory)
    return value, by_z

  return run


def assert_slopes(gradient, oracle, z):
  """The gradient of z against differences of the oracle."""
  gradient = np.asarray(gradient, np.float64)
  rng = np.random.default_rng(1)
  for _ in range(5):
    step = 1e-6 * np.abs(z).min(1, keepdims=True) * rng.standard_normal(z.shape)
    ahead, behind = (oracle(z.astype(float) + k * step) for k in (1, -1))
    slope = np.sum(gradient * step)
    size = np.linalg.norm(gradient) * np.linalg.norm(step)
    assert abs(slope - (ahead - behind) / 2) <= 1e-4 * size
