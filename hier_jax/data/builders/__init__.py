"""TFDS builders, one file a data set; what they share is in `base`.

A data set's name is that of its builder, and of one of its configs after a
slash: 'cub200', 'cub200/short256', 'emoji/subgroup', 'folder/birds'.
"""

import os
import pathlib

from hier_jax import paths
from hier_jax.data import transforms
from hier_jax.data.builders import (
  base,
  cars196,
  cub200,
  emoji,
  folder,
  inshop,
  sop,
)
from hier_jax.errors import UserError, shown

__all__ = ['create', 'is_bundled', 'license_of', 'place']

_BUILDERS: dict[str, type[base.ImageBuilder]] = {
  'emoji': emoji.Emoji,
  'cub200': cub200.Cub200,
  'cars196': cars196.Cars196,
  'sop': sop.Sop,
  'inshop': inshop.Inshop,
  'folder': folder.Folder,
}


def create(
  name: str,
  *,
  source: str | os.PathLike[str] | None,
  data_dir: str | os.PathLike[str] | None,
  max_megapixels: float = transforms.MAX_MEGAPIXELS,
) -> base.ImageBuilder:
  """Returns the builder of a data set, its lists read and checked.

  Args:
    name: the data set.
    source: the folder of the unpacked archives; None for bundled images.
    data_dir: where prepared data sets lie; TFDS's own place by default.
    max_megapixels: what an image may have.

  Raises:
    UserError: for an unknown name, for a source that is not as published or is
      given for bundled images, and for remote folders.
  """
  make, config = _parse(name)
  if source is not None and is_bundled(name):
    raise UserError(
      f'{name} comes with the package and takes no images from {source}: leave'
      ' --from out'
    )
  return make(
    manual_dir=source,
    config=config,
    data_dir=_root(data_dir),
    max_megapixels=max_megapixels,
  )


def place(name: str, data_dir: str | os.PathLike[str] | None) -> pathlib.Path:
  """Returns the folder of a data set, which may not be prepared yet.

  Raises:
    UserError: for an unknown name, and for a remote `data_dir`.
  """
  make, config = _parse(name)
  return _root(data_dir) / make.name / config.name / str(make.VERSION)


def is_bundled(name: str) -> bool:
  """Whether the images come with the package."""
  return _parse(name)[0].MANUAL_DOWNLOAD_INSTRUCTIONS is None


def license_of(name: str) -> str:
  """What a data set's images may be used for; '' where that is not known.

  Raises:
    UserError: for an unknown name.
  """
  return _parse(name)[0].license


def _parse(name: str) -> tuple[type[base.ImageBuilder], base.ImageConfig]:
  first, _, config = name.partition('/')
  try:
    return _BUILDERS[first], _BUILDERS[first].config(config)
  except KeyError:
    known = [
      name if config is make.BUILDER_CONFIGS[0] else f'{name}/{config.name}'
      for name, make in _BUILDERS.items()
      for config in make.BUILDER_CONFIGS
    ]
    raise UserError(
      f'unknown data set {shown(name)}; the known ones are '
      f'{", ".join(known)} and folder/NAME'
    ) from None


def _root(data_dir: str | os.PathLike[str] | None) -> pathlib.Path:
  # Where TFDS looks too.
  default = os.environ.get('TFDS_DATA_DIR') or '~/tensorflow_datasets'
  return paths.as_local(data_dir or default, 'data_dir')
