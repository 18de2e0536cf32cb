"""Small stand-ins for the packages of icons and of WordNet."""

import hashlib
import io
import json
import re
import tarfile

import numpy as np

from experiments.icons import sets, sources, wordnet

# Synset -> hypernym, lemmas, and whether it is a proper name; the first sense
# of a lemma comes first. Lemmas are joined by blanks.
SYNSETS = {
  1: (0, 'entity', False),
  2: (1, 'physical_entity', False),
  3: (2, 'animal', False),
  4: (3, 'dog domestic_dog', False),
  5: (3, 'cat', False),
  6: (2, 'tool', False),
  7: (6, 'watch', False),
  8: (6, 'traffic_light', False),
  9: (1, 'music', False),
  10: (1, 'heart', False),
  11: (2, 'heart', False),
  12: (3, 'Rex', True),
  13: (6, 'apple', False),
  14: (6, 'mouse', False),
  15: (3, 'mouse', False),
  16: (6, 'berry', False),
}
# Lemma, part of speech, synset -> how often texts use it so.
USES = {
  ('watch', 2, 0): 9,
  ('watch', 1, 7): 5,
  ('heart', 1, 10): 6,
  ('heart', 1, 11): 4,
}


def texts(synsets=None, uses=None):
  """The texts of index.noun, data.noun and index.sense."""
  synsets = SYNSETS if synsets is None else synsets
  senses = {}
  data = ['  1 This software is licensed']
  for number, (parent, lemmas, name) in synsets.items():
    words = lemmas.split()
    for word in words:
      senses.setdefault(word.lower(), []).append(number)
    pointers = [f'{"@i" if name else "@"} {parent:08} n 0000'] * bool(parent)
    pointers.append('~ 00000099 n 0000')
    fields = [f'{number:08} 03 n {len(words):02x}']
    fields += [f'{word} 0' for word in words]
    data.append(' '.join([*fields, f'{len(pointers):03}', *pointers]) + ' | x')
  index = ['  1 This software is licensed']
  for lemma, found in senses.items():
    offsets = ' '.join(f'{n:08}' for n in found)
    number = len(found)
    index.append(f'{lemma} n {number} 2 @ ~ {number} 0 {offsets}')
  sense = [
    f'{lemma}%{part}:05:00:: {number:08} 1 {count}'
    for (lemma, part, number), count in (USES if uses is None else uses).items()
  ]
  return tuple('\n'.join(lines) + '\n' for lines in (index, data, sense))


def nouns(*args):
  """The small WordNet."""
  return wordnet.WordNet(*texts(*args))


def data(prefix, names, **more):
  """The file of a set; icons are names, or names with what they have."""
  icons = names if isinstance(names, dict) else {name: {} for name in names}
  info = {
    'name': prefix.title(),
    'author': {'name': more.pop('author', prefix), 'url': 'https://x.org'},
    'license': {'spdx': more.pop('license', 'MIT'), 'url': 'https://x.org/l'},
    'category': more.pop('category', 'UI 24px'),
  }
  bodies = {k: {'body': body(f'{prefix} {k}')} | v for k, v in icons.items()}
  return {'prefix': prefix, 'info': info, 'icons': bodies, **more}


def icon_sets(*files):
  """Prefix -> set, with the two sets of brands."""
  brands = data('bxl', ['apple'], category='Logos', license='CC0-1.0')
  more = data('fa7-brands', ['git-alt'], category='Logos')
  found = [sets.IconSet(file) for file in (brands, more, *files)]
  return {icons.prefix: icons for icons in found}


def body(seed):
  """A body that `drawn` makes an image of, the same of the same seed."""
  return f'<path d="{seed}"/>'


def drawn(svg, size):
  """What stands for drawing: noise by the path's text, None for 'blank'."""
  (seed,) = re.findall('d="([^"]*)"', svg)
  if seed == 'blank':
    return None
  number = int(hashlib.sha256(seed.encode()).hexdigest()[:8], 16)
  rng = np.random.default_rng(number)
  cells = rng.integers(0, 256, (16, 16), np.uint8)
  return np.kron(cells, np.ones((size // 16, size // 16), np.uint8))


def archive(package, files, folder):
  """Writes the archive of a package, and returns the package with its hash."""
  path = folder / package.file
  with tarfile.open(path, 'w:gz') as opened:
    for name, content in files.items():
      member = tarfile.TarInfo(f'package/{name}')
      member.size = len(content)
      opened.addfile(member, io.BytesIO(content))
  sha512 = hashlib.sha512(path.read_bytes()).hexdigest()
  return package._replace(sha512=sha512)


def archives(folder, *files):
  """Archives of both packages: the sets and the small WordNet."""
  listed = {f'json/{f["prefix"]}.json': json.dumps(f).encode() for f in files}
  listed['package.json'] = b'{}'
  names = 'index.noun', 'data.noun', 'index.sense'
  words = {f'dict/{k}': v.encode() for k, v in zip(names, texts(), strict=True)}
  return (
    archive(sources.ICONS, listed, folder),
    archive(sources.WORDNET, words, folder),
  )
