"""Calls public functions with jaxtyping's import hook, in a process of its own.

`main` prints a JSON object, name of a call -> its error or None: 'right' are
calls as annotated, 'wrong' calls with another shape. Only shapes are computed.
"""

import json

import beartype
import jax
import jaxtyping
import numpy as np

ROOMS = ('layers', 'lorentz', 'losses', 'mining', 'poincare')
# An integer is a float too, as type checkers have it (PEP 484).
check = beartype.beartype(conf=beartype.BeartypeConf(is_pep484_tower=True))


def wrong_calls():
  """A call a room, of a shape that its annotations refuse."""
  from hier_jax import layers, lorentz, losses, mining, poincare

  x, labels = np.ones((4, 3), np.float32), np.zeros(3, int)
  head = layers.BallHead(2)
  return {
    'layers': lambda: head.init(jax.random.key(0), x, learned_c=x[0]),
    'lorentz': lambda: lorentz.inner(x, x[:3]),
    'losses': lambda: losses.triplet(x, labels),
    'mining': lambda: mining.reciprocal_neighbors(jax.numpy.ones(4), 1),
    'poincare': lambda: poincare.clip_norm(x[0, 0], 1.0),
  }


def error_of(call, *args):
  """The name and text of what a call raises, or None."""
  try:
    jax.eval_shape(call, *args)
  except Exception as error:
    return f'{type(error).__name__}: {error}'
  return None


def main():
  """Prints what became of the calls."""
  rooms = [f'hier_jax.{room}' for room in ROOMS]
  with jaxtyping.install_import_hook(rooms, f'{__name__}.check'):
    from tests import test_x64

    # As annotated; NumPy's arrays are what its own tests are about.
    for name in ('LABELS', 'POINTS'):
      setattr(test_x64, name, jax.numpy.asarray(getattr(test_x64, name)))
    calls = {name: test_x64.made(name) for name in test_x64.ALL}
    calls |= {name: (draw, ()) for name, draw in test_x64.DRAWS.items()}
    right = {name: error_of(f, *args) for name, (f, args) in calls.items()}
    wrong = {name: error_of(call) for name, call in wrong_calls().items()}
  print(json.dumps({'right': right, 'wrong': wrong}))
