"""One process of a small run: `python -m tests.support.process_child DIR`.

The environment says which process it is. It prints a line a step.
"""

import argparse
import hashlib
import os
import sys
import threading
import time

# With fewer threads than devices the collectives of fake devices deadlock.
os.environ.setdefault('NPROC', '64')

import flax.struct
import jax
import numpy as np

from hier_jax.errors import UserError
from hier_jax.training.distributed import mapping, preemption, processes
from hier_jax.training.run.checkpoint import Checkpoints

BATCH = 16


def vit():
  """State at step 0 and per-device functions of a tiny ViT with HIER."""
  # Takes as long as all other imports, and most children have no use for it.
  from hier_jax import models
  from hier_jax.training.step import state as state_lib
  from hier_jax.training.step import train_step as step_lib
  from tests.support import training_data

  config = training_data.config(**{'optim.lr': 1e-3})
  model = models.create(**config.model.to_dict(), axis_name=mapping.AXIS)
  optimizer = training_data.optimizer(config)
  state = state_lib.create(config, model, optimizer, num_classes=16)
  step = step_lib.make_train_step(config, model, optimizer)
  return jax.device_get(state), step, step_lib.make_embed(model)


@flax.struct.dataclass
class Sum:
  """A state that is compiled in no time."""

  step: jax.Array
  mean: jax.Array


def toy():
  """The same of a sum over the images so far."""

  def step(state, batch):
    mean = jax.lax.pmean(batch['image'].mean((0, 1, 2)), mapping.AXIS)
    new = Sum(state.step + 1, state.mean + mean)
    return new, {'loss': new.mean.sum()}

  state = Sum(np.zeros((), np.int32), np.zeros(3, np.float32))
  return (
    state,
    step,
    lambda state, images: images.mean((1, 2)) - state.mean[None],
  )


def batch(step):
  """The whole batch of a step."""
  rng = np.random.default_rng(step)
  return {
    'image': rng.integers(0, 256, (BATCH, 8, 8, 3)).astype(np.uint8),
    'label': rng.permutation(16)[:8].repeat(2).astype(np.int32),
  }


def local(rows):
  """This process's rows of a whole batch."""
  part = len(rows) // jax.process_count()
  return rows[jax.process_index() * part :][:part]


def batches(steps):
  for step in steps:
    yield {k: local(rows) for k, rows in batch(step).items()}


def say(*words):
  """A line of its own, whatever libraries print in the midst of theirs."""
  line = ' '.join(map(str, words))
  os.write(sys.stdout.fileno(), f'\n{line}\n'.encode())


def leaves(tree):
  return jax.tree.leaves(jax.device_get(tree))


def digest(tree):
  """What tells any bit of a tree of arrays, and their order."""
  found = hashlib.sha256()
  for leaf in leaves(tree):
    found.update(np.ascontiguousarray(leaf).tobytes())
  return found.hexdigest()


def train(args, made, workdir, by='pmap', devices=None):
  """Steps, a save after each `save_every`, batches, and what became of all."""
  state, step, embed = made
  mapped = {'by': by, 'devices': devices}
  step = mapping.map_step(step, **mapped)
  with (
    preemption.Preemption() as preempted,
    Checkpoints(workdir, keep=3) as checkpoints,
  ):
    processes.agree({'config.seed': args.seed})
    if checkpoints.latest_step is not None:
      state = checkpoints.restore(state)
    start, last = int(state.step), args.steps
    say('start', start)
    for rows in mapping.prefetch(batches(range(start, last)), devices=devices):
      state, metrics = step(state, rows)
      done = int(state.step)
      say('step', done, metrics['loss'].item().hex())
      time.sleep(args.sleep)
      stop = preempted.reached()
      if stop or done % args.save_every == 0:
        checkpoints.save(done, state)
      if [done, jax.process_index()] == args.fail:
        raise UserError('no space left for step 3')
      if stop:
        break
    embed = mapping.map_embed(embed, **mapped)
    variables = state.eval_variables if args.vit else state
    for i in range(args.batches):
      if i and preempted.reached():
        break
      images = local(batch(i)['image'])
      rows = mapping.gather_rows(embed(variables, images))
      say('batch', i)
      time.sleep(args.sleep)
  say('state', digest(state), digest(rows))


def parsed(*args):
  """What the arguments of the command line say."""
  parser = argparse.ArgumentParser()
  parser.add_argument(
    'workdir', nargs='+', help='a run each, by `mapping.MAPS`'
  )
  parser.add_argument('--vit', action='store_true')
  parser.add_argument('--steps', type=int, default=3)
  parser.add_argument('--save_every', type=int, default=3)
  parser.add_argument('--batches', type=int, default=1, help='to embed')
  parser.add_argument('--sleep', type=float, default=0)
  parser.add_argument('--seed', default='0')
  parser.add_argument('--fail', type=int, nargs=2, help='step and process')
  return parser.parse_args(list(map(str, args)))


def main():
  args = parsed(*sys.argv[1:])
  jax.config.update('jax_num_cpu_devices', 2)
  try:
    with processes.joined(args.workdir[0]):
      made = vit() if args.vit else toy()
      for workdir, by in zip(args.workdir, mapping.MAPS, strict=False):
        train(args, made, workdir, by)
    say('threads', *sorted(t.name for t in threading.enumerate()))
  except UserError as error:
    print(f'hier-jax: error: {error}', file=sys.stderr)
    return 2
  return 0


if __name__ == '__main__':
  sys.exit(main())
