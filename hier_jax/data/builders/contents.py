"""What a data set holds: its images, its classes and the tree above them."""

import collections
import dataclasses
import hashlib
import pathlib
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import tensorflow_datasets as tfds

from hier_jax.data.builders import shards
from hier_jax.errors import UserError, listed, shown


@dataclasses.dataclass(frozen=True)
class Contents:
  """What a data set holds, before any image is read.

  Attributes:
    splits: the records of each split, in their final order.
    names: what the values of each field mean, 'label' first.
    levels: the fields that make the tree above the classes, coarsest first.
    layout: which of the published layouts or releases this is.
    notes: what was left out of it, a line each.
  """

  splits: Mapping[str, Sequence[shards.Record]]
  names: Mapping[str, Sequence[str]]
  levels: Sequence[str]
  layout: str
  notes: Sequence[str] = ()

  @property
  def digest(self) -> str:
    """A hash of the images, their labels and the names of these."""
    names = [(field, list(values)) for field, values in self.names.items()]
    lists = [
      (k, [(r.path, r.fields) for r in v]) for k, v in self.splits.items()
    ]
    text = repr((list(self.levels), names, lists))
    return hashlib.sha256(text.encode()).hexdigest()


def check_names(names: Mapping[str, Sequence[str]]) -> None:
  """Raises UserError for names that TFDS would lose or change.

  It keeps a name a line, and strips what it reads: one name may become two, or
  none, and those behind it another class's.

  Args:
    names: see `Contents`.
  """
  for field, values in names.items():
    if _are_kept(values):
      continue
    lost = [repr(value) for value in values if not _are_kept([value])]
    what = 'classes' if field == 'label' else f'values of {field!r}'
    raise UserError(
      f'{len(lost):,} {what} have names that cannot be kept: {listed(lost)}; '
      'expected UTF-8 without line breaks and without white space at either '
      'end: rename them'
    )


def _are_kept(names: Sequence[str]) -> bool:
  """Whether TFDS reads the names that it writes."""
  written, read = (
    tfds.features.ClassLabel(names=names),
    tfds.features.ClassLabel(),
  )
  with tempfile.TemporaryDirectory() as folder:
    try:
      written.save_metadata(folder, 'label')
      read.load_metadata(folder, 'label')
    # It is not UTF-8, or what is read is doubled.
    except ValueError:
      return False
  return read.names == list(names)


class Image(NamedTuple):
  """One image: its name in the data set, its file and its class."""

  path: str
  file: pathlib.Path
  label: int


def of_classes(
  splits: Mapping[str, Iterable[Image]],
  classes: Sequence[str],
  attributes: Mapping[str, Sequence[str]],
  *,
  levels: Sequence[str],
  layout: str,
) -> Contents:
  """Returns the contents of a data set whose fields all belong to classes.

  Args:
    splits: the images of each split, in their final order.
    classes: names `[C]`.
    attributes: `[C]` each, what is known of the classes; '' is nothing.
    levels: the attributes that make the tree above the classes, coarsest
      first.
    layout: see `Contents`.

  Raises:
    UserError: when `levels` make no tree.
  """
  _check_tree([attributes[level] for level in levels], levels)
  names = {
    field: sorted(set(values) - {''}) for field, values in attributes.items()
  }
  codes = {
    # -1 is TFDS's own way to say that a label is missing.
    field: [{'': -1, **_numbered(names[field])}[v] for v in values]
    for field, values in attributes.items()
  }
  records: dict[str, list[shards.Record]] = {}
  index = 0
  for split, images in splits.items():
    records[split] = []
    for image in images:
      fields = {field: values[image.label] for field, values in codes.items()}
      fields = {'index': index, 'label': image.label, **fields}
      records[split].append(shards.Record(image.path, image.file, fields))
      index += 1
  return Contents(records, {'label': classes, **names}, levels, layout)


def _numbered(names: Sequence[str]) -> dict[str, int]:
  return {name: i for i, name in enumerate(names)}


def _check_tree(
  columns: Sequence[Sequence[str]], levels: Sequence[str]
) -> None:
  for upper, lower, level in zip(
    columns, columns[1:], levels[1:], strict=False
  ):
    parents = collections.defaultdict(set)
    for parent, node in zip(upper, lower, strict=True):
      if node:
        parents[node].add(parent)
    if several := {k: sorted(v) for k, v in parents.items() if len(v) > 1}:
      name, found = next(iter(several.items()))
      raise UserError(
        f'the taxonomy is not a tree: {len(several)} values of {shown(level)} '
        f'lie below several others, {shown(name)} below {shown(found)}; '
        'expected one each: rename those that only share a name'
      )
