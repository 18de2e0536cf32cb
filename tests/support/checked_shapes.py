"""Calls public functions with jaxtyping's import hook, in a process of its own.

`main` prints a JSON object, name of a call -> its error or None: 'right' are
calls as annotated, 'wrong' calls with another shape. JAX computes shapes alone.
"""

import functools
import json

import beartype
import jax
import jaxtyping
import numpy as np

ROOMS = ('evaluation', 'layers', 'lorentz', 'losses', 'mining', 'models')
ROOMS += ('poincare',)
# An integer is a float too, as type checkers have it (PEP 484).
check = beartype.beartype(conf=beartype.BeartypeConf(is_pep484_tower=True))


def calls_of_evaluation():
  """Calls of `hier_jax.evaluation`, which has its arrays from NumPy."""
  from hier_jax import evaluation

  rng = np.random.default_rng(0)
  x, y = rng.uniform(0, 0.5, (2, 6, 3))
  labels, other = np.repeat(np.arange(3), 2), np.tile(np.arange(3), 2)
  parent = np.array([6, 6, 7, 7, 8, 8, 9, 9, 9, -1])
  values = evaluation.per_query(x, labels).values()['map@r']
  levels = np.array([['x', 'a'], ['x', 'b'], ['y', 'c']])
  taxonomy = evaluation.Taxonomy.from_levels(levels)
  images = np.zeros((2, 16, 16, 3), np.uint8)
  against = {'gallery': y[:5], 'gallery_labels': other[:5]}
  return {
    'bootstrap_ci': lambda: evaluation.bootstrap_ci(values, clusters=labels),
    'class_centroids': lambda: evaluation.class_centroids(x, labels, c=1.0),
    'cluster_metrics': lambda: evaluation.cluster_metrics(x, labels),
    'cut_tree': lambda: evaluation.cut_tree(parent, depth=1),
    'dendrogram_purity': lambda: evaluation.dendrogram_purity(parent, labels),
    'hierarchy_metrics': lambda: evaluation.hierarchy_metrics(
      x, labels, taxonomy, **against
    ),
    'lift': lambda: evaluation.lift(x, y[:4], c=1.0),
    'linkage_tree': lambda: evaluation.linkage_tree(x, c=0),
    'paired_test': lambda: evaluation.paired_test(values, values + 1),
    'per_query': lambda: evaluation.per_query(x, labels, **against),
    'pixel_embedding': lambda: evaluation.pixel_embedding(images),
    'proxy_tree': lambda: evaluation.proxy_tree(x, y[:2], c=1.0),
    'retrieval_metrics': lambda: evaluation.retrieval_metrics(
      x, labels, **against
    ),
  }


def calls_of_models():
  """Both kinds of backbones in an embedder, and what else takes arrays."""
  from hier_jax import models

  key, images = jax.random.key(0), np.zeros((2, 16, 16, 3), np.uint8)
  options = {'return_intermediates': True}

  def embed(name, images):
    embedder = models.create(name, image_size=16, embedding_dim=8)
    variables = embedder.init(key, images)
    backbone = models.create_backbone(name, image_size=16)
    floats = images.astype('float32')
    backbone.init(key, floats, train=False, **options)
    return embedder.apply(variables, images)

  names = 'resnet_test', 'vit_test_patch4'
  calls = {name: (functools.partial(embed, name), (images,)) for name in names}
  resize = lambda old: models.resize_pos_embed(old, 1, (4, 4), (6, 6))
  return calls | {'resize_pos_embed': (resize, (np.ones((1, 17, 8)),))}


def wrong_calls():
  """A call a room, of a shape that its annotations refuse."""
  from hier_jax import (
    evaluation,
    layers,
    lorentz,
    losses,
    mining,
    models,
    poincare,
  )

  x, labels = np.ones((4, 3), np.float32), np.zeros(3, int)
  head, embedder = (
    layers.BallHead(2),
    models.create('resnet_test', image_size=8),
  )
  images = jax.numpy.zeros((8, 8, 3), 'uint8')
  return {
    'evaluation': lambda: evaluation.per_query(x, labels),
    'models': lambda: embedder.init(jax.random.key(0), images),
    'layers': lambda: head.init(jax.random.key(0), x, learned_c=x[0]),
    'lorentz': lambda: lorentz.inner(x, x[:3]),
    'losses': lambda: losses.triplet(x, labels),
    'mining': lambda: mining.reciprocal_neighbors(jax.numpy.ones(4), 1),
    'poincare': lambda: poincare.clip_norm(x[0, 0], 1.0),
  }


def error_of(call):
  """The name and text of what a call raises, or None."""
  try:
    call()
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
    calls |= calls_of_models()
    calls = {
      name: functools.partial(jax.eval_shape, f, *args)
      for name, (f, args) in calls.items()
    } | calls_of_evaluation()
    right = {name: error_of(call) for name, call in calls.items()}
    wrong = {name: error_of(call) for name, call in wrong_calls().items()}
  print(json.dumps({'right': right, 'wrong': wrong}))
