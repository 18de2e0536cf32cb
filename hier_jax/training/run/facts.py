"""Facts of a run that all its processes must share, and their fingerprints."""

import dataclasses
import hashlib
import json
import pathlib
from collections.abc import Mapping

import jax
import numpy as np
from ml_collections import ConfigDict

from hier_jax.data.datasets import Split
from hier_jax.training.config import default as config_lib

__all__ = [
  'class_fingerprints',
  'code_fingerprint',
  'data_fingerprints',
  'of_run',
]


def of_run(config: ConfigDict, splits: Mapping[str, Split]) -> dict[str, str]:
  """Name of a fact -> its value as text: code, JAX, config and data.

  Args:
    config: the whole config; keys that may differ between hosts are left out.
    splits: name -> split; none of their images is read.
  """
  return {
    'hier_jax code': code_fingerprint(),
    'jax': jax.__version__,
    **config_lib.facts(config),
    **data_fingerprints(splits),
  }


def code_fingerprint() -> str:
  """Hash of this package's modules and their names, 16 hex digits."""
  root = pathlib.Path(__file__).parents[2]
  found = hashlib.sha256()
  for path in sorted(root.rglob('*.py')):
    found.update(f'{path.relative_to(root).as_posix()}\0'.encode())
    found.update(hashlib.sha256(path.read_bytes()).digest())
  return found.hexdigest()[:16]


def data_fingerprints(splits: Mapping[str, Split]) -> dict[str, str]:
  """`split NAME` -> size and hash of its labels, fields and names.

  Args:
    splits: name -> split; none of their images is read.
  """
  return {f'split {k}': _fingerprint(split) for k, split in splits.items()}


def class_fingerprints(splits: Mapping[str, Split]) -> dict[str, str]:
  """`split NAME` -> size and hash of its images' classes, by their names.

  A data set that gets a taxonomy after a run keeps them.

  Args:
    splits: name -> split; none of their images is read.
  """
  bare = {
    name: dataclasses.replace(
      split, fields={}, names={'label': split.names.get('label', ())}
    )
    for name, split in splits.items()
  }
  return data_fingerprints(bare)


def _fingerprint(split: Split) -> str:
  names = {key: list(values) for key, values in split.names.items()}
  found = hashlib.sha256(json.dumps([split.name, names]).encode())
  for field, values in sorted({**split.fields, 'label': split.labels}.items()):
    found.update(f'{field}\0'.encode())
    found.update(np.ascontiguousarray(values, np.int64).tobytes())
  return f'{len(split.source):,} records {found.hexdigest()[:16]}'
