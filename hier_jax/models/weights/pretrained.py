"""Pretrained weights: into a backbone, into our files, and back to PyTorch."""

import contextlib
import os
import pathlib
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

import flax.linen as nn
import numpy as np
from flax import traverse_util

from hier_jax import paths
from hier_jax.errors import UserError, plain
from hier_jax.models import embedder, registry, resnet
from hier_jax.models.weights import files, fitting, hub, layouts
from hier_jax.models.weights.fitting import Loaded

__all__ = [
  'Loaded',
  'convert',
  'export',
  'identify',
  'is_file',
  'load',
  'local',
  'save',
]

_FORMAT, _VERSION = 'hier_jax', 1
_SUFFIXES = '.safetensors', '.npz', '.pth', '.pt', '.bin', '.tar'


def load(
  source: str | os.PathLike[str],
  model: nn.Module,
  *,
  cache_dir: str | pathlib.Path | None = None,
) -> Loaded:
  """Reads a backbone's weights.

  Args:
    source: the path of a file (see `weight_files.read`) in one of
      `layouts.LAYOUTS`; a backbone's name or alias, for the weights published
      under it; or a repository of the Hugging Face hub,
      'timm/vit_small_patch16_224.dino'.
    model: a `ViT` or `ResNet`, or an `Embedder` over one. A ViT's position
      embeddings are resized to its own `image_size`.
    cache_dir: of the hub, see `hub.download`.

  Returns:
    The backbone's variables, and what was left out or resized.

  Raises:
    UserError: the file cannot be fetched or read, has no known layout, has
      arrays that do not match the model (the message counts all that differ),
      or the source names published weights that expect other pixels than the
      model.
  """
  path, named = _resolve(source, cache_dir)
  backbone = model.backbone if isinstance(model, embedder.Embedder) else model
  with local(path) as file:
    weights, layout, told = _open(file)
    loaded = fitting.fit(weights, layout, backbone, path)
  loaded = loaded._replace(architecture=told or named)
  _check_pixels(loaded.architecture, model, path)
  return loaded


def is_file(source: str | os.PathLike[str]) -> bool:
  """Whether a source of `load` is a file, not weights published under a name.

  Raises:
    UserError: it is neither, or published weights need a package that is
      missing.
  """
  found = _find(source)
  if isinstance(found, _Published):
    hub.check_installed(found.repository)
    return False
  return True


def save(
  path: str | os.PathLike[str],
  variables: Mapping[str, Any],
  *,
  architecture: str,
  about: Mapping[str, str] | None = None,
) -> None:
  """Writes variables under our own paths, as .safetensors.

  Args:
    path: of the .safetensors to write.
    variables: of a backbone or of an `Embedder`.
    architecture: the backbone's name, which the file then tells.
    about: what else its metadata say, text by name.

  Raises:
    UserError: there is no such backbone, or the path cannot be written or has
      another suffix.
  """
  told = {**(about or {}), 'format': _FORMAT}
  _write(path, _flat(variables), architecture, **told)


def export(
  path: str | os.PathLike[str],
  variables: Mapping[str, Any],
  *,
  architecture: str,
) -> None:
  """Writes variables under timm's names, as .safetensors for PyTorch.

  timm's (and torchvision's) model without classifier takes them with
  `load_state_dict`. These models have no embedding head; its layers are
  `head.proj.weight` and `head.proj.bias`.

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
  source: str | os.PathLike[str],
  target: str | os.PathLike[str],
  *,
  architecture: str | None = None,
  timm: bool = False,
  cache_dir: str | pathlib.Path | None = None,
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
    UserError: as `load` and `save`, `target` is the source, or several
      backbones have such arrays.
  """
  path, named = _resolve(source, cache_dir)
  _check_target(target, inputs=[path])
  name, _, loaded = _identified(path, architecture or named)
  write = export if timm else save
  write(target, loaded.variables, architecture=name)
  return name, loaded


def identify(
  source: str | os.PathLike[str],
  *,
  architecture: str | None = None,
  image_size: int | None = None,
  cache_dir: str | pathlib.Path | None = None,
) -> tuple[str, nn.Module, Loaded]:
  """Reads weights of any layout, and makes the backbone they belong to.

  Args:
    source: as `load`'s.
    architecture: the backbone's name; None where the source tells.
    image_size: side of the images in pixels, to which a ViT's position
      embeddings are resized; None keeps their size.
    cache_dir: of the hub, see `hub.download`.

  Returns:
    The backbone's name, the backbone, and the weights as `load` returns them.

  Raises:
    UserError: as `load`, or several backbones have such arrays.
  """
  path, named = _resolve(source, cache_dir)
  with local(path) as file:
    return _identified(file, architecture or named, image_size, path)


def _identified(
  file: pathlib.Path,
  name: str | None,
  image_size: int | None = None,
  path: pathlib.Path | None = None,
) -> tuple[str, nn.Module, Loaded]:
  """What `identify` returns of a file, which messages call `path`."""
  path = file if path is None else path
  weights, layout, told = _open(file)
  size = fitting.image_size(weights, layout)
  name = name or told or _guess(weights, layout, size, path)[0]
  model = registry.create_backbone(name, image_size=image_size or size)
  loaded = fitting.fit(weights, layout, model, path)
  return name, model, loaded


def _resolve(
  source: str | os.PathLike[str], cache_dir: str | pathlib.Path | None
) -> tuple[pathlib.Path, str | None]:
  """The file of a source, and the backbone's name where it is given by that."""
  found = _find(source)
  if isinstance(found, _Published):
    return hub.download(found.repository, cache_dir=cache_dir), found.name
  return found, None


class _Published(NamedTuple):
  """A repository of weights, and the backbone's name where the user gave it."""

  repository: str
  name: str | None


def _find(source: str | os.PathLike[str]) -> pathlib.Path | _Published:
  """The path of a source that is a file, else its repository and name."""
  path = paths.as_path(source)
  file = isinstance(source, os.PathLike) or path.suffix in _SUFFIXES
  if file or path.exists():
    return path
  source = os.fspath(source)
  try:
    spec = registry.spec(path.name)
  except UserError as error:
    if path.name == source:
      raise UserError(f'{source} is no file, and {error}') from None
    if path.parent.is_dir():
      # A file of that folder is meant, and no repository.
      raise UserError(f'there is no file {source}: check its name') from None
    return _Published(source, None)
  repository = spec.hub if path.name == source else source
  if repository is None:
    raise UserError(
      f'there are no published weights of {source}: give the path of a file'
    )
  return _Published(repository, path.name)


@contextlib.contextmanager
def local(path: pathlib.Path) -> Iterator[pathlib.Path]:
  """The file where it is local, else a copy that is there for the block."""
  if not paths.is_remote(path):
    yield path
    return
  with tempfile.TemporaryDirectory() as folder:
    copy = pathlib.Path(folder) / path.name
    try:
      copy.write_bytes(path.read_bytes())
    # An object store's library raises errors of its own kinds.
    except Exception as error:
      raise UserError(
        f'{path} cannot be read ({type(error).__name__}:'
        f' {plain(str(error))}): check its name and your access to it'
      ) from error
    yield copy


def _check_pixels(
  architecture: str | None, model: nn.Module, path: pathlib.Path
) -> None:
  """That a model is given the pixels that published weights were made for."""
  try:
    weights = registry.spec(architecture or '')
  except UserError:
    return
  # Of its mean and deviation; of weights of one's own, no name tells them.
  made_for: embedder.Embedder | registry.Spec | None
  if isinstance(model, embedder.Embedder):
    made_for = model
  else:
    made_for = registry.spec(model.made_as) if model.made_as else None
  if weights.tag is None or made_for is None:
    return
  theirs, ours = (
    [[float(x) for x in values] for values in (of.mean, of.std)]
    for of in (weights, made_for)
  )
  if theirs != ours:
    raise UserError(
      f'{path} has weights of {architecture}, which expect pixels of mean'
      f' {theirs[0]} and std {theirs[1]}, but the model is made for mean'
      f' {ours[0]} and std {ours[1]}. Take {architecture!r} for the backbone,'
      ' or an embedder (config.model) with that mean and std'
    )


def _open(
  path: pathlib.Path,
) -> tuple[Mapping[str, np.ndarray], layouts.Layout, str | None]:
  """Arrays, their layout, and the backbone's name if the file tells it."""
  told = files.metadata(path)
  version = told.get('version', '')
  if told.get('format') == _FORMAT and version != str(_VERSION):
    raise UserError(
      f'{path} is of version {version!r} of our format, but this program knows'
      f' version {_VERSION}: upgrade hier_jax'
    )
  weights = files.read(path)
  return weights, fitting.detect(weights, path), told.get('architecture')


def _guess(
  weights: Mapping[str, np.ndarray],
  layout: layouts.Layout,
  size: int | None,
  path: pathlib.Path,
) -> tuple[str, Loaded]:
  """The one backbone whose arrays a file holds, and its weights."""
  fits = {}
  for name in dict.fromkeys([*registry.PUBLISHED, *resnet.VARIANTS]):
    model = registry.create_backbone(name, image_size=size)
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


def _flat(variables: Mapping[str, Any]) -> dict[str, np.ndarray]:
  flat = traverse_util.flatten_dict(dict(variables), sep='/')
  return {target: np.asarray(array) for target, array in flat.items()}


def _head(target: str) -> layouts.Row | None:
  """The row of a parameter of an embedder's head."""
  prefix = 'params/head/'
  if not target.startswith(prefix):
    return None
  rest = target.removeprefix(prefix)
  if rest == 'linear/kernel':
    return layouts.Row(target, ('head.proj.weight',), layouts.LINEAR)
  name = rest.replace('linear/', 'proj/').replace('/', '.')
  return layouts.Row(target, (f'head.{name}',))


def _fold_class_position(
  arrays: dict[str, np.ndarray],
) -> dict[str, np.ndarray]:
  """Moves the class token's position into it, as timm has it with registers."""
  names = {layouts.OURS.bare(target): target for target in arrays}
  if 'params/reg_token' not in names:
    return arrays
  token, position = names['params/cls_token'], names['params/pos_embed']
  first, rest = np.split(arrays[position], [1], axis=1)
  return arrays | {token: arrays[token] + first, position: rest}


def _check_target(
  path: str | os.PathLike[str], inputs: Iterable[str | os.PathLike[str]] = ()
) -> None:
  """Raises UserError where no weights can be written."""
  paths.check_output(path, inputs=inputs, suffixes=['.safetensors'])


def _write(
  path: str | os.PathLike[str],
  arrays: Mapping[str, np.ndarray],
  architecture: str,
  **metadata: str,
) -> None:
  _check_target(path)
  registry.spec(architecture)
  version = {'version': str(_VERSION), 'architecture': architecture}
  files.write(path, arrays, metadata | version)
