"""A run's model in one .safetensors: weights, head, proxies and settings.

A backbone's weights under the same names are what `pretrained.load` takes of
it, so that it is a file of pretrained weights too.
"""

import json
import os
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import traverse_util

from hier_jax import paths
from hier_jax.data.transforms import EvalView
from hier_jax.errors import UserError, listed, plain
from hier_jax.models.weights import files, pretrained
from hier_jax.training.run import plan

__all__ = ['Stored', 'read', 'write']

# The name in the file's metadata, and that of the array.
_KEY, _PROXIES = 'embedder', 'hier_proxies'


class Stored(NamedTuple):
  """What such a file holds.

  Attributes:
    settings: the run's config.model.
    variables: of the `models.Embedder` that they make.
    view: the view of an image that it is evaluated on.
    proxies: hierarchical proxies `[P, d]`, points of the ball, or None.
    title: what the model is called.
  """

  settings: dict[str, Any]
  variables: Any
  view: EvalView
  proxies: np.ndarray | None
  title: str


def write(path: str | os.PathLike[str], stored: Stored) -> None:
  """Writes a model.

  Args:
    path: of the .safetensors.
    stored: the model.

  Raises:
    UserError: the path cannot be written.
  """
  told = {
    'settings': stored.settings,
    'resize': stored.view.resize,
    'title': stored.title,
  }
  variables = dict(stored.variables)
  if stored.proxies is not None:
    variables[_PROXIES] = stored.proxies
  pretrained.save(
    path,
    variables,
    architecture=stored.settings['backbone'],
    about={_KEY: json.dumps(told)},
  )


def read(path: str | os.PathLike[str]) -> Stored | None:
  """Reads a model; None where a path is not such a file.

  Raises:
    UserError: it is one, but damaged.
  """
  path = paths.as_path(path)
  if path.suffix != '.safetensors' or not path.exists():
    return None
  with pretrained.local(path) as file:
    told = files.metadata(file).get(_KEY)
    if told is None:
      return None
    arrays = dict(files.read(file))
  try:
    return _stored(json.loads(told), arrays)
  # A file from elsewhere may say anything.
  except (AttributeError, KeyError, RecursionError, TypeError, ValueError) as e:
    raise UserError(
      f'{path} is damaged, or of another version of hier_jax'
      f' ({plain(str(e)) or type(e).__name__}): export the run again'
    ) from e


def _stored(told: Mapping[str, Any], arrays: dict[str, np.ndarray]) -> Stored:
  settings = dict(told['settings'])
  view = EvalView(settings['image_size'], told['resize'])
  proxies = arrays.pop(_PROXIES, None)
  wanted = _shapes(settings)
  wrong = [
    name
    for name in {**wanted, **arrays}
    if name not in arrays or wanted.get(name) != arrays[name].shape
  ]
  if wrong:
    raise ValueError(f'its arrays are not those of its model: {listed(wrong)}')
  variables = {
    tuple(name.split('/')): jnp.asarray(array) for name, array in arrays.items()
  }
  return Stored(
    settings,
    traverse_util.unflatten_dict(variables),
    view,
    proxies,
    str(told['title']),
  )


def _shapes(settings: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
  """Shapes of a model's variables by their paths; nothing is drawn."""
  module = plan.create_model(settings)
  size = settings['image_size']
  images = jax.ShapeDtypeStruct((1, size, size, 3), jnp.uint8)
  shapes = jax.eval_shape(module.init, jax.random.key(0), images)
  flat = traverse_util.flatten_dict(shapes, sep='/')
  return {name: leaf.shape for name, leaf in flat.items()}
