"""Prepared data sets, opened without running what their files name."""

import json
import pathlib

import tensorflow_datasets as tfds
from google.protobuf import json_format
from tensorflow_datasets.core.proto import feature_pb2

from hier_jax.errors import UserError, shown

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

_DAMAGE = (
  AttributeError,
  KeyError,
  OSError,
  RecursionError,
  TypeError,
  ValueError,
  json_format.ParseError,
)


def read_builder(place: pathlib.Path) -> tfds.core.DatasetBuilder:
  """Returns TFDS's reader of a prepared data set.

  TFDS imports the module of every class that `features.json` names, and finds
  modules in the working folder too: the names are checked before it does.

  Args:
    place: the folder that holds `features.json`.

  Raises:
    UserError: the files name other classes than the builders here write, or
      are damaged or missing.
  """
  try:
    _check_classes(place / 'features.json')
    return tfds.builder_from_directory(place)
  except _DAMAGE as error:
    if isinstance(error, UserError):
      raise
    raise UserError(
      f'data set {place} cannot be read ({shown(str(error))}): remove that'
      ' folder and prepare it anew'
    ) from error


def _check_classes(path):
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
