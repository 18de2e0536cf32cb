"""State of an added loss over the steps, and what such a loss may look at.

An arm without such a state carries None, and its program is as if there were no
such thing. No state has a gradient.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from experiments.study import proxies
from hier_jax import losses, numerics
from hier_jax.training.step import optim

__all__ = [
  'MEANS',
  'MEMORY',
  'TEACHER',
  'TEACHER_MEANS',
  'USAGE',
  'Carried',
  'Step',
  'means_of',
  'running_means',
  'teacher_means_of',
]

# Of the teacher's parameters, a step.
_TEACHER_DECAY = 0.99
# Of a class's mean, each time that a batch holds the class.
_MEAN_DECAY = 0.9
# Of the proxies' usage, a step: one that is never used is put anew after 114.
_USAGE_DECAY = 0.98
# Batches that the memory holds.
_MEMORY_BATCHES = 2


class Step(NamedTuple):
  """What an added loss may look at besides the embeddings.

  Attributes:
    context: the arrays of `Added.context`, or those that `Carried.context`
      has put in their place.
    state: what is carried, as it was before the step; None without any.
    count: number of steps before this one, int32 scalar.
    class_proxies: `[C, d]` of the base loss; None where it has none.
    base: embeddings `[b, d]` -> the base loss of this batch, without gradient
      by its proxies.
    embed: the encoder's parameters -> their embeddings `[b, d]` of this batch.
  """

  context: Mapping[str, Any]
  state: Any = None
  count: Any = 0
  class_proxies: jax.Array | None = None
  base: Callable[[jax.Array], jax.Array] | None = None
  embed: Callable[[Any], jax.Array] | None = None


@dataclasses.dataclass(frozen=True)
class Carried:
  """How a state begins, goes on, and is told.

  Attributes:
    init: (all parameters, number of classes C, rows b of a batch, size d of the
      embeddings) -> the state.
    advance: (key, z, labels, all parameters, values, c, step) -> (the state,
      the parameters) after a step of the optimizer; z is of the parameters
      before it.
    context: the state, on the host -> arrays in place of those of
      `Added.context`, after each epoch; None for none.
  """

  init: Callable[..., Any]
  advance: Callable[..., tuple[Any, dict]]
  context: Callable[[Any], dict[str, np.ndarray]] | None = None


def running_means(
  means: jax.Array, z: jax.Array, labels: jax.Array, decay: float = _MEAN_DECAY
) -> jax.Array:
  """The running mean direction of each class, after a batch.

    m_y <- decay m_y + (1 - decay) mean of z_i / |z_i| of the batch's rows of y

  for each class y of the batch; its first batch counts in full.

  Args:
    means: `[C, d]` before the batch, 0 for a class that was in none.
    z: `[b, d]` embeddings.
    labels: int `[b]`, the class of each row.
    decay: share of the mean that stays.

  Returns:
    `[C, d]`, without gradient.

  Example:
    >>> import jax.numpy as jnp
    >>> from experiments.study import carried
    >>> means = jnp.array([[1.0, 0.0], [0.0, 0.0], [0.0, 0.0]])
    >>> z, labels = jnp.array([[0.0, 9.0], [0.0, 5.0]]), jnp.array([0, 1])
    >>> carried.running_means(means, z, labels, decay=0.5).tolist()
    [[0.5, 0.5], [0.0, 1.0], [0.0, 0.0]]
  """
  unit = numerics.unit(jax.lax.stop_gradient(z)).astype(means.dtype)
  total = jnp.zeros_like(means).at[labels].add(unit)
  count = jnp.zeros(len(means), means.dtype).at[labels].add(1)[:, None]
  known = jnp.any(means != 0, 1, keepdims=True)
  keep = jnp.where(known, decay, 0)
  new = keep * means + (1 - keep) * total / jnp.maximum(count, 1)
  return jnp.where(count > 0, new, means)


def means_of(context: Callable[..., dict[str, np.ndarray]]) -> Carried:
  """`MEANS` that also tell a context, once every class has a mean.

  Args:
    context: (means `[C, d]`, classes 0..C-1) -> arrays, as `Added.context` is
      made of features and their labels.

  Example:
    >>> import numpy as np
    >>> from experiments.study import carried
    >>> kind = carried.means_of(lambda means, labels: {'levels': labels})
    >>> kind.context(np.eye(2))['levels'].tolist()
    [0, 1]
    >>> kind.context(np.zeros((2, 2)))
    {}
  """
  return dataclasses.replace(MEANS, context=lambda m: _told(m, context))


def teacher_means_of(context: Callable[..., dict[str, np.ndarray]]) -> Carried:
  """`means_of` the embeddings of the EMA teacher.

  Args:
    context: see `means_of`.

  Example:
    >>> import numpy as np
    >>> from experiments.study import carried
    >>> kind = carried.teacher_means_of(lambda means, labels: {'n': labels})
    >>> kind.context({'means': np.eye(2), 'teacher': {}})['n'].tolist()
    [0, 1]
  """
  told = lambda state: _told(state['means'], context)
  return dataclasses.replace(TEACHER_MEANS, context=told)


def _told(means, context) -> dict[str, np.ndarray]:
  if not np.any(means, 1).all():
    return {}
  return context(means, np.arange(len(means)))


def _teacher_begins(params, num_classes, batch_size, dim):
  del num_classes, batch_size, dim
  return params['head']


def _teacher_follows(key, z, labels, params, values, c, step):
  del key, z, labels, values, c
  return _followed(step.state, params, step), params


def _followed(teacher, params, step):
  return optim.update_ema(teacher, params['head'], step.count, _TEACHER_DECAY)


def _memory_begins(params, num_classes, batch_size, dim):
  del params, num_classes
  return losses.init_memory(_MEMORY_BATCHES * batch_size, dim)


def _memory_takes(key, z, labels, params, values, c, step):
  del key, values, c
  return losses.enqueue(step.state, z, labels), params


def _usage_begins(params, num_classes, batch_size, dim):
  del num_classes, batch_size, dim
  number = params['added']['hier_proxies'].shape[0]
  return jnp.full(number, 1 / number)


def _usage_reseeds(key, z, labels, params, values, c, step):
  """Counts the usage, and puts proxies that are hardly used at data."""
  del labels
  tangent = params['added']['hier_proxies']
  now = proxies.proxy_usage(z, tangent, c=c, temperature=values['tau'])
  usage = _USAGE_DECAY * step.state + (1 - _USAGE_DECAY) * now
  tangent, usage = proxies.reseed(key, tangent, usage, z, c=c)
  added = params['added'] | {'hier_proxies': tangent}
  return usage, params | {'added': added}


def _means_begin(params, num_classes, batch_size, dim):
  del params, batch_size
  return jnp.zeros((num_classes, dim))


def _means_follow(key, z, labels, params, values, c, step):
  del key, values, c
  return running_means(step.state, z, labels), params


def _teacher_means_begin(*known):
  return {'teacher': _teacher_begins(*known), 'means': _means_begin(*known)}


def _teacher_means_follow(key, z, labels, params, values, c, step):
  del key, z, values, c
  teacher = step.state['teacher']
  means = running_means(step.state['means'], step.embed(teacher), labels)
  state = {'teacher': _followed(teacher, params, step), 'means': means}
  return state, params


# The encoder's parameters as an exponential moving average (EMA).
TEACHER = Carried(_teacher_begins, _teacher_follows)
# `losses.Memory` of the last batches.
MEMORY = Carried(_memory_begins, _memory_takes)
# Mean over steps of `proxies.proxy_usage`; unused proxies are put anew.
USAGE = Carried(_usage_begins, _usage_reseeds)
# `running_means` of the embeddings.
MEANS = Carried(_means_begin, _means_follow)
# The same of a teacher's.
TEACHER_MEANS = Carried(_teacher_means_begin, _teacher_means_follow)
