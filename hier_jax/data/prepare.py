"""Turns folders of images into records, once."""

import contextlib
import io
import os
import pathlib
import shutil
from collections.abc import Iterator

import tensorflow_datasets as tfds
from absl import logging

from hier_jax.data import builders, stored, transforms
from hier_jax.data.builders import base
from hier_jax.errors import UserError, listed

__all__ = ['prepare']


def prepare(
  name: str,
  source: str | os.PathLike[str] | None = None,
  *,
  data_dir: str | os.PathLike[str] | None = None,
  max_megapixels: float = transforms.MAX_MEGAPIXELS,
) -> pathlib.Path:
  """Prepares a data set, or goes on where an earlier call was stopped.

  The folder appears only when it is complete. Until then, finished parts are
  kept beside it under its name plus `.unfinished`, and are reused if their
  images have not changed. Several processes may do this at once.

  Args:
    name: the data set, see `datasets.load`.
    source: the folder of its unpacked archives; None for bundled ones.
    data_dir: where prepared data sets lie; TFDS's own place by default.
    max_megapixels: what an image may have; larger ones are refused unread.

  Returns:
    The data set's folder.

  Raises:
    UserError: for an unknown name; archives that are missing, packed, partial
      or not as published; lists and links that lead out of `source`; images
      that are broken or too large, all of them counted; a data set there
      already that differs, even in the bytes of one image; a `data_dir` that
      cannot be written.
  """
  place = builders.place(name, data_dir)
  with _quietly():
    builder = builders.create(
      name, source=source, data_dir=data_dir, max_megapixels=max_megapixels
    )
  if not place.exists():
    try:
      with _quietly():
        builder.download_and_prepare(file_format='array_record')
    except OSError as error:
      # TFDS moves a finished folder into place, which fails when another
      # process was faster: then that one's work is as good as ours.
      if not place.exists():
        raise UserError(
          f'cannot prepare data set {name} in {place} ({error}); choose a '
          'writable folder with data_dir or TFDS_DATA_DIR'
        ) from error
  _check_same(stored.read_builder(place), builder, place, source)
  shutil.rmtree(builder.unfinished, ignore_errors=True)
  return place


def _check_same(
  made: tfds.core.DatasetBuilder,
  builder: base.ImageBuilder,
  place: pathlib.Path,
  source: str | os.PathLike[str] | None,
) -> None:
  """Raises UserError if prepared records differ from the source."""
  about = made.info.metadata['about']
  remedy = 'remove that folder to prepare it anew'
  if about['digest'] != builder.contents.digest:
    raise UserError(
      f'{place} was prepared from other images or names than those of '
      f'{source}: {remedy}'
    )
  # Sizes and times first: to compare images takes as long as to prepare them.
  if about.get('stamp') == builder.stamp:
    return
  written = made.as_data_source(
    deserialize_method=tfds.decode.DeserializeMethod.RAW_BYTES
  )
  if changed := builder.changed(written):
    raise UserError(
      f'{place} was prepared from {len(changed):,} other images of the same '
      f'names than those of {source}: {listed(changed)}; {remedy}'
    )


@contextlib.contextmanager
def _quietly() -> Iterator[None]:
  """Keeps TFDS from announcing downloads, of which there are none."""
  verbosity = logging.get_verbosity()
  logging.set_verbosity(logging.ERROR)
  try:
    with contextlib.redirect_stdout(io.StringIO()):
      yield
  finally:
    logging.set_verbosity(verbosity)
