"""Trains an arm: a head on frozen features, alone or with what is below it.

There is one compiled program an arm.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import lax

from experiments.study import arms, blocks, images
from experiments.study.carried import Step
from experiments.study.spaces import Point
from hier_jax import layers, losses, models, poincare
from hier_jax.data import sampler

__all__ = [
  'Program',
  'Run',
  'State',
  'Trained',
  'ball_proxies',
  'cosine',
  'embed',
  'one_cycle',
  'program_of',
  'train',
]

# Steps of one call of the compiled program on features, of which a run is a
# whole number; and those whose mean loss is kept.
_CHUNK = 20
# The first share of the steps, in which the rate rises: that of optax's and the
# quickstart's one-cycle schedule. It begins at 1/25 and ends at 1/250,000.
_RISE, _FIRST, _LAST = 0.3, 1 / 25, 1 / 250_000
# Of the key of what is carried.
_ADVANCE = 2**31
# First mean length of tangent vectors with a free radius, below the clip.
_FREE_RADIUS = 1.0


class Program(NamedTuple):
  """What another program is compiled for, and nothing else.

  Attributes:
    arm: its name.
    dim: size d of the embeddings.
    num_classes: number C of training classes; 0 where it is nothing to the
      program.
    static: hyperparameters that are constants of the program, sorted.
    backbone: the network that is trained; None for features.
    blocks: how many of the last blocks that made the features are trained.
  """

  arm: str
  dim: int
  num_classes: int
  static: tuple[tuple[str, float | int | str], ...]
  backbone: str | None = None
  blocks: int = 0


@dataclasses.dataclass(frozen=True, eq=False)
class Run:
  """The data and the length of a run on frozen features.

  `images.Run` is another kind.

  Attributes:
    x: features of all images `[n, F]`, on the device; with the tokens where
      blocks are trained.
    rows: rows of x that are trained on, int `[m]`.
    labels: their classes, int `[m]` in 0..C-1, every one occurs.
    subgroup: each class's node of the true hierarchy, `[C]`; for the arm that
      is named an upper bound alone.
    epochs: the regime's budget.
    pretrained: parameters that blocks begin with, by the blocks' names.
  """

  x: jax.Array | blocks.Tokens
  rows: np.ndarray
  labels: np.ndarray
  subgroup: np.ndarray
  epochs: int
  pretrained: Mapping[str, Any] = dataclasses.field(default_factory=dict)
  # No network is trained on images.
  backbone = None

  @property
  def batch_size(self) -> int:
    """Images a step."""
    return arms.BATCH_SIZE

  @property
  def chunk(self) -> int:
    """Steps of a call of the compiled program."""
    return _CHUNK

  @property
  def example(self) -> jax.Array | blocks.Tokens:
    """What the head is called with first."""
    return self.x

  @property
  def features(self) -> jax.Array:
    """Those of the frozen network, of the training images `[m, F]`."""
    x = self.x.frozen if isinstance(self.x, blocks.Tokens) else self.x
    return x[self.rows]

  def chunks(
    self, images_per_class: int, seed: int, number: int
  ) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Rows of x and their classes, `[chunk, b]` each, so often."""
    draw = sampler.Sampler(
      self.labels,
      batch_size=self.batch_size,
      images_per_class=images_per_class,
      seed=seed,
    )
    for first in range(0, number * self.chunk, self.chunk):
      batches = np.stack([draw(first + i) for i in range(self.chunk)])
      rows, labels = self.rows[batches], self.labels[batches]
      yield rows.astype(np.int32), labels.astype(np.int32)


class State(NamedTuple):
  """What a step changes.

  Attributes:
    params: 'head' (with what is trained below it), 'proxies' of the base loss,
      'added'.
    opt_state: the optimizer's.
    count: number of steps so far, int32 scalar.
    stats: running statistics of the network; empty without one.
    carried: of what is added, see `carried`; None for nothing.
  """

  params: dict
  opt_state: Any
  count: jax.Array
  stats: dict
  carried: Any


class Trained(NamedTuple):
  """A trained arm.

  Attributes:
    params: see `State`.
    stats: see `State`.
    steps: how many there were.
    loss: mean of the last steps, NaN where it diverged.
  """

  params: dict
  stats: dict
  steps: int
  loss: float


def program_of(
  arm: arms.Arm,
  point: Point,
  dim: int,
  num_classes: int,
  backbone: str | None = None,
  blocks: int = 0,
) -> Program:
  """The program that a point needs."""
  static = {k: point[k] for k, d in arm.space.items() if d.static}
  needed = arm.base.proxies or arm.added.carried is not None
  number = num_classes if needed else 0
  ordered = tuple(sorted(static.items()))
  return Program(arm.name, dim, number, ordered, backbone, blocks)


def train(
  arm: arms.Arm, point: Mapping, run: Run | images.Run, *, dim: int, seed: int
) -> Trained:
  """Trains an arm.

  Adam with decoupled weight decay of the head and what is below it; a cosine
  schedule, which rises first where more than the head is trained; batches with
  as many images a class as the point says.

  Args:
    arm: what is minimized.
    point: a value of every hyperparameter of the arm.
    run: data and length.
    dim: size d of the embeddings.
    seed: of parameters, batches and triplets.
  """
  number = int(run.labels.max()) + 1
  program = program_of(
    arm, point, dim, number, run.backbone, len(run.pretrained)
  )
  wanted = point['epochs'] * run.epochs * len(run.labels) / run.batch_size
  chunks = max(1, round(wanted / run.chunk))
  values = {
    k: jnp.float32(v)
    for k, v in point.items()
    if k not in dict(program.static) and not isinstance(v, str)
  }
  values['steps'] = jnp.float32(chunks * run.chunk)
  key = jax.random.key(seed)
  context = arm.added.context(run.features, run.labels, run.subgroup)
  state = _init(program, key, run.example, values, run.pretrained)
  state = state._replace(carried=_carried(arm, program, run, state.params))
  found, epoch = [], 0
  per_class = int(point['images_per_class'])
  batches = run.chunks(per_class, seed, chunks)
  for chunk, (inputs, labels) in enumerate(batches, 1):
    state, loss = _steps(
      program, state, key, run.x, inputs, labels, values, context
    )
    found = [*found, loss][-(_CHUNK // run.chunk) :]
    steps = chunk * run.chunk
    before, epoch = epoch, steps * run.batch_size // len(run.labels)
    if epoch > before:
      context |= _told(arm, state)
  return Trained(state.params, state.stats, steps, float(np.mean(found)))


def _carried(arm, program, run, params) -> Any:
  """The first state of what is added, no array of which is a parameter's."""
  carried = arm.added.carried
  if carried is None:
    return None
  first = carried.init(params, program.num_classes, run.batch_size, program.dim)
  return jax.tree.map(jnp.copy, first)


def _told(arm, state) -> dict[str, np.ndarray]:
  """What the carried state says to the steps that follow."""
  carried = arm.added.carried
  if carried is None or carried.context is None:
    return {}
  return carried.context(jax.device_get(state.carried))


def embed(
  program: Program, trained: Trained, x: jax.Array | blocks.Tokens
) -> np.ndarray:
  """Embeddings `[n, d]` of features `[n, F]`, of tokens, or of images."""
  apply = lambda x: _embed(program, trained.params['head'], trained.stats, x)
  if isinstance(x, blocks.Tokens):
    return blocks.in_batches(apply, x)
  return np.asarray(apply(x))


def ball_proxies(program: Program, params: dict) -> np.ndarray | None:
  """Hierarchical proxies `[P, d]` as points of the ball; None without any."""
  tangent = params['added'].get('hier_proxies')
  c = arms.arm(program.arm).added.c
  if tangent is None or not c:
    return None
  return np.asarray(
    poincare.to_ball(tangent, c=c, clip_radius=poincare.CLIP_RADIUS)
  )


def _model(
  program: Program,
) -> layers.BallHead | blocks.Embedder | models.Embedder:
  """The head, or blocks or the network with it."""
  free = dict(program.static)['radius'] == 'free'
  c = arms.arm(program.arm).added.c
  scale = _FREE_RADIUS if free and c else None
  if program.blocks:
    return blocks.embedder(
      program.blocks, dim=program.dim, c=c, radial_scale=scale
    )
  if program.backbone is None:
    return layers.BallHead(program.dim, c=c, radial_scale=scale)
  return images.embedder(
    program.backbone, dim=program.dim, c=c, radial_scale=scale
  )


def _encode(program, head, stats, x):
  """Embeddings in training, and the network's new statistics."""
  model = _model(program)
  if program.backbone is None:
    return model.apply(head, x), stats
  return model.apply({**head, **stats}, x, train=True, mutable=list(stats))


def cosine(count: jax.Array, steps: jax.Array) -> jax.Array:
  """The factor of the rate at a step, as optax has it, of traced steps."""
  return 0.5 * (1 + jnp.cos(jnp.pi * count / steps))


def one_cycle(count: jax.Array, steps: jax.Array) -> jax.Array:
  """`optax.cosine_onecycle_schedule` of a traced number of steps."""
  place = count / steps
  rise = cosine(jnp.minimum(place, _RISE), _RISE)
  fall = cosine(jnp.maximum(place, _RISE) - _RISE, 1 - _RISE)
  return jnp.where(
    place < _RISE, 1 + (_FIRST - 1) * rise, _LAST + (1 - _LAST) * fall
  )


def _optimizer(program, values) -> optax.GradientTransformation:
  """AdamW of the encoder, Adam of the proxies, each with a rate of its own."""
  frozen = program.backbone is None and not program.blocks
  schedule = cosine if frozen else one_cycle
  decay = lambda count: schedule(count, values['steps'])

  def rate(name):
    # A point has no rate of what its arm or its regime has not.
    chosen = values.get(name, values['lr'])
    return lambda count: chosen * decay(count)

  weight_decay = values['weight_decay']
  return optax.multi_transform(
    {
      'head': optax.adamw(rate('lr'), weight_decay=weight_decay),
      'blocks': optax.adamw(rate('backbone_lr'), weight_decay=weight_decay),
      'proxies': optax.adam(rate('proxy_lr')),
      'added': optax.adam(rate('added_lr')),
    },
    functools.partial(_groups, program),
  )


def _groups(program: Program, params: dict) -> dict:
  """The group of each parameter: its kind, of the head or the blocks below."""

  def group(path, _):
    below = any(getattr(key, 'key', None) == 'backbone' for key in path)
    return 'blocks' if below and program.blocks else path[0].key

  return jax.tree_util.tree_map_with_path(group, params)


@functools.partial(jax.jit, static_argnums=0)
def _init(program, key, x, values, pretrained):
  """The first state, without what is carried."""
  arm = arms.arm(program.arm)
  values = {**values, **dict(program.static)}
  head, proxies, added = jax.random.split(jax.random.fold_in(key, 0), 3)
  variables = _model(program).init(head, blocks.take(x, slice(1)))
  encoder = variables.pop('params')
  if program.blocks:
    encoder = {**encoder, 'backbone': pretrained}
  params = {
    'head': {'params': encoder},
    'proxies': {},
    'added': arm.added.init(added, program.dim, values),
  }
  if arm.base.proxies:
    made = losses.init_class_proxies(proxies, program.num_classes, program.dim)
    params['proxies'] = {'proxies': made}
  opt_state = _optimizer(program, values).init(params)
  return State(params, opt_state, jnp.int32(0), variables, None)


@functools.partial(jax.jit, static_argnums=0, donate_argnums=1)
def _steps(program, state, key, x, inputs, labels, values, context):
  """Some steps on features, or one of a network: (state, mean loss).

  Args:
    program: what it is compiled for.
    state: `State`.
    key: of the run.
    x: features or tokens of all images; None for a network.
    inputs: rows of x `[steps, b]`, or images `[1, b, H, W, 3]`.
    labels: `[steps, b]`.
    values: hyperparameters that are not static, and 'steps'.
    context: what the added loss is told.
  """
  values = {**values, **dict(program.static)}
  optimizer = _optimizer(program, values)

  def step(state, batch):
    inputs, labels = batch
    now = jax.random.fold_in(key, state.count + 1)
    seen = inputs if x is None else blocks.take(x, inputs)
    told = Step(context, state.carried, state.count)
    (loss, (z, stats)), grads = jax.value_and_grad(_loss, has_aux=True)(
      state.params, program, now, seen, labels, values, state.stats, told
    )
    updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
    params = optax.apply_updates(state.params, updates)
    carried = arms.arm(program.arm).added.carried
    if carried is not None:
      told = told._replace(embed=_embedding(program, state.stats, seen))
      told, params = _advanced(program, now, z, labels, params, values, told)
    new = State(params, opt_state, state.count + 1, stats, told.state)
    return new, loss

  if program.backbone is not None:
    # Inside a loop XLA's convolutions take 40 times as long on a CPU.
    return step(state, (inputs[0], labels[0]))
  state, found = lax.scan(step, state, (inputs, labels))
  return state, jnp.mean(found)


def _advanced(program, key, z, labels, params, values, told):
  """What is carried, and the parameters, after a step of the optimizer."""
  added = arms.arm(program.arm).added
  # Beyond all keys that the loss may split off.
  key = jax.random.fold_in(key, _ADVANCE)
  state, params = added.carried.advance(
    key, lax.stop_gradient(z), labels, params, values, added.c, told
  )
  return told._replace(state=state), params


def _embedding(program, stats, x):
  """Parameters of head and network -> their embeddings of x."""
  return lambda head: _encode(program, head, stats, x)[0]


def _loss(params, program, key, x, labels, values, stats, told):
  """The loss, (embeddings, the network's new statistics)."""
  arm = arms.arm(program.arm)
  c = arm.added.c
  z, new_stats = _encode(program, params['head'], stats, x)
  proxies = params['proxies'].get('proxies')
  loss = arm.base.loss(z, labels, proxies, values, c)
  if arm.added.loss is not None:
    still = lax.stop_gradient(proxies)
    base = lambda z: arm.base.loss(z, labels, still, values, c)
    told = told._replace(
      class_proxies=proxies, base=base, embed=_embedding(program, stats, x)
    )
    loss += arm.added.loss(key, z, labels, params['added'], values, c, told)
  return loss, (z, new_stats)


@functools.partial(jax.jit, static_argnums=0)
def _embed(program, head, stats, x):
  return _model(program).apply({**head, **stats}, x)
