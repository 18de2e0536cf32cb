"""Checks of values, which the library leaves out unless they are asked for."""

import contextlib
import functools
import itertools
from collections.abc import Callable, Iterator

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

__all__ = ['check', 'debug_checks', 'enabled']

# A part of the key under which JAX keeps what it has traced and compiled.
_switch = jax.make_user_context(default_value=False)
# What the checks of running programs have found, with the checks' numbers.
_found: list[tuple[int, str]] = []
_numbers = itertools.count()


@contextlib.contextmanager
def debug_checks() -> Iterator[None]:
  """Checks the values that functions of this package are given in the block.

  They are labels in 0..C-1, points inside their ball, finite inputs, curvatures
  that are not negative. It works inside `jit`, `grad`, `vmap`, `pmap` and
  `shard_map`, whose programs are traced anew with the checks, as callbacks of
  the host (slow). Outside the block programs are what they were.

  Raises:
    ValueError: at the end of the block, with the first value that is wrong.
  """
  _found.clear()
  with _switch(True):
    yield
  jax.effects_barrier()
  if _found:
    # Callbacks come in any order; what was traced first is nearest the caller.
    raise ValueError(min(_found)[1])


def enabled() -> bool:
  """Whether what is traced now is to check values."""
  return _switch.value


def check(
  ok: ArrayLike | Callable[[], ArrayLike], values: ArrayLike, message: str
) -> None:
  """Notes the first of the values that is not ok, inside `debug_checks` alone.

  Args:
    ok: bool array, or a function that makes it.
    values: array of its shape.
    message: text with '{value}' and '{place}', its index such as '[3, 2]'.
  """
  if not enabled():
    return
  ok = ok() if callable(ok) else ok
  note = functools.partial(_note, next(_numbers), message)
  jax.debug.callback(note, ok, jnp.asarray(values))


def _note(
  number: int, message: str, ok: np.ndarray, values: np.ndarray
) -> None:
  ok = np.asarray(ok)
  if not ok.all():
    place = tuple(np.argwhere(~ok)[0].tolist())
    text = message.format(
      value=np.asarray(values)[place], place=list(place) or ''
    )
    _found.append((number, text))
