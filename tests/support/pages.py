"""What the pages of the documentation show: commands, blocks of code, names."""

import pathlib
import re
import shlex

from tests.support import places

DOCS = places.ROOT / 'docs'
# What the site is made with; the modules are scripts and no package.
EXTENSIONS = DOCS / '_ext'
# Marks of a form that is no command yet: PLACEHOLDER, [option], |, ...
_FORM = re.compile(r'(?<![\w.])[A-Z]{2,}(?![\w/]*\.)|\[--|\.\.\.| \| ')


def pages() -> list[pathlib.Path]:
  """README and the site's own pages."""
  return [places.ROOT / 'README.md', *sorted(DOCS.glob('*.md'))]


def _blocks(text: str) -> list[str]:
  """Code: fenced blocks that are no Python, indented lines, and spans."""
  fenced = re.findall(r'^```(?:bash|text)\n(.*?)^```', text, flags=re.S | re.M)
  rest = re.sub(r'^```.*?^```', '', text, flags=re.S | re.M)
  lines = re.findall(r'^    (\S.*)$', rest, flags=re.M)
  spans = re.findall(r'`((?:hier-jax|python) [^`]+)`', rest)
  return [
    *fenced,
    '\n'.join(lines),
    *(span.replace('\n', ' ') for span in spans),
  ]


def commands(text: str) -> list[list[str]]:
  """Words of every command of ours that a page shows, forms left out."""
  found = []
  for block in _blocks(text):
    for line in re.sub(r'\s*\\\n\s*', ' ', block).splitlines():
      for part in re.split(r' && ', re.sub(r'\s+#.*$', '', line)):
        if re.match(r'(hier-jax|python)\s', part) and not _FORM.search(part):
          found.append(shlex.split(part))
  return found


def forms(text: str) -> list[str]:
  """Command lines of ours with placeholders in them."""
  lines = [
    line
    for block in _blocks(text)
    for line in re.sub(r'\n {4,}(?=\[|--)', ' ', block).splitlines()
  ]
  return [
    line.strip()
    for line in lines
    if line.strip().startswith('hier-jax') and _FORM.search(line)
  ]
