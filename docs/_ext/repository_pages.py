"""Pages of the site that lie elsewhere in the repository, and links to it.

Pages are written to be read on GitHub too, so that they link to files by their
paths. Here a link to a Markdown file outside docs/ becomes one to its copy on
the site, and a link to any other file one to the repository, where
`DOCS_REPOSITORY` says where that is (https://github.com/OWNER/NAME/blob/main),
else to a copy that can be downloaded.
"""

import os
import pathlib
import re

DOCS = pathlib.Path(__file__).resolve().parents[1]
ROOT = DOCS.parent
# The folder of the copies, which git does not know.
COPIES = 'repository'
_RESULTS = 'experiments/benchmarks/results'
# Files of the repository that are pages here.
FILES = (
  'CHANGELOG.md',
  'CONTRIBUTING.md',
  'SECURITY.md',
  'experiments/emoji/README.md',
  'experiments/icons/README.md',
  'experiments/parity/README.md',
  'experiments/study/PLAN.md',
  'experiments/study/RESULTS.md',
  'experiments/study/VARIANTS.md',
  'hier_jax/data/builders/emoji_assets/ATTRIBUTION.md',
)
_LINK = re.compile(r'(?<=\]\()([^)\s]+)(?=\))')


def pages() -> dict[pathlib.Path, str]:
  """File of the repository -> its page here, without the suffix."""
  found = [ROOT / name for name in FILES]
  found += sorted((ROOT / _RESULTS).glob('*.md'))
  return {path: f'{COPIES}/{_name(path)}' for path in found if path.exists()}


def _name(path: pathlib.Path) -> str:
  if path.name == 'README.md':
    return path.parent.name.lower()
  if path.is_relative_to(ROOT / _RESULTS):
    return f'benchmarks/{path.stem}'
  return path.stem.lower()


def rewritten(text: str, origin: pathlib.Path, page: pathlib.Path) -> str:
  """A page's text with links as they are on the site.

  Args:
    text: Markdown.
    origin: file that the text comes from, whose links are relative to it.
    page: file that it is a page in.
  """
  known = pages()
  repository = os.environ.get('DOCS_REPOSITORY', '').rstrip('/')

  def target(match: re.Match[str]) -> str:
    path, mark, anchor = match[1].partition('#')
    if not path or ':' in path or path.startswith('/'):
      return match[1]
    file = (origin.parent / path).resolve()
    if file in known:
      return f'/{known[file]}.md{mark}{anchor}'
    inside = file.is_relative_to(DOCS)
    if not inside and repository:
      return f'{repository}/{file.relative_to(ROOT).as_posix()}{mark}{anchor}'
    return f'{os.path.relpath(file, page.parent)}{mark}{anchor}'

  return _LINK.sub(target, text)


def _copy(app) -> None:
  for path, name in pages().items():
    page = DOCS / f'{name}.md'
    text = rewritten(path.read_text(encoding='utf-8'), path, page)
    if not page.exists() or page.read_text(encoding='utf-8') != text:
      page.parent.mkdir(parents=True, exist_ok=True)
      page.write_text(text, encoding='utf-8')


def _read(app, docname: str, source: list[str]) -> None:
  page = DOCS / f'{docname}.md'
  if page.exists() and not docname.startswith(f'{COPIES}/'):
    source[0] = rewritten(source[0], page, page)


def setup(app) -> dict[str, bool]:
  """Copies the pages before Sphinx looks for them."""
  app.connect('builder-inited', _copy)
  app.connect('source-read', _read)
  return {'parallel_read_safe': True}
