"""Collections of planted items, for what shows them."""

import functools
import types

import numpy as np
from PIL import Image

from hier_jax.evaluation.collection import Collection
from hier_jax.evaluation.taxonomy import Taxonomy
from tests.support import planted_trees


def color(i):
  """The one color of an item's picture, apart from the others'."""
  return tuple(int(x) for x in np.random.default_rng(i).integers(30, 226, 3))


def picture(i, side=40):
  return Image.new('RGB', (side, side), color(i))


def planted(images=8, names=None, **others):
  """Items about the leaves of a planted tree, with its inner nodes as proxies.

  The leaves are the classes; `names` takes the place of what they are called.
  """
  leaves, inner, _ = planted_trees.plant(planted_trees.PLANTED, step=1.6)
  draw = np.random.default_rng(0)
  labels = np.repeat(np.arange(len(leaves)), images)
  rows = leaves[labels] + draw.normal(0, 1e-3, size=(len(labels), 2))
  names = names or [f'class {i}' for i in range(len(leaves))]
  levels = [[f'group {i % 3}'] for i in range(len(leaves))]
  made = {
    'embeddings': rows * 0.999,
    'c': 1.0,
    'ids': tuple(f'folder {i % 4}/{i}.png' for i in range(len(labels))),
    'labels': labels,
    'classes': tuple(names),
    'taxonomy': Taxonomy.from_levels(levels, names, ['group', 'class']),
    'proxies': inner,
    'image': picture,
    'title': 'Planted images',
    'info': {'model': 'none'},
    'metrics': {'recall@1': 0.5},
  }
  made |= others
  if made['labels'] is None:
    made |= {'classes': None, 'taxonomy': None}
  return Collection(**made)


def scattered(n, *, c=1.0, dimensions=3, seed=0):
  """n items without labels; 0 too, which no `Collection` holds."""
  draw = np.random.default_rng(seed)
  rows = planted_trees.in_ball(draw, n, dimensions, c or 1.0)
  image = functools.partial(picture, side=8)
  if n:
    return Collection(rows, c, tuple(map(str, range(n))), image=image)
  one = scattered(1, c=c, dimensions=dimensions)
  fields = vars(one) | {'embeddings': rows, 'ids': ()}
  return types.SimpleNamespace(**fields)
