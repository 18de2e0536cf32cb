"""The images below folders of one's own, and what else lies there."""

import collections
import mimetypes
import os
import pathlib
from collections.abc import Collection, Iterator

from PIL import Image

from hier_jax.data import transforms
from hier_jax.data.builders import inside, tables
from hier_jax.errors import UserError

_SUFFIXES = {
  suffix
  for suffix, form in Image.registered_extensions().items()
  if form in transforms.FORMATS
}
# What file managers and file systems leave behind, beside names with a dot.
_SYSTEM = {
  *('@eaDir', '#recycle', '@Recycle', '$RECYCLE.BIN', '__MACOSX'),
  *('System Volume Information', 'lost+found', 'Thumbs.db', 'desktop.ini'),
}
# Kind of finding -> what it is.
_NOTES = {
  'stray': 'skipped {} files that are no images by name',
  'system': 'skipped {} hidden or system files and folders',
  'outside': 'skipped {} files outside of class folders',
  'deeper': 'took {} images from folders within class folders',
}
_FAULTS = {
  'lost': '{} links lead nowhere (fetch what they name, as with git annex get '
  'or dvc checkout, or remove them)',
  'away': f'{{}} links lead to folders outside of it: {inside.REMEDY}',
  'again': '{} folders are others once more, by links (remove one of the two)',
  'foreign': '{} images are of formats that are not read (convert them to JPEG '
  'or PNG, or remove them)',
  'empty': '{} class folders hold no image (remove them)',
  'nested': '{} class folders hold only folders (put all classes side by side, '
  'and what they belong to in taxonomy.csv)',
}


class Walk:
  """Lists folders below a root, and keeps what is not simply an image.

  Links are followed, those to folders only within the root.

  Args:
    root: what messages name paths from.
    within: the same, as what links may lead to.
  """

  def __init__(self, root: pathlib.Path, within: inside.Inside) -> None:
    self._root, self._within = root, within
    self._found = collections.defaultdict[str, list[pathlib.Path]](list)
    self._seen = {os.path.realpath(root)}

  def folders(
    self, folder: pathlib.Path, known: Collection[str] = ()
  ) -> dict[str, pathlib.Path]:
    """Name -> folder in one where no files are expected but the known."""
    folders, files = self._entries(folder)
    self._found['outside'] += [x for x in files if x.name not in known]
    return {path.name: path for path in folders}

  def images(self, folder: pathlib.Path) -> list[pathlib.Path]:
    """The images of a class, at any depth."""
    images = sorted(self._images(folder))
    deeper = [path for path in images if path.parent != folder]
    below = {path.relative_to(folder).parts[0] for path in deeper}
    if not images:
      self._found['empty'].append(folder)
    # A single one, as in CLASS/images/IMAGE, mixes no classes.
    elif len(deeper) == len(images) and len(below) > 1:
      self._found['nested'].append(folder)
    self._found['deeper'] += deeper
    return images

  def all_images(self) -> tuple[list[pathlib.Path], list[str]]:
    """All images below the root, and what else is there, a line each.

    They include images that cannot be read: other formats, and links to
    nothing.
    """
    images = [*self._images(self._root)]
    unread = self._found.pop('foreign', []) + self._found.pop('lost', [])
    return sorted(images + unread), self.notes() + self._told(_FAULTS)

  def check(self, layouts: str) -> None:
    """Raises UserError for what can be neither taken nor left out.

    Args:
      layouts: which layouts of folders are expected.
    """
    if faults := self._told(_FAULTS):
      raise UserError(f'{self._root}: {"; ".join(faults)}. {layouts}')

  def notes(self) -> list[str]:
    """What was left out, or taken from where few look, a line each."""
    return self._told(_NOTES)

  def _told(self, kinds: dict[str, str]) -> list[str]:
    told = []
    for kind, text in kinds.items():
      if paths := sorted(self._found[kind]):
        names = [path.relative_to(self._root).as_posix() for path in paths]
        told.append(f'{text.format(f"{len(names):,}")}: {tables.listed(names)}')
    return told

  def _images(self, folder: pathlib.Path) -> Iterator[pathlib.Path]:
    folders, files = self._entries(folder)
    for path in files:
      kind, _ = mimetypes.guess_type(path.name)
      if path.suffix.lower() in _SUFFIXES:
        yield path
      elif kind is not None and kind.startswith('image/'):
        self._found['foreign'].append(path)
      else:
        self._found['stray'].append(path)
    for path in folders:
      yield from self._images(path)

  def _entries(
    self, folder: pathlib.Path
  ) -> tuple[list[pathlib.Path], list[pathlib.Path]]:
    """The folders and the files in a folder that count."""
    folders, files = [], []
    try:
      for path in sorted(folder.iterdir()):
        if path.name.startswith('.') or path.name in _SYSTEM:
          self._found['system'].append(path)
        elif path.is_dir():
          if self._is_new(path):
            folders.append(path)
        elif path.is_file():
          files.append(path)
        else:
          # A link to nothing; or a pipe, a socket or a device.
          self._found['stray' if path.exists() else 'lost'].append(path)
    except OSError as error:
      raise UserError(f'{folder} cannot be read: {error.strerror}') from error
    return folders, files

  def _is_new(self, folder: pathlib.Path) -> bool:
    """Whether links lead here that stay within, and in no circle."""
    real = os.path.realpath(folder)
    if not self._within.holds(real):
      self._found['away'].append(folder)
      return False
    if real in self._seen:
      self._found['again'].append(folder)
      return False
    self._seen.add(real)
    return True
