"""Trains a linear head on frozen features, one compiled program an arm."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import lax

from experiments.study import arms
from experiments.study.spaces import Point
from hier_jax import layers, losses, poincare
from hier_jax.data import sampler

__all__ = ['Program', 'Run', 'Trained', 'embed', 'program_of', 'train']

# Steps of one call of the compiled program: a run is a whole number of them.
_CHUNK = 20
# First mean length of tangent vectors with a free radius, below the clip.
_FREE_RADIUS = 1.0


class Program(NamedTuple):
  """What another program is compiled for, and nothing else.

  Attributes:
    arm: its name.
    dim: size d of the embeddings.
    num_classes: number C of training classes.
    static: hyperparameters that are constants of the program, sorted.
  """

  arm: str
  dim: int
  num_classes: int
  static: tuple[tuple[str, float | int | str], ...]


@dataclasses.dataclass(frozen=True, eq=False)
class Run:
  """The data and the length of a run.

  Attributes:
    x: features of all images `[n, F]`, on the device.
    rows: rows of x that are trained on, int `[m]`.
    labels: their classes, int `[m]` in 0..C-1, every one occurs.
    subgroup: each class's node of the true hierarchy, `[C]`; for the arm that
      is named an upper bound alone.
    epochs: the regime's budget.
  """

  x: jax.Array
  rows: np.ndarray
  labels: np.ndarray
  subgroup: np.ndarray
  epochs: int


class Trained(NamedTuple):
  """A trained arm.

  Attributes:
    params: 'head', 'proxies' of the base loss, 'added'.
    steps: how many there were.
    loss: mean of the last steps, NaN where it diverged.
  """

  params: dict
  steps: int
  loss: float


def program_of(arm: arms.Arm, point: Point, dim: int, num_classes: int):
  """The program that a point needs."""
  static = {k: point[k] for k, d in arm.space.items() if d.static}
  # Without class proxies the number of classes is nothing to the program.
  number = num_classes if arm.base.proxies else 0
  return Program(arm.name, dim, number, tuple(sorted(static.items())))


def train(
  arm: arms.Arm, point: Mapping, run: Run, *, dim: int, seed: int
) -> Trained:
  """Trains an arm.

  Adam with decoupled weight decay of the head and a cosine schedule; batches of
  `arms.BATCH_SIZE` with as many images a class as the point says.

  Args:
    arm: what is minimized.
    point: a value of every hyperparameter of the arm.
    run: data and length.
    dim: size d of the embeddings.
    seed: of parameters, batches and triplets.
  """
  program = program_of(arm, point, dim, int(run.labels.max()) + 1)
  draw = sampler.Sampler(
    run.labels,
    batch_size=arms.BATCH_SIZE,
    images_per_class=int(point['images_per_class']),
    seed=seed,
  )
  wanted = point['epochs'] * run.epochs * len(run.rows) / arms.BATCH_SIZE
  chunks = max(1, round(wanted / _CHUNK))
  values = {
    k: jnp.float32(v)
    for k, v in point.items()
    if k not in dict(program.static) and not isinstance(v, str)
  }
  values['steps'] = jnp.float32(chunks * _CHUNK)
  key = jax.random.key(seed)
  context = arm.added.context(run.x[run.rows], run.labels, run.subgroup)
  state = _init(program, key, run.x, values)
  loss = np.nan
  for chunk in range(chunks):
    batches = np.stack([draw(chunk * _CHUNK + i) for i in range(_CHUNK)])
    state, loss = _steps(
      program,
      state,
      key,
      run.x,
      run.rows[batches].astype(np.int32),
      run.labels[batches].astype(np.int32),
      values,
      context,
    )
  return Trained(state[0], chunks * _CHUNK, float(loss))


def embed(program: Program, params: dict, x: jax.Array) -> np.ndarray:
  """Embeddings `[n, d]` of features `[n, F]`."""
  return np.asarray(_embed(program, params['head'], x))


def ball_proxies(program: Program, params: dict) -> np.ndarray | None:
  """Hierarchical proxies `[P, d]` as points of the ball; None without any."""
  tangent = params['added'].get('hier_proxies')
  c = arms.arm(program.arm).added.c
  if tangent is None or not c:
    return None
  return np.asarray(
    poincare.to_ball(tangent, c=c, clip_radius=poincare.CLIP_RADIUS)
  )


def _head(program: Program) -> layers.BallHead:
  free = dict(program.static)['radius'] == 'free'
  c = arms.arm(program.arm).added.c
  return layers.BallHead(
    program.dim, c=c, radial_scale=_FREE_RADIUS if free and c else None
  )


def _optimizer(values) -> optax.GradientTransformation:
  """AdamW of the head, Adam of the proxies, each with a rate of its own."""
  # optax's own schedule takes no traced number of steps.
  decay = lambda count: 0.5 * (1 + jnp.cos(jnp.pi * count / values['steps']))
  rate = lambda name: lambda count: values[name] * decay(count)
  return optax.multi_transform(
    {
      'head': optax.adamw(rate('lr'), weight_decay=values['weight_decay']),
      'proxies': optax.adam(rate('proxy_lr' if 'proxy_lr' in values else 'lr')),
      'added': optax.adam(rate('added_lr' if 'added_lr' in values else 'lr')),
    },
    lambda params: {
      k: jax.tree.map(lambda _, k=k: k, v) for k, v in params.items()
    },
  )


@functools.partial(jax.jit, static_argnums=0)
def _init(program, key, x, values):
  """Parameters and the optimizer's state."""
  arm = arms.arm(program.arm)
  values = {**values, **dict(program.static)}
  head, proxies, added = jax.random.split(jax.random.fold_in(key, 0), 3)
  params = {
    'head': _head(program).init(head, x[:1]),
    'proxies': {},
    'added': arm.added.init(added, program.dim, values),
  }
  if arm.base.proxies:
    made = losses.init_class_proxies(proxies, program.num_classes, program.dim)
    params['proxies'] = {'proxies': made}
  return params, _optimizer(values).init(params), jnp.int32(0)


@functools.partial(jax.jit, static_argnums=0, donate_argnums=1)
def _steps(program, state, key, x, rows, labels, values, context):
  """Some steps: rows and labels are `[steps, batch]`."""
  values = {**values, **dict(program.static)}
  optimizer = _optimizer(values)

  def step(state, batch):
    params, opt_state, count = state
    rows, labels = batch
    loss, grads = jax.value_and_grad(_loss)(
      params, program, jax.random.fold_in(key, count + 1), x[rows], labels,
      values, context,
    )  # fmt: skip
    updates, opt_state = optimizer.update(grads, opt_state, params)
    params = optax.apply_updates(params, updates)
    return (params, opt_state, count + 1), loss

  state, found = lax.scan(step, state, (rows, labels))
  return state, jnp.mean(found)


def _loss(params, program, key, x, labels, values, context):
  arm = arms.arm(program.arm)
  c = arm.added.c
  z = _head(program).apply(params['head'], x)
  proxies = params['proxies'].get('proxies')
  loss = arm.base.loss(z, labels, proxies, values, c)
  if arm.added.loss is not None:
    loss += arm.added.loss(key, z, labels, params['added'], values, c, context)
  return loss


@functools.partial(jax.jit, static_argnums=0)
def _embed(program, head, x):
  return _head(program).apply(head, x)
