"""Prepared data sets, opened without running or believing what they say."""

import json
import os
import pathlib
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from array_record.python import array_record_module
from google.protobuf import json_format
from tensorflow_datasets.core.proto import feature_pb2

from hier_jax.data.builders import inside
from hier_jax.errors import UserError, plain, shown

__all__ = ['read_builder']

_CLASSES = {
  f'{kind.__module__}.{kind.__name__}'
  for kind in (
    tfds.features.ClassLabel,
    tfds.features.Image,
    tfds.features.Scalar,
    tfds.features.Text,
  )
}
_TABLE = tfds.features.FeaturesDict
_TABLE_CLASS = f'{_TABLE.__module__}.{_TABLE.__name__}'
# What 'about' in the metadata holds; the last three are younger.
_ABOUT = {
  'layout': str,
  'levels': list,
  'licence': str,
  'homepage': str,
  'short_side': int | None,
  'digest': str,
  'notes': list,
  'stamp': str,
  'content': dict,
}
_YOUNG = ('notes', 'stamp', 'content')


def read_builder(place: pathlib.Path) -> tfds.core.DatasetBuilder:
  """Returns TFDS's reader of a prepared data set.

  TFDS imports the module of every class that `features.json` names, and finds
  modules in the working folder too: the names are checked before it does. So
  are the labels and other numbers that the metadata hold, before they are used.

  Args:
    place: the folder that holds `features.json`.

  Raises:
    UserError: the files name other classes than the builders here write, lead
      out of the folder, disagree, or are damaged or missing.
  """
  try:
    within = inside.Inside(place)
    _check_files(within, place, [p for p in place.iterdir() if not p.is_dir()])
    _check_classes(place / 'features.json')
    builder = tfds.builder_from_directory(place)
    info, metadata = builder.info, dict(builder.info.metadata.items())
    about = _checked_about(metadata.get('about'))
    for name, split in info.splits.items():
      _check_files(within, place, [pathlib.Path(p) for p in split.filepaths])
      columns = _checked_columns(metadata.get(name), info, split, place)
      _check_levels(about['levels'], columns)
      _check_counts(split)
    return builder
  # TFDS raises what it trips over, of any type.
  except Exception as error:
    if isinstance(error, UserError):
      raise
    raise UserError(
      f'data set {place} cannot be read ({plain(str(error))}): remove that'
      ' folder and prepare it anew'
    ) from error


def _check_files(
  within: inside.Inside, place: pathlib.Path, files: Iterable[pathlib.Path]
) -> None:
  names = {path: os.path.relpath(path, place) for path in files}
  try:
    within.stats(names, f'files of the data set {place}', sys.maxsize)
  except UserError as error:
    raise UserError(
      f'{error}; or remove the folder and prepare it anew'
    ) from error


def _check_classes(path: pathlib.Path) -> None:
  message = feature_pb2.Feature()
  json_format.ParseDict(json.loads(path.read_text()), message)
  table = message.python_class_name
  found = {f.python_class_name for f in message.features_dict.features.values()}
  strange = sorted(found - _CLASSES | {table} - {_TABLE_CLASS})
  if strange:
    raise UserError(
      f'{path} names the class {shown(strange[0])}, which no builder here'
      ' writes, so it was not imported: prepare the data set anew'
    )


def _checked_about(about: object) -> Mapping[str, Any]:
  if not isinstance(about, dict):
    raise ValueError("its metadata lack 'about'")
  for key, kind in _ABOUT.items():
    if key in _YOUNG and key not in about:
      continue
    if not isinstance(about.get(key), kind) or key not in about:
      raise ValueError(
        f'its metadata say {shown(about.get(key))} as {key!r} of what it is'
      )
  for text in [*about['levels'], *about.get('notes', [])]:
    if not isinstance(text, str):
      raise ValueError(f'its metadata hold {shown(text)} for a text')
  content = about.get('content', {})
  if wrong := [v for v in content.values() if not isinstance(v, str)]:
    raise ValueError(f'its metadata hold {shown(wrong[0])} for a hash')
  return about


def _checked_columns(
  columns: object,
  info: tfds.core.DatasetInfo,
  split: tfds.core.SplitInfo,
  place: pathlib.Path,
) -> Mapping[str, list[int]]:
  """Raises ValueError for columns of another length, or beyond their names."""
  if not isinstance(columns, dict) or not {'index', 'label'} <= columns.keys():
    raise ValueError(f'its metadata lack the labels of {shown(split.name)}')
  n = split.num_examples
  for field, values in columns.items():
    names = _names(info, field, place)
    low, high = (0 if field in ('index', 'label') else -1), len(names)
    if not isinstance(values, list) or len(values) != n or not n:
      raise ValueError(
        f'its metadata have no {n:,} values of {shown(field)} for the images of'
        f' {shown(split.name)}'
      )
    wrong = [v for v in values if type(v) is not int or not low <= v < high]
    if wrong:
      raise ValueError(
        f'its metadata hold {len(wrong):,} values of {shown(field)} that are no'
        f' integers from {low} to {high - 1:,}, such as {shown(wrong[0])}'
      )
  return columns


def _names(
  info: tfds.core.DatasetInfo, field: str, place: pathlib.Path
) -> Sequence[str]:
  """What the values of a field mean; 'index' counts all images."""
  if field == 'index':
    return range(info.splits.total_num_examples)  # type: ignore[return-value]
  feature = dict(info.features.items()).get(field)
  # Without the file TFDS takes numbers for names, as many as are declared.
  file = place / f'{field}.labels.txt'
  if not isinstance(feature, tfds.features.ClassLabel) or not file.is_file():
    raise ValueError(f'its metadata name no values of {shown(field)}')
  return feature.names


def _check_levels(
  levels: Sequence[str], columns: Mapping[str, list[int]]
) -> None:
  for level in levels:
    if level not in columns or level in ('index', 'label'):
      raise ValueError(f'its metadata have no values of {shown(level)}')
    pairs = np.unique([columns['label'], columns[level]], axis=1)
    if pairs.shape[1] != len(set(columns['label'])):
      raise ValueError(f'some of its classes lie in several of {shown(level)}')


def _check_counts(split: tfds.core.SplitInfo) -> None:
  paths = split.filename_template.sharded_filepaths(split.num_shards)
  for path, said in zip(paths, split.shard_lengths, strict=True):
    reader = array_record_module.ArrayRecordReader(os.fspath(path))
    found = reader.num_records()
    reader.close()
    if found != said:
      raise ValueError(f'{path.name} holds {found:,} images, expected {said:,}')
