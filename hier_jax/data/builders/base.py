"""What every builder of an image data set with classes shares.

TensorFlow is never needed: images stay the encoded bytes they came as, and
the records are written as array_record, which grain reads at random.
"""

import abc
import dataclasses
import functools
import hashlib
import os
import pathlib
import shutil
from collections.abc import Mapping, Sequence
from typing import ClassVar, NoReturn

import numpy as np
import tensorflow_datasets as tfds

from hier_jax import paths
from hier_jax.data import transforms
from hier_jax.data.builders import contents, inside, shards
from hier_jax.errors import UserError

# Bytes of a list; that of In-Shop has 5 million.
_MOST = 2**26
# Of an encoded image, by pixel: four channels of 16 bits.
_BYTES = 8


# The types to ignore: TFDS ships none, so that its classes are Any.
@dataclasses.dataclass
class ImageConfig(tfds.core.BuilderConfig):  # type: ignore[misc]
  """How the images are stored.

  Attributes:
    short_side: larger images are resized to it, which makes reading faster
      and is no longer the published protocol; None keeps the bytes.
  """

  short_side: int | None = None


class ImageBuilder(  # type: ignore[call-arg]
  tfds.core.DatasetBuilder,  # type: ignore[misc]
  skip_registration=True,
):
  """Base of the builders: a subclass tells its contents.

  The integer fields also go into the metadata, a column each, so that labels
  are there without reading a single image: `info.metadata[split][field]`.
  Under `info.metadata['about']` lies where the data set came from.
  """

  # Only leads TFDS to checksums of downloads, of which there are none, and
  # needs importlib_resources on the way, which TFDS does not install.
  code_path = None
  BUILDER_CONFIGS: ClassVar = [
    ImageConfig(name='original', description='The bytes as published.'),
    ImageConfig(
      name='short256',
      short_side=256,
      description='Images with a short side above 256 are resized to it.',
    ),
  ]
  # Split -> images and classes of the published protocol.
  counts: ClassVar[Mapping[str, tuple[int, int]]] = {}
  homepage: ClassVar[str] = ''
  license: ClassVar[str] = ''

  def __init_subclass__(cls) -> None:
    # TFDS has a cars196 too, and one process may want both.
    super().__init_subclass__(skip_registration=True)

  def __init__(
    self,
    *,
    manual_dir: str | os.PathLike[str] | None = None,
    config: ImageConfig,
    data_dir: str | os.PathLike[str],
    max_megapixels: float = transforms.MAX_MEGAPIXELS,
  ) -> None:
    """Makes the builder of one data set, from its lists; reads no image.

    Args:
      manual_dir: the folder of the unpacked archives; None where the images
        come with the package.
      config: one of the BUILDER_CONFIGS.
      data_dir: where prepared data sets lie.
      max_megapixels: what an image may have.

    Raises:
      UserError: for images that are missing or not as published.
    """
    self._manual_dir, self._max_megapixels = manual_dir, max_megapixels
    super().__init__(config=config, data_dir=data_dir)
    # Beside the final folder, which TFDS only makes when all is done.
    self.unfinished = pathlib.Path(f'{self.data_dir}.unfinished')

  @classmethod
  def config(cls, name: str) -> ImageConfig:
    """Returns a config; '' is the first. Raises KeyError for unknown ones."""
    configs = {config.name: config for config in reversed(cls.BUILDER_CONFIGS)}
    return configs[name or cls.BUILDER_CONFIGS[0].name]

  @abc.abstractmethod
  def _contents(self) -> contents.Contents:
    """Returns what the data set holds.

    Raises:
      UserError: for lists or folders that are missing or not as expected.
    """

  @property
  def source(self) -> pathlib.Path:
    """The folder of the unpacked archives."""
    if self._manual_dir is None:
      raise UserError(
        f'{self.name} is made from images that you have: name their folder '
        f'with --from DIR. {self.MANUAL_DOWNLOAD_INSTRUCTIONS}'
      )
    source = paths.as_local(self._manual_dir, 'the folder of images')
    if not source.is_dir():
      raise UserError(
        f'there is no folder {source}. {self.MANUAL_DOWNLOAD_INSTRUCTIONS}'
      )
    return source

  @functools.cached_property
  def within(self) -> inside.Inside:
    """Where all files must lie, wherever lists and links lead."""
    bundled = self.MANUAL_DOWNLOAD_INSTRUCTIONS is None
    return inside.Inside('/' if bundled else self.source)

  def listing(self, path: pathlib.Path) -> pathlib.Path:
    """Returns the path of a list in the source, checked to be safe to read.

    Raises:
      UserError: it is missing, elsewhere, no regular file or too large.
    """
    name = os.path.relpath(path, self.source)
    self.within.stats({path: name}, f'lists of {self.name}', _MOST)
    return path

  @functools.cached_property
  def contents(self) -> contents.Contents:
    """What the data set holds; its names and counts are checked."""
    found = self._contents()
    contents.check_names(found.names)
    counts = {
      split: (len(rows), len({row.fields['label'] for row in rows}))
      for split, rows in found.splits.items()
    }
    wrong = [
      f'{split} holds {counts.get(split, (0, 0))[0]:,} images of '
      f'{counts.get(split, (0, 0))[1]:,} classes, expected {images:,} of '
      f'{classes:,}'
      for split, (images, classes) in self.counts.items()
      if counts.get(split) != (images, classes)
    ]
    if wrong:
      raise UserError(
        f'{self.name} is not the published one: {"; ".join(wrong)}. Unpack '
        f'the archive again. {self.MANUAL_DOWNLOAD_INSTRUCTIONS or ""}'
      )
    return found

  @functools.cached_property
  def stamps(self) -> Mapping[pathlib.Path, str]:
    """What changes with the files of the images; see `shards.stamps_of`."""
    most = max(_MOST, _BYTES * 1e6 * self._max_megapixels)
    return shards.stamps_of(self._records(), self.name, self.within, most)

  @property
  def stamp(self) -> str:
    """A hash of all `stamps`."""
    return shards.key_of(self._records(), self.stamps)

  def changed(self, written: Mapping[str, Sequence[bytes]]) -> list[str]:
    """Paths of the images that differ from the written records."""
    return [
      path
      for split, records in self.contents.splits.items()
      for path in shards.changed(
        records,
        written[split],
        read=self._read,
        short_side=self.builder_config.short_side,
        max_megapixels=self._max_megapixels,
      )
    ]

  def _records(self) -> list[shards.Record]:
    return [row for rows in self.contents.splits.values() for row in rows]

  def _read(self, record: shards.Record) -> bytes:
    """Returns the encoded image of a record; called by several threads."""
    return record.file.read_bytes()

  def _info(self) -> tfds.core.DatasetInfo:
    labels = {
      field: tfds.features.ClassLabel(names=list(names))
      for field, names in self.contents.names.items()
    }
    return tfds.core.DatasetInfo(
      builder=self,
      description=type(self).__doc__,
      homepage=self.homepage,
      license=self.license,
      features=tfds.features.FeaturesDict(
        {
          'image': tfds.features.Image(shape=(None, None, 3)),
          'path': tfds.features.Text(),
          'index': tfds.features.Scalar(np.int64),
          **labels,
        }
      ),
      supervised_keys=('image', 'label'),
      disable_shuffling=True,
      metadata=tfds.core.MetadataDict(),
    )

  def _download_and_prepare(
    self, dl_manager: object, download_config: object = None
  ) -> None:
    del dl_manager, download_config
    short_side = self.builder_config.short_side
    written = shards.write(
      self.contents.splits,
      self.unfinished,
      stamps=self.stamps,
      read=self._read,
      short_side=short_side,
      max_megapixels=self._max_megapixels,
      name=self.name,
    )
    self.info.set_splits(
      tfds.core.SplitDict(
        self._adopt(split, parts) for split, parts in written.items()
      )
    )
    for split, records in self.contents.splits.items():
      self.info.metadata[split] = {
        field: [record.fields[field] for record in records]
        for field in records[0].fields
      }
    self.info.metadata['about'] = {
      'layout': self.contents.layout,
      'notes': list(self.contents.notes),
      'levels': list(self.contents.levels),
      # The key's spelling is that of data sets that are prepared already.
      'licence': self.license,
      'homepage': self.homepage,
      'short_side': short_side,
      'digest': self.contents.digest,
      'stamp': self.stamp,
      'content': {k: _content(parts) for k, parts in written.items()},
    }

  def _adopt(
    self, split: str, parts: Sequence[shards.Shard]
  ) -> tfds.core.SplitInfo:
    """Puts finished shards where TFDS looks for a split."""
    template = tfds.core.ShardedFileTemplate(
      split=split,
      dataset_name=self.name,
      data_dir=self.data_path,
      filetype_suffix='array_record',
    )
    for i, part in enumerate(parts):
      place = template.sharded_filepath(shard_index=i, num_shards=len(parts))
      try:
        os.link(part.file, place)
      # Not every file system knows links.
      except OSError:
        shutil.copyfile(part.file, place)
    return tfds.core.SplitInfo(
      name=split,
      shard_lengths=[part.num_images for part in parts],
      num_bytes=sum(part.file.stat().st_size for part in parts),
      filename_template=template,
    )

  def _as_dataset(self, split: object, **options: object) -> NoReturn:
    raise NotImplementedError(
      'read with as_data_source, or as tf.data after '
      f'tfds.builder_from_directory({str(self.data_dir)!r})'
    )


def _content(parts: Sequence[shards.Shard]) -> str:
  """A hash of all records of a split."""
  digests = []
  for part in parts:
    with part.file.open('rb') as file:
      digests.append(hashlib.file_digest(file, 'sha256').hexdigest())
  return hashlib.sha256(' '.join(digests).encode()).hexdigest()
