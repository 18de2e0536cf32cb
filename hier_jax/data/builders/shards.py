"""Records written shard by shard, so that interrupted work goes on.

A shard's file name holds a hash of its records and of its images' sizes and
times, and the file appears under that name when it is whole. A later run finds
it, or makes it anew where something has changed since.
"""

import functools
import hashlib
import io
import os
import pathlib
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import tqdm
from array_record.python import array_record_module
from PIL import UnidentifiedImageError
from tensorflow_datasets.proto import tf_example_pb2

from hier_jax.data import threads, transforms
from hier_jax.data.builders import inside, tables
from hier_jax.errors import UserError, plain

# What is lost when a run is killed, and what is read again when one image
# of it was broken.
_SHARD_SIZE = 1024
# Pillow decodes without the interpreter's lock.
_THREADS = min(16, os.cpu_count() or 1)
_QUALITY = 95
# Paths are bytes to a file system, and may not be UTF-8.
_ERRORS = 'surrogateescape'


class Record(NamedTuple):
  """One image of a data set.

  Attributes:
    path: its name in the data set, for people and messages.
    file: the file that holds it, whose time and size tell of changes.
    fields: 'index', its place in the whole data set whatever the split, and
      one integer for each of the builder's named fields.
  """

  path: str
  file: pathlib.Path
  fields: Mapping[str, int]


class Shard(NamedTuple):
  """A finished file of records."""

  file: pathlib.Path
  num_images: int


def write(
  splits: Mapping[str, Sequence[Record]],
  folder: pathlib.Path,
  *,
  stamps: Mapping[pathlib.Path, str],
  read: Callable[[Record], bytes],
  short_side: int | None,
  max_megapixels: float,
  name: str,
) -> dict[str, list[Shard]]:
  """Checks, resizes and writes images, or finds them written already.

  Every image is decoded once, whole: a broken one is found here and not in
  the middle of a run.

  Args:
    splits: the records of each split, in order.
    folder: where shards of one `short_side` are made; kept until the caller
      removes it.
    stamps: see `stamps_of`.
    read: returns the encoded image of a record; called by several threads.
    short_side: larger images are resized to it; None keeps all bytes.
    max_megapixels: what an image may have.
    name: what the progress bar and messages call the data set.

  Returns:
    The shards of each split, in order.

  Raises:
    UserError: for images that are broken, all of them counted.
    OSError: for a folder that cannot be written.
  """
  records = [record for rows in splits.values() for record in rows]
  prepare = functools.partial(
    _prepare, read=read, short_side=short_side, max_megapixels=max_megapixels
  )
  folder.mkdir(parents=True, exist_ok=True)
  written: dict[str, list[Shard]] = {}
  broken: list[str] = []
  # Without a terminal there is no bar.
  with tqdm.tqdm(
    total=len(records), unit='image', desc=name, disable=None
  ) as bar:
    for split, rows in splits.items():
      written[split] = []
      for first in range(0, len(rows), _SHARD_SIZE):
        part = rows[first : first + _SHARD_SIZE]
        key = key_of(part, stamps)[:20]
        file = folder / f'{split}-{first:07d}-{key}.array_record'
        if not file.exists():
          images = threads.in_order(prepare, part, _THREADS)
          broken += _write_shard(file, images, part)
        written[split].append(Shard(file, len(part)))
        bar.update(len(part))
  if broken:
    raise UserError(
      f'{len(broken):,} of {len(records):,} images of {name} cannot be read: '
      f'{tables.listed(broken)}; unpack these anew, or convert them to JPEG or '
      'PNG, and run this again: what is finished is kept'
    )
  return written


def changed(
  records: Sequence[Record],
  written: Sequence[bytes],
  *,
  read: Callable[[Record], bytes],
  short_side: int | None,
  max_megapixels: float,
) -> list[str]:
  """Paths of the records that would be written with another image now.

  Args:
    records: the records of a split.
    written: what was written for each, see `parse`.
    read: see `write`.
    short_side: see `write`.
    max_megapixels: see `write`.
  """
  prepare = functools.partial(
    _prepare, read=read, short_side=short_side, max_megapixels=max_megapixels
  )
  images = threads.in_order(prepare, records, _THREADS)
  return [
    records[row].path
    for row, image in enumerate(images)
    if parse(written[row])['image'] != image
  ]


def parse(written: bytes) -> dict[str, Any]:
  """The 'image', encoded, and the 'path' of a record as written.

  The rest is known from the metadata, and TFDS's own parsing of a whole
  example takes four times as long as reading it.
  """
  example = tf_example_pb2.Example.FromString(written)
  feature = example.features.feature
  image, path = (
    next(iter(feature[name].bytes_list.value), b'')
    for name in ('image', 'path')
  )
  return {'image': image, 'path': path.decode(errors=_ERRORS)}


def stamps_of(
  records: Iterable[Record], name: str, within: inside.Inside, most: float
) -> dict[pathlib.Path, str]:
  """What changes with a file, its size and time, of each file of records.

  Args:
    records: the records of all splits.
    name: what messages call the data set.
    within: where the files must lie.
    most: bytes that one may have.

  Raises:
    UserError: for files that cannot be taken, see `inside.Inside.stats`.
  """
  files = {record.file: record.path for record in records}
  stats = within.stats(files, f'images of {name}', most)
  return {
    file: f'{found.st_size} {found.st_mtime_ns}'
    for file, found in stats.items()
  }


def key_of(
  records: Iterable[Record], stamps: Mapping[pathlib.Path, str]
) -> str:
  """A hash of what records say and of their files' stamps."""
  rows = [(r.path, stamps[r.file], sorted(r.fields.items())) for r in records]
  return hashlib.sha256(repr(rows).encode()).hexdigest()


def _prepare(
  record: Record,
  *,
  read: Callable[[Record], bytes],
  short_side: int | None,
  max_megapixels: float,
) -> bytes | str:
  """The bytes to write of an image, or why there are none."""
  try:
    data = read(record)
    image = transforms.decode(data, record.path, max_megapixels)
  except (OSError, UserError) as error:
    cause = error.__cause__ or error
    # Pillow's own words for it name an address in memory.
    unknown = isinstance(cause, UnidentifiedImageError)
    why = 'no known format' if unknown else plain(str(cause))
    return f'{record.path} ({why})'
  if short_side is None or min(image.size) <= short_side:
    return data
  file = io.BytesIO()
  image = transforms.shrink(image, short_side)
  image.save(file, 'JPEG', quality=_QUALITY, subsampling=0)
  return file.getvalue()


def _write_shard(
  file: pathlib.Path, images: Iterable[bytes | str], part: Sequence[Record]
) -> list[str]:
  """Writes a shard, unless some of its images are broken: returns these."""
  # Hosts that share the file system may share process ids too.
  temporary = file.with_name(f'{file.name}.{uuid.uuid4().hex}.tmp')
  broken = []
  try:
    # Groups of one record, as TFDS writes them for access at random.
    writer = array_record_module.ArrayRecordWriter(
      os.fspath(temporary), 'group_size:1'
    )
    for image, record in zip(images, part, strict=True):
      if isinstance(image, str):
        broken.append(image)
      elif not broken:
        writer.write(_example(image, record))
    writer.close()
    if not broken:
      temporary.replace(file)
  except RuntimeError as error:
    # What array_record makes of a full disk, or of a folder that is gone.
    raise OSError(str(error)) from error
  finally:
    temporary.unlink(missing_ok=True)
  return broken


def _example(image: bytes, record: Record) -> bytes:
  example = tf_example_pb2.Example()
  feature = example.features.feature
  path = record.path.encode(errors=_ERRORS)
  feature['image'].bytes_list.value.append(image)
  feature['path'].bytes_list.value.append(path)
  for field, value in record.fields.items():
    feature[field].int64_list.value.append(value)
  return example.SerializeToString(deterministic=True)
