"""Programs that runs of equal configs share.

A run traces and compiles its step anew, which takes most of a tiny one's time
even where JAX finds the program on disk. It is a function of the config alone.
"""

import functools
import json

import jax
import jax.numpy as jnp

from hier_jax.training.distributed import mapping
from hier_jax.training.step import optim, shards
from hier_jax.training.step import state as state_lib
from hier_jax.training.step import train_step as step_lib

# What neither a step nor the first state reads of a config. Of epochs it is
# the optimizer that tells whether they matter.
_UNREAD = ('epochs', 'eval', 'checkpoint', 'log_every', 'pretrained')
# More than a run of these tests has.
_STEPS = 100


def use(monkeypatch):
  """Has runs share their programs until the test ends.

  A test that changes what a step computes, but not its config, can't use it.
  """
  for module, name, shared in (
    (mapping, 'map_step', _shared(mapping.map_step)),
    (mapping, 'map_embed', _shared(mapping.map_embed)),
    (optim, 'optimizer', _shared(optim.optimizer, _learning_rates)),
    (step_lib, 'make_train_step', _shared(step_lib.make_train_step)),
    (step_lib, 'make_embed', _shared(step_lib.make_embed)),
    (state_lib, 'create', _create(state_lib.create)),
  ):
    monkeypatch.setattr(module, name, shared)


def _key(*args, **kwargs):
  return tuple(map(_hashable, (*args, *sorted(kwargs.items()))))


def _learning_rates(settings, *, norm=None, **length):
  """What an optimizer depends on; often not on the length of its run."""
  rates = [
    optim.learning_rate(settings, group, **length) for group in settings.scales
  ]
  return (
    _hashable(settings),
    _hashable(norm),
    *(float(rate(step)) for rate in rates for step in range(_STEPS)),
  )


def _hashable(value):
  if hasattr(value, 'to_dict'):  # a config, or a section of one
    read = {k: v for k, v in value.to_dict().items() if k not in _UNREAD}
    return json.dumps(read, sort_keys=True)
  if isinstance(value, functools.partial):  # a norm over devices
    return value.func, value.args, *sorted(value.keywords.items())
  if isinstance(value, state_lib.TrainState):  # where its arrays lie
    leaves, tree = jax.tree.flatten(value)
    return *leaves, tree
  # A list of devices, or a keyword with its value; optimizers have names.
  if isinstance(value, list) or type(value) is tuple:
    return tuple(map(_hashable, value))
  return value


@functools.cache
def _shared(function, key=_key):
  """A function that returns for equal keys what it has once made."""
  made = {}

  @functools.wraps(function)
  def call(*args, **kwargs):
    found = key(*args, **kwargs)
    if found not in made:
      made[found] = function(*args, **kwargs)
    return made[found]

  return call


@functools.cache
def _create(create):
  """The same of states, kept on the host: a step consumes its own."""

  @_shared
  def on_host(*args, **kwargs):
    return jax.device_get(create(*args, **kwargs))

  @functools.wraps(create)
  def call(*args, **kwargs):
    traced = isinstance(jnp.zeros(()), jax.core.Tracer)  # for its shapes
    if traced or any(isinstance(a, shards.Shards) for a in args):
      return create(*args, **kwargs)
    return jax.tree.map(jnp.array, on_host(*args, **kwargs))

  return call
