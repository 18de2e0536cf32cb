"""Our own layout: what `hier-jax embed` and its sisters open again."""

import pathlib
from collections.abc import Mapping
from typing import Any

from hier_jax.inference import model as model_lib
from hier_jax.inference import stored_model
from hier_jax.inference.export import portable
from hier_jax.inference.export.portable import Usage
from hier_jax.inference.model import Model
from hier_jax.models.weights import pretrained

__all__ = ['check', 'write']

_FILE = 'model.safetensors'

_SNIPPET = """\
from hier_jax.inference import model

embed = model.open_model('{file}'{options}).embed
# uint8 [b, {size}, {size}, 3] -> [b, {dim}]; b is a multiple of the devices
"""


def check() -> None:
  """All that it needs is installed with hier_jax."""


def write(
  model: Model, facts: Mapping[str, Any], folder: pathlib.Path
) -> Usage:
  """Writes the weights, and of a run its head, proxies and settings."""
  path, size = folder / _FILE, facts['image_size']
  if model.settings is None:
    # A pretrained backbone: a file of weights tells all but the image size.
    pretrained.save(path, model.variables, architecture=facts['backbone'])
    again = model_lib.open_model(path, image_size=size)
    options, flags = f', image_size={size}', f' --image_size {size}'
  else:
    stored_model.write(
      path,
      stored_model.Stored(
        dict(model.settings),
        model.variables,
        model.view,
        model.proxies,
        facts['title'],
      ),
    )
    again, options, flags = model_lib.open_model(path), '', ''
  return Usage(
    (_FILE,),
    'hier_jax',
    _SNIPPET.format(file=_FILE, options=options, size=size, dim=facts['dim']),
    portable.max_error(model, again.embed),
    (
      'A folder of images is embedded, and searched, by'
      f' `hier-jax embed {_FILE} photos/{flags}` and'
      f' `hier-jax search {_FILE} cat.jpg --gallery photos/{flags}`.',
      'The backbone is taken for another run by'
      f' `hier-jax train --config.pretrained={_FILE}`.',
    ),
  )
