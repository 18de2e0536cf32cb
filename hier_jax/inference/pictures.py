"""Pictures of what files of embeddings and indexes name."""

import os
import pathlib
from collections.abc import Callable, Mapping
from typing import Any

from PIL import Image

from hier_jax import paths
from hier_jax.data import builders, cache, datasets, transforms
from hier_jax.errors import UserError, plain

__all__ = ['open_image', 'opener', 'split_of']


def opener(
  about: Mapping[str, Any],
  *,
  images: str | os.PathLike | None = None,
  data_dir: str | os.PathLike | None = None,
) -> Callable[[str], Image.Image] | None:
  """What opens the picture of an id; None where none are known.

  Args:
    about: what a file says of itself, see `sources.Source`.
    images: the folder that ids are paths in; None for the one that is named.
    data_dir: where prepared data sets lie; None for the place that is named.

  Returns:
    A function that raises UserError for what cannot be read.
  """
  root = images if images is not None else about.get('root')
  if root is None and (split := split_of(about, data_dir)) is not None:
    decoded = cache.Decoded(split)
    return lambda name: decoded.image(int(name.rpartition('/')[2]))
  if not isinstance(root, str | os.PathLike):
    return None
  folder = paths.as_local(root, 'the folder of images')
  return lambda name: open_image(folder / name)


def split_of(
  about: Mapping[str, Any], data_dir: str | os.PathLike | None = None
) -> datasets.Split | None:
  """The split that a file is of, where it is of one and that is there."""
  data = about.get('data')
  if not isinstance(data, str):
    return None
  name, _, split = data.rpartition(':')
  place = data_dir or about.get('data_dir')
  try:
    # A bundled one is not written where a stranger's file says.
    if place is not None and not builders.place(name, place).exists():
      return None
    return datasets.load(name, data_dir=place).get(split)
  except (TypeError, UserError):
    # What a stranger's file names need not be here: then it has no pictures.
    return None


def open_image(path: pathlib.Path) -> Image.Image:
  """A picture as RGB.

  Raises:
    UserError: it is not there or cannot be read.
  """
  name = plain(str(path))
  try:
    data = path.read_bytes()
  # ValueError: a name with a zero byte.
  except (OSError, ValueError) as error:
    why = getattr(error, 'strerror', None) or error
    raise UserError(
      f'{name} cannot be opened ({why}): if the images were moved, name their'
      ' folder'
    ) from error
  return transforms.decode(data, name)
