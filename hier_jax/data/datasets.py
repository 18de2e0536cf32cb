"""Named data sets as class-disjoint splits with random access to images."""

import dataclasses
import hashlib
import os
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np
import tensorflow_datasets as tfds
from google.protobuf import message

from hier_jax.data import builders, prepare, stored, transforms
from hier_jax.data.builders import shards
from hier_jax.errors import UserError, plain


class Source(Protocol):
  """Random access to records; `source[i]['image']` is encoded bytes."""

  def __len__(self) -> int:
    """Returns the number of records n."""

  def __getitem__(self, index: int, /) -> Mapping[str, Any]:
    """Returns record `index`, 0 <= index < n."""


@dataclasses.dataclass(frozen=True, eq=False)
class Split:
  """Images of one split, with labels numbered from 0.

  Attributes:
    name: what messages and reports call it, `emoji:train`.
    source: random access, `source[i]` is a dict whose 'image' is bytes;
      prepared data sets have the image's 'path' there too.
    labels: int32 [n], every value of 0 .. num_classes - 1 occurs.
    fields: int64 [n] each, what else is known about an image, such as 'index'
      (its place in the whole data set), 'style', 'subgroup' and 'group'.
    names: what the values mean; `names['label'][k]` is the name of class k.
    levels: the fields that make a tree above the classes, coarsest first; each
      has one value for all images of a class.
    numbers: int [C], numbers of the classes that are unique over all splits of
      a data set; 0 .. C - 1 by default.
    digest: a hash that changes with any image; '' if there is none.
    max_megapixels: what an image may have to be decoded.
  """

  name: str
  source: Source
  labels: np.ndarray
  fields: Mapping[str, np.ndarray]
  names: Mapping[str, Sequence[str]] = dataclasses.field(default_factory=dict)
  levels: Sequence[str] = ()
  numbers: np.ndarray = None  # type: ignore[assignment]
  digest: str = ''
  max_megapixels: float = transforms.MAX_MEGAPIXELS

  def __post_init__(self) -> None:
    if self.numbers is None:
      object.__setattr__(self, 'numbers', np.arange(self.num_classes))

  def __len__(self) -> int:
    return len(self.labels)

  @property
  def num_classes(self) -> int:
    """The number of classes C."""
    return int(self.labels.max(initial=-1)) + 1

  def ancestors(self, levels: Sequence[str] | None = None) -> list[list[str]]:
    """Returns what each class belongs to, coarsest first; '' for nothing.

    A row for each of `names['label']`, as `evaluation.taxonomy.Taxonomy` and
    its `from_levels` take them.

    Args:
      levels: other fields than `self.levels` that belong to classes, such as
        ('body',) of Cars-196.
    """
    levels = self.levels if levels is None else levels
    first = np.unique(self.labels, return_index=True)[1]
    columns = []
    for level in levels:
      names = [*self.names[level], '']  # the code of nothing is -1
      columns.append([names[code] for code in self.fields[level][first]])
    return [list(row) for row in zip(*columns, strict=True)]

  def select(self, rows: np.ndarray, name: str) -> 'Split':
    """Returns the images `rows` (bool [n] or int [m]), labels made anew."""
    rows = np.arange(len(self))[rows]
    labels = self.labels[rows]
    digest = self.digest and f'{self.digest} {rows.tolist()}'
    return Split(
      name,
      _Rows(self.source, rows),
      _contiguous(labels),
      {field: values[rows] for field, values in self.fields.items()},
      _label_names(self.names, labels),
      self.levels,
      self.numbers[np.unique(labels)],
      digest and hashlib.sha256(digest.encode()).hexdigest(),
      self.max_megapixels,
    )


@dataclasses.dataclass(frozen=True, eq=False)
class _Rows:
  """The rows of a source as a source."""

  source: Source
  rows: np.ndarray

  def __len__(self) -> int:
    return len(self.rows)

  def __getitem__(self, index: int, /) -> Mapping[str, Any]:
    return self.source[int(self.rows[index])]


@dataclasses.dataclass(frozen=True, eq=False)
class _Images:
  """The encoded images of a prepared split and their paths."""

  name: str
  records: Sequence[bytes]

  def __len__(self) -> int:
    return len(self.records)

  def __getitem__(self, index: int, /) -> Mapping[str, Any]:
    try:
      return shards.parse(self.records[index])
    # Of array_record and of protobuf.
    except (RuntimeError, message.DecodeError) as error:
      raise UserError(
        f'record {index} of {self.name} is damaged ({plain(str(error))}): '
        'remove the folder of the data set and prepare it anew'
      ) from error


def load(
  name: str,
  *,
  data_dir: str | os.PathLike[str] | None = None,
  max_megapixels: float = transforms.MAX_MEGAPIXELS,
) -> dict[str, Split]:
  """Returns the splits of a prepared data set.

  Bundled data sets are prepared if necessary.

  Args:
    name: 'emoji', or 'emoji/subgroup', where train and test share no
      subgroup; 'cub200', 'cars196', 'sop' and 'inshop', as published, or with
      '/short256' after them as resized; 'folder/NAME'. All have the splits
      train and test, save 'inshop': train, query and gallery.
    data_dir: where prepared data sets lie; TFDS's own place by default.
      Several processes may prepare the same one at once.
    max_megapixels: what an image may have to be decoded.

  Raises:
    UserError: for a name that is unknown or not prepared, for broken files of
      a bundled data set and for a `data_dir` that cannot be written.
  """
  builder = open_prepared(name, data_dir)
  sources = builder.as_data_source(
    deserialize_method=tfds.decode.DeserializeMethod.RAW_BYTES
  )
  return {
    split: _from_builder(
      f'{name}:{split}', records, builder.info, split, max_megapixels
    )
    for split, records in sources.items()
  }


def open_prepared(
  name: str, data_dir: str | os.PathLike[str] | None
) -> tfds.core.DatasetBuilder:
  """Returns TFDS's reader of a data set; see `load`."""
  place = builders.place(name, data_dir)
  if not place.exists():
    if not builders.is_bundled(name):
      raise UserError(
        f'data set {name} is not prepared in {place}: run `hier-jax data '
        f'prepare {name} --from DIR` with the folder of its images, and the '
        'same data_dir'
      )
    prepare.prepare(name, data_dir=data_dir)
  return stored.read_builder(place)


def hold_out(split: Split, every: int = 5) -> tuple[Split, Split]:
  """Holds out one in `every` classes: (fit, val) without a common class.

  Raises:
    UserError: when one of the two would be empty.
  """
  if not 2 <= every <= split.num_classes:
    raise UserError(
      f'cannot hold out one class in {every} of {split.name}: expected a '
      f'number from 2 to {split.num_classes}, its number of classes'
    )
  held = split.labels % every == every - 1
  fit = split.select(~held, f'{split.name}:fit')
  return fit, split.select(held, f'{split.name}:val')


def _from_builder(
  name: str,
  records: Sequence[bytes],
  info: tfds.core.DatasetInfo,
  split: str,
  max_megapixels: float,
) -> Split:
  fields = {
    field: np.asarray(values, np.int64)
    for field, values in info.metadata[split].items()
  }
  names = {
    field: info.features[field].names for field in fields if field != 'index'
  }
  labels = fields.pop('label')
  about = info.metadata['about']
  return Split(
    name,
    _Images(name, records),
    _contiguous(labels),
    fields,
    _label_names(names, labels),
    about['levels'],
    np.unique(labels),
    about.get('content', {}).get(split, ''),
    max_megapixels,
  )


def _contiguous(labels: np.ndarray) -> np.ndarray:
  return np.unique(labels, return_inverse=True)[1].astype(np.int32)


def _label_names(
  names: Mapping[str, Sequence[str]], labels: np.ndarray
) -> dict[str, Sequence[str]]:
  """Returns `names` with only the classes that occur in `labels`."""
  if 'label' not in names:
    return dict(names)
  kept = [names['label'][label] for label in np.unique(labels)]
  return {**names, 'label': kept}
