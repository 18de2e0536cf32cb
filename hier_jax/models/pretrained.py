"""Pretrained weights: into a backbone, into our files, and back to PyTorch."""

import os
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import numpy as np
from flax import traverse_util

from hier_jax import paths
from hier_jax.errors import UserError
from hier_jax.models import (
  fitting,
  hub,
  layouts,
  registry,
  resnet,
  weight_files,
)
from hier_jax.models.fitting import Loaded

__all__ = ['Loaded', 'convert', 'export', 'load', 'save']

_FORMAT, _VERSION = 'hier_jax', 1
_SUFFIXES = '.safetensors', '.npz', '.pth', '.pt', '.bin', '.tar'


def load(source, model: nn.Module, *, cache_dir=None) -> Loaded:
  """Reads a backbone's weights.

  Args:
    source: the path of a file (see `weight_files.read`) in one of
      `layouts.LAYOUTS`; a backbone's name or alias, for the weights published
      under it; or a repository of the Hugging Face hub,
      'timm/vit_small_patch16_224.dino'.
    model: a `ViT` or `ResNet`. A ViT's position embeddings are resized to its
      own `image_size`.
    cache_dir: of the hub, see `hub.download`.

  Returns:
    The variables to apply the model with, and what was left out or resized.

  Raises:
    UserError: the file cannot be had or read, is of no known layout, or its
      arrays are not those of the model; all that differ are counted.
  """
  path, _ = _resolve(source, cache_dir)
  weights, layout, _ = _open(path)
  return fitting.fit(weights, layout, model, path)


def save(path, variables: Mapping[str, Any], *, architecture: str) -> None:
  """Writes variables under our own paths, as .safetensors.

  Args:
    path: of the .safetensors to write.
    variables: of a backbone or of an `Embedder`.
    architecture: the backbone's name, which the file then tells.

  Raises:
    UserError: there is no such backbone, or the path cannot be written or has
      another suffix.
  """
  _write(path, _flat(variables), architecture, format=_FORMAT)


def export(path, variables: Mapping[str, Any], *, architecture: str) -> None:
  """Writes variables under timm's names, as .safetensors for PyTorch.

  timm's (and torchvision's) model without classifier takes them with
  `load_state_dict`. Of an embedder's head, which they do not have, the layers
  are `head.proj.weight` and `head.proj.bias`.

  Args:
    path: of the .safetensors to write.
    variables: of a backbone or of an `Embedder`.
    architecture: the backbone's name, which the file then tells.

  Raises:
    UserError: as `save`, or parameters have no name in timm.
  """
  arrays = {}
  unnamed = []
  for target, array in _fold_class_position(_flat(variables)).items():
    row = layouts.TIMM.row(layouts.OURS.bare(target)) or _head(target)
    if row is None:
      unnamed.append(target)
    else:
      arrays[row.sources[0]] = row.transform.save(array)
  if unnamed:
    raise UserError(
      f'{path} was not written: timm has no name for {", ".join(unnamed)};'
      ' expected the variables of a backbone or an embedder'
    )
  _write(path, arrays, architecture, format='pt')


def convert(
  source,
  target,
  *,
  architecture: str | None = None,
  timm: bool = False,
  cache_dir=None,
) -> tuple[str, Loaded]:
  """Reads weights of any layout and writes them in our format, or timm's.

  Args:
    source: as `load`'s.
    target: path of the .safetensors to write.
    architecture: the backbone's name; None where the source tells.
    timm: whether to write as `export` does, else as `save`.
    cache_dir: of the hub, see `hub.download`.

  Returns:
    The architecture, and the weights as `load` returns them.

  Raises:
    UserError: as `load` and `save`, `target` is the source, or more than one
      backbone has such arrays.
  """
  path, named = _resolve(source, cache_dir)
  _check_target(target, inputs=[path])
  weights, layout, told = _open(path)
  size = fitting.image_size(weights, layout)
  name = architecture or named or told
  if name is None:
    name, loaded = _guess(weights, layout, size, path)
  else:
    model = registry.create(name, image_size=size)
    loaded = fitting.fit(weights, layout, model, path)
  write = export if timm else save
  write(target, loaded.variables, architecture=name)
  return name, loaded


def _resolve(source, cache_dir):
  """The file of a source, and the backbone's name where it is given by that."""
  path = paths.as_path(source)
  file = isinstance(source, os.PathLike) or path.suffix in _SUFFIXES
  if file or path.exists():
    return path, None
  try:
    spec = registry.spec(path.name)
  except UserError as error:
    if path.name == source:
      raise UserError(f'{source} is no file, and {error}') from None
    return hub.download(source, cache_dir=cache_dir), None
  repository = spec.hub if path.name == source else source
  if repository is None:
    raise UserError(
      f'there are no published weights of {source}: give the path of a file'
    )
  return hub.download(repository, cache_dir=cache_dir), path.name


def _open(path):
  """Arrays, their layout, and the backbone's name if the file tells it."""
  told = weight_files.metadata(path)
  version = told.get('version', '')
  if told.get('format') == _FORMAT and version != str(_VERSION):
    raise UserError(
      f'{path} is of version {version!r} of our format, but this program knows'
      f' version {_VERSION}: upgrade hier_jax'
    )
  weights = weight_files.read(path)
  return weights, fitting.detect(weights, path), told.get('architecture')


def _guess(weights, layout, size, path):
  """The one backbone whose arrays a file holds, and its weights."""
  fits = {}
  for name in dict.fromkeys([*registry.PUBLISHED, *resnet.VARIANTS]):
    model = registry.create(name, image_size=size)
    try:
      if fitting.names_fit(weights, layout, model):
        fits[name] = fitting.fit(weights, layout, model, path)
    except UserError:
      continue
  if len(fits) != 1:
    raise UserError(
      f'{path} could be of {", ".join(fits) or "no backbone that is known"}:'
      ' say which it is (--architecture)'
    )
  return fits.popitem()


def _flat(variables):
  flat = traverse_util.flatten_dict(dict(variables), sep='/')
  return {target: np.asarray(array) for target, array in flat.items()}


def _head(target):
  """The row of a parameter of an embedder's head."""
  prefix = 'params/head/'
  if not target.startswith(prefix):
    return None
  rest = target.removeprefix(prefix)
  if rest == 'linear/kernel':
    return layouts.Row(target, ('head.proj.weight',), layouts.LINEAR)
  name = rest.replace('linear/', 'proj/').replace('/', '.')
  return layouts.Row(target, (f'head.{name}',))


def _fold_class_position(arrays):
  """Moves the class token's position into it, as timm has it with registers."""
  names = {layouts.OURS.bare(target): target for target in arrays}
  if 'params/reg_token' not in names:
    return arrays
  token, position = names['params/cls_token'], names['params/pos_embed']
  first, rest = np.split(arrays[position], [1], axis=1)
  return arrays | {token: arrays[token] + first, position: rest}


def _check_target(path, inputs=()):
  """Raises UserError where no weights can be written."""
  paths.check_output(path, inputs=inputs, suffixes=['.safetensors'])


def _write(path, arrays, architecture, **metadata):
  _check_target(path)
  registry.spec(architecture)
  version = {'version': str(_VERSION), 'architecture': architecture}
  weight_files.write(path, arrays, metadata | version)
