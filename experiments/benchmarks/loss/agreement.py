"""HIER's loss beside its definition: what they are, and that they agree."""

import functools
import sys

import jax
import jax.numpy as jnp
import numpy as np
import scipy.stats

from experiments.benchmarks.common import report, timing
from experiments.benchmarks.loss import literal
from experiments.benchmarks.loss.cases import (
  OPTIONS,
  PER_ANCHOR,
  Case,
  compiled_with,
  distances,
  value_and_grad,
)
from hier_jax import losses

# `hier_jax.losses._hier` is the function, and hides its module.
_HIER = sys.modules[losses.hier.__module__]


def implementations(sizes, d):
  """Ours, ours with whole arrays, the definition, compiled and not."""
  case = Case.usual(sizes, d=d)
  ours = timing.compiled('hier_jax', value_and_grad(), *case.arguments)
  whole = compiled_with(
    _HIER, 'lca_losses', literal.lca_losses, 'whole arrays', case.arguments
  )
  program = literal.Program(
    np.random.default_rng(sizes.seed),
    *case.arguments,
    k=OPTIONS['k'],
    per_anchor=PER_ANCHOR,
  )
  definition = timing.Contender(
    'the definition',
    program,
    case.arguments,
    program.compile_seconds,
    program.temporary_mb,
  )
  eager = functools.partial(
    literal.eager,
    np.random.default_rng(sizes.seed),
    k=OPTIONS['k'],
    per_anchor=PER_ANCHOR,
  )
  none = float('nan')
  one_by_one = timing.Contender(
    'the definition, uncompiled', eager, case.arguments, none, none
  )
  return [ours, whole, definition, one_by_one]


def text(sizes):
  """Asserts that all compute the same; what was found, in words."""
  ours, whole, definition, _ = implementations(sizes, sizes.dimensions[0])
  z, proxies, labels, key = ours.arguments
  drawn = definition.program.draw(z, proxies, labels)
  noise = [
    jax.random.gumbel(key, (2, *t.weight.shape, len(proxies)))
    for t, key in zip(drawn, jax.random.split(key), strict=True)
  ]

  def evaluated(**parts):
    loss = jax.value_and_grad(functools.partial(literal.loss, **parts), (0, 1))
    return jax.jit(loss)(z, proxies, drawn, noise)

  ours_of = lambda noise, dist, triplets: losses.lca(
    None, dist, triplets, gumbel=noise
  )
  wanted = evaluated(distances=distances, of=ours_of)
  errors = [
    max(jax.tree.leaves(jax.tree.map(_error, got, wanted)))
    for got in (evaluated(distances=distances), evaluated())
  ]
  assert errors[0] < 1e-4, errors
  means = {}
  for contender in (ours, whole, definition):
    values = [
      np.ravel(contender.program(z, proxies, labels, key)[0])[0]
      for key in jax.random.split(key, sizes.keys)
    ]
    means[contender.name] = np.mean(values), scipy.stats.sem(values)
  base, error = means[ours.name]
  for name, (mean, own) in means.items():
    assert abs(mean - base) < 5 * np.hypot(error, own), (name, means)
  each = ', '.join(
    f'{name} {mean:.4f} (standard error {error:.4f})'
    for name, (mean, error) in means.items()
  )
  exact, biased = map(report.scientific, errors)
  return (
    'They compute the same. Given the same triplets and noise, value and'
    f' gradients of the selection alone differ by {exact} in norm, with the'
    f" definition's own distances, which are biased, by {biased}. Mean losses"
    f' of {sizes.keys} keys at D = {sizes.dimensions[0]}: {each}.'
  )


def _error(got, wanted):
  return float(jnp.linalg.norm(got - wanted) / jnp.linalg.norm(wanted))
