"""Named data sets as class-disjoint splits with random access to images."""

import dataclasses
import os
import sys
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np
import tensorflow_datasets as tfds
from tensorflow_datasets.proto import tf_example_pb2

from hier_jax.data.builders import base, emoji
from hier_jax.errors import UserError

# Name -> builder and its config.
_BUILDERS: dict[str, tuple[type[base.ImageBuilder], str | None]] = {
  'emoji': (emoji.Emoji, 'class'),
  'emoji/subgroup': (emoji.Emoji, 'subgroup'),
}


class Source(Protocol):
  """Random access to records; `source[i]['image']` is encoded bytes."""

  def __len__(self) -> int:
    """Returns the number of records n."""

  def __getitem__(self, index: int, /) -> Mapping[str, Any]:
    """Returns record `index`, 0 <= index < n."""


@dataclasses.dataclass(frozen=True, eq=False)
class Split:
  """Images of one split with labels of its own.

  Attributes:
    name: what messages and reports call it, `emoji:train`.
    source: random access, `source[i]` is a dict whose 'image' is bytes.
    labels: int32 [n], every value of 0 .. num_classes - 1 occurs.
    fields: int64 [n] each, what else is known of an image, such as 'index'
      (its place in the whole data set), 'style', 'subgroup' and 'group'.
    names: what the values mean, `names['label'][k]` being class k's name.
  """

  name: str
  source: Source
  labels: np.ndarray
  fields: Mapping[str, np.ndarray]
  names: Mapping[str, Sequence[str]] = dataclasses.field(default_factory=dict)

  def __len__(self) -> int:
    return len(self.labels)

  @property
  def num_classes(self) -> int:
    """The number of classes C."""
    return int(self.labels.max(initial=-1)) + 1

  def select(self, rows: np.ndarray, name: str) -> 'Split':
    """Returns the images `rows` (bool [n] or int [m]), labels made anew."""
    rows = np.arange(len(self))[rows]
    labels = self.labels[rows]
    return Split(
      name,
      _Rows(self.source, rows),
      _contiguous(labels),
      {field: values[rows] for field, values in self.fields.items()},
      _label_names(self.names, labels),
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
  """The encoded images of a prepared split, without their fields.

  Those are known from the metadata, and TFDS's own parsing of a whole example
  takes four times as long as reading it.
  """

  records: Sequence[bytes]

  def __len__(self) -> int:
    return len(self.records)

  def __getitem__(self, index: int, /) -> Mapping[str, Any]:
    example = tf_example_pb2.Example.FromString(self.records[index])
    return {'image': example.features.feature['image'].bytes_list.value[0]}


def load(
  name: str, *, data_dir: str | os.PathLike | None = None
) -> dict[str, Split]:
  """Returns the splits of a data set, preparing it when it is not there yet.

  Args:
    name: 'emoji', or 'emoji/subgroup', where train and test share no
      subgroup.
    data_dir: where prepared data sets lie; TFDS's own place by default.
      Several processes may prepare the same one at once.

  Raises:
    UserError: for an unknown name, for broken files of the data set and for
      a `data_dir` that cannot be written.
  """
  if name not in _BUILDERS:
    raise UserError(
      f'unknown data set {name!r}; the known ones are {", ".join(_BUILDERS)}'
    )
  builder = _prepared(name, data_dir)
  sources = builder.as_data_source(
    deserialize_method=tfds.decode.DeserializeMethod.RAW_BYTES
  )
  return {
    split: _from_builder(f'{name}:{split}', records, builder.info, split)
    for split, records in sources.items()
  }


def hold_out(split: Split, every: int = 5) -> tuple[Split, Split]:
  """Sets every `every`-th class apart: (fit, val) without a common class.

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


def _prepared(name: str, data_dir) -> base.ImageBuilder:
  make, config = _BUILDERS[name]
  if not sys.stderr.isatty():
    tfds.disable_progress_bar()
  builder = make(config=config, data_dir=data_dir)
  try:
    builder.download_and_prepare(file_format='array_record')
    return builder
  except OSError as error:
    # TFDS moves a finished folder into place, which fails when another
    # process was faster: then that one's work is as good as ours.
    other = make(config=config, data_dir=data_dir)
    if other.data_path.exists():
      return other
    raise UserError(
      f'cannot prepare data set {name} in {builder.data_dir} ({error}); '
      'choose a writable folder with data_dir or TFDS_DATA_DIR'
    ) from error


def _from_builder(
  name: str,
  records: Sequence[bytes],
  info: tfds.core.DatasetInfo,
  split: str,
) -> Split:
  fields = {
    field: np.asarray(values, np.int64)
    for field, values in info.metadata[split].items()
  }
  names = {
    field: info.features[field].names for field in fields if field != 'index'
  }
  labels = fields.pop('label')
  return Split(
    name,
    _Images(records),
    _contiguous(labels),
    fields,
    _label_names(names, labels),
  )


def _contiguous(labels: np.ndarray) -> np.ndarray:
  return np.unique(labels, return_inverse=True)[1].astype(np.int32)


def _label_names(
  names: Mapping[str, Sequence[str]], labels: np.ndarray
) -> dict[str, Sequence[str]]:
  """Returns `names` with those of the classes that occur in `labels`."""
  if 'label' not in names:
    return dict(names)
  kept = [names['label'][label] for label in np.unique(labels)]
  return {**names, 'label': kept}
