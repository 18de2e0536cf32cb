"""Where images come from: folders, patterns, lists, prepared data sets."""

import dataclasses
import glob
import hashlib
import os
import pathlib
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from PIL import Image

from hier_jax import paths
from hier_jax.data import datasets, transforms
from hier_jax.data.builders import inside, walk
from hier_jax.errors import UserError, listed, plain

__all__ = ['LABELS', 'Source', 'of_files', 'open_source', 'ranked_split']

# Where the class of an image is read from.
LABELS = 'auto', 'folder', 'none'
_MAGIC = re.compile(r'[*?[]')
_DATASET = re.compile(r'(?P<name>[\w/-]+):(?P<split>\w+)')


@dataclasses.dataclass(frozen=True, eq=False)
class Source:
  """Images that are read one by one.

  Attributes:
    title: what a person calls it.
    ids: one text an image, no two the same: its path relative to the root, or
      'SPLIT/INDEX' of a data set.
    read: function from an image's number to its encoded bytes; raises OSError
      or UserError.
    labels: name of each image's class, or None if there are no classes.
    about: what files of embeddings record about it: the 'root' of its paths, or
      the 'data' set with its 'data_dir'.
    digest: a hash that changes with any image.
    notes: what was left out, one line each.
    max_megapixels: largest allowed size of an image.
  """

  title: str
  ids: tuple[str, ...]
  read: Callable[[int], bytes]
  labels: tuple[str, ...] | None
  about: Mapping[str, Any]
  digest: str
  notes: Sequence[str] = ()
  max_megapixels: float = transforms.MAX_MEGAPIXELS

  def __len__(self) -> int:
    """The number of images."""
    return len(self.ids)

  def image(self, number: int) -> Image.Image:
    """A picture as RGB.

    Raises:
      UserError: it cannot be read; the message says why but does not name it.
    """
    try:
      data = self.read(number)
    except OSError as error:
      raise UserError(error.strerror or str(error)) from error
    return transforms.decode(data, 'it', self.max_megapixels)

  def select(self, numbers: Sequence[int]) -> 'Source':
    """Some of the images, in this order."""
    pick = lambda values: tuple(values[i] for i in numbers)
    return dataclasses.replace(
      self,
      ids=pick(self.ids),
      read=lambda number: self.read(numbers[number]),
      labels=None if self.labels is None else pick(self.labels),
      digest=_hash([self.digest, list(numbers)]),
    )


def open_source(
  text: str | os.PathLike,
  *,
  labels: str = 'auto',
  root: str | os.PathLike | None = None,
  data_dir: str | os.PathLike | None = None,
) -> Source:
  """Finds the images of a source; opens none.

  Args:
    text: a folder, of which all images at any depth are taken; a pattern such
      as 'photos/**/*.jpg'; the path of one image; a .txt with one path per
      line, relative to its folder, optionally followed by a tab and a class; or
      DATASET:SPLIT, such as 'emoji:test'.
    labels: one of `LABELS`. 'folder': an image's class is the first folder
      below the source. 'auto': the same if all images are SOURCE/CLASS/IMAGE
      and there are two or more classes, else no labels. Lists and data sets
      have their own labels, which 'none' leaves out.
    root: folder to which ids are relative; None for the source's folder.
    data_dir: where prepared data sets lie.

  Raises:
    UserError: there is no such source, it holds no image, or labels are asked
      for but there are no folders.
  """
  if labels not in LABELS:
    raise UserError(f'labels are {labels!r}; expected {", ".join(LABELS)}')
  name = os.fspath(text)
  match = _DATASET.fullmatch(name)
  if match and not os.path.exists(name):
    return _of_split(match['name'], match['split'], labels, data_dir)
  path = paths.as_local(text, 'the source')
  if path.is_dir():
    files, notes = walk.Walk(path, inside.Inside(path)).all_images()
    return _of_paths(name, path, files, labels, root, notes)
  if path.suffix == '.txt' and path.is_file():
    return _of_list(path, labels, root)
  if path.is_file():
    return _of_paths(name, path.parent, [path], labels, root)
  if _MAGIC.search(name):
    found = glob.glob(str(path), recursive=True)
    files = sorted(p for p in map(pathlib.Path, found) if p.is_file())
    return _of_paths(name, _fixed(path), files, labels, root)
  raise UserError(
    f'there is no source {plain(name)}: expected a folder of images, a pattern'
    " such as 'photos/*.jpg', an image, a .txt with a path a line, or"
    ' DATASET:SPLIT such as emoji:test'
  )


def of_files(files: Iterable[str | os.PathLike], title: str) -> Source:
  """The images of files, in this order; ids are paths as they are given."""
  found = list(dict.fromkeys(paths.as_local(file, 'image') for file in files))
  return _source(title, found, [str(file) for file in found], None, {})


def _of_paths(title, folder, files, labels, root, notes=()) -> Source:
  """The images of files that lie below a folder."""
  if not files:
    more = f' ({"; ".join(notes)})' if notes else ''
    raise UserError(f'{plain(title)} holds no image{more}')
  parts = [file.relative_to(folder).parts for file in files]
  classes = None
  if labels == 'folder':
    classes = _folders(parts, folder)
  elif labels == 'auto' and {len(p) for p in parts} == {2}:
    found = tuple(p[0] for p in parts)
    classes = found if len(set(found)) > 1 else None
  return _under(title, files, classes, root or folder, notes)


def _folders(parts, folder):
  loose = ['/'.join(p) for p in parts if len(p) < 2]
  if loose:
    raise UserError(
      f'{len(loose):,} images lie in {folder} itself and in no folder of a'
      f' class: {listed(loose)}; move them, or take --labels none'
    )
  return tuple(p[0] for p in parts)


def _under(title, files, classes, root, notes=()) -> Source:
  """The images of files, with ids relative to a root where they lie in it."""
  root = os.path.abspath(root)
  ids = [_relative(os.path.abspath(file), root) for file in files]
  first = _first(title, ids, classes)
  pick = lambda values: [values[number] for number in first]
  known = None if classes is None else tuple(pick(classes))
  about = {'root': root}
  return _source(title, pick(files), pick(ids), known, about, notes)


def _relative(file: str, root: str) -> str:
  whole = pathlib.Path(file)
  inner = whole.is_relative_to(root)
  return (whole.relative_to(root) if inner else whole).as_posix()


def _first(title, ids, classes) -> list[int]:
  """The number of each image, where it is named first.

  Raises:
    UserError: an image has two classes.
  """
  first: dict[str, int] = {}
  twice = {}
  for number, name in enumerate(ids):
    same = first.setdefault(name, number)
    if classes is not None and classes[same] != classes[number]:
      twice[f'{name} ({classes[same]}, {classes[number]})'] = name
  if twice:
    raise UserError(
      f'{plain(title)} names two classes for {len(set(twice.values()))} images:'
      f' {listed(list(twice))}; expected one for each'
    )
  return list(first.values())


def _of_list(path, labels, root) -> Source:
  try:
    lines = path.read_text('utf-8-sig').splitlines()
  except (OSError, ValueError) as error:
    raise UserError(
      f'{path} cannot be read as a list: {plain(str(error))}'
    ) from error
  rows = [line.partition('\t') for line in lines if line.strip()]
  named = [(name.strip(), label.strip()) for name, _, label in rows]
  if not named:
    raise UserError(f'{path} lists no image; expected a path a line')
  files = [path.parent / name for name, _ in named]
  known = [label for _, label in named if label]
  classes = None
  if labels == 'folder':
    raise UserError(
      f'{path} is a list: write the class of each image after its path and a'
      ' tab, and leave out --labels folder'
    )
  if labels == 'auto' and known:
    if len(known) < len(named):
      bad = [name for name, label in named if not label]
      raise UserError(
        f'{path} names no class for {len(bad)} of {len(named)} images:'
        f' {listed(bad)}; expected one a line, or --labels none'
      )
    classes = tuple(known)
  return _under(str(path), files, classes, root or path.parent)


def ranked_split(name: str, data_dir: str | os.PathLike | None = None) -> str:
  """The split of a data set that is searched: its test, or gallery, images."""
  splits = datasets.load(name, data_dir=data_dir)
  return 'test' if 'test' in splits else 'gallery'


def _of_split(name, split_name, labels, data_dir) -> Source:
  splits = datasets.load(name, data_dir=data_dir)
  if split_name not in splits:
    raise UserError(
      f'{name} has no split {split_name!r}; it has {", ".join(splits)}'
    )
  split = splits[split_name]
  classes = None
  if labels != 'none':
    names = list(split.names.get('label', map(str, split.numbers.tolist())))
    classes = tuple(names[label] for label in split.labels)
  about = {'data': f'{name}:{split_name}'}
  if data_dir is not None:
    about['data_dir'] = os.path.abspath(paths.as_local(data_dir, 'data_dir'))
  return Source(
    split.name,
    tuple(f'{split_name}/{row}' for row in range(len(split))),
    lambda number: split.source[number]['image'],
    classes,
    about,
    split.digest or _hash([split.name, len(split)]),
    max_megapixels=split.max_megapixels,
  )


def _source(title, files, ids, classes, about, notes=()) -> Source:
  stamps = [
    (name, *_stamp(file)) for name, file in zip(ids, files, strict=True)
  ]
  return Source(
    title,
    tuple(ids),
    lambda number: files[number].read_bytes(),
    classes,
    about,
    _hash([stamps, classes]),
    tuple(notes),
  )


def _stamp(file):
  """What changes with a file."""
  try:
    found = os.stat(file)
  except OSError:
    return (-1, -1)
  return found.st_size, found.st_mtime_ns


def _fixed(path):
  """The folder of a pattern, down to its first part that is one."""
  parts = path.parts
  first = next(i for i, part in enumerate(parts) if _MAGIC.search(part))
  return pathlib.Path(*parts[:first])


def _hash(value) -> str:
  text = repr(value).encode(errors='surrogateescape')
  return hashlib.sha256(text).hexdigest()[:32]
