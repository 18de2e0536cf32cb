"""A data set in memory and a config that trains on it in seconds."""

import io

import numpy as np
from PIL import Image

from hier_jax import models
from hier_jax.data.datasets import Split
from hier_jax.training.config.default import default_config
from hier_jax.training.distributed import mapping
from hier_jax.training.run.inputs import Inputs
from hier_jax.training.step import optim
from hier_jax.training.step import state as state_lib
from hier_jax.training.step import train_step as step_lib


def _png(rng, color, noise):
  noise = rng.integers(-noise, noise, (8, 8, 3))
  pixels = np.clip(color + noise, 0, 255).astype(np.uint8)
  file = io.BytesIO()
  Image.fromarray(pixels).save(file, 'PNG')
  return {'image': file.getvalue()}


def splits(classes=16, per_class=3, noise=40):
  """Classes are colors, of four kinds; train and test have their own."""
  rng = np.random.default_rng(0)
  made = {}
  for number, name in enumerate(('train', 'test')):
    colors = rng.integers(0, 256, (classes, 3))
    labels = np.arange(classes).repeat(per_class).astype(np.int32)
    records = [_png(rng, colors[label], noise) for label in labels]
    made[name] = Split(
      f'colors:{name}',
      records,
      labels,
      {'kind': labels.astype(np.int64) % 4},
      {
        'label': [f'{name} color {k}' for k in range(classes)],
        'kind': ['dark', 'light', 'warm', 'cold'],
      },
      ('kind',),
      number * classes + np.arange(classes),
    )
  return made


def config(**overrides):
  """A tiny ViT, 16 images a step, 3 steps an epoch."""
  made = default_config()
  made.model.update(
    backbone='vit_test_patch4', image_size=8, dtype='float32', embedding_dim=16
  )
  made.loss.num_proxies = 24
  made.loss.hier.update(k=6, triplets_per_anchor=5)
  made.optim.update(lr=1e-2, warmup_epochs=0)
  made.optim.scales.class_proxies = 10.0
  made.data.update(batch_size=16, num_threads=1)
  made.data.train_view.update(flip=0.0)
  made.eval.update(batch_size=16, every_epochs=2, pixels=False)
  made.update(epochs=4, log_every=1)
  made.update_from_flattened_dict(overrides)
  return made


def optimizer(made, steps_per_epoch=3):
  """That of a config."""
  return optim.optimizer(
    made.optim,
    batch_size=made.data.batch_size,
    steps_per_epoch=steps_per_epoch,
    epochs=made.epochs,
  )


def inputs(made, split):
  """Those of a config that trains on a split."""
  size = made.model.image_size
  return Inputs(made.data, split, seed=made.seed, image_size=size)


def made_step(**overrides):
  """Config, per-device step and first state, and a batch of 16 images."""
  chosen = config(**overrides)
  model = models.create(**chosen.model.to_dict(), axis_name=mapping.AXIS)
  made = optimizer(chosen)
  state = state_lib.create(chosen, model, made, num_classes=16)
  rng = np.random.default_rng(0)
  batch = {
    'image': rng.integers(0, 256, (16, 8, 8, 3)).astype(np.uint8),
    'label': rng.permutation(16)[:8].repeat(2).astype(np.int32),
  }
  return chosen, step_lib.make_train_step(chosen, model, made), state, batch
