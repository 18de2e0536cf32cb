"""Looks for links within a built site that lead nowhere.

    python docs/_ext/check_links.py docs/_build/html

Files, pages and anchors are checked, and nothing outside the folder: a network
is not needed. `sphinx-build -b linkcheck` checks the addresses of other sites.
"""

import functools
import html.parser
import pathlib
import sys
import urllib.parse

# Attribute of a link by tag.
_LINKS = {'a': 'href', 'img': 'src', 'link': 'href', 'script': 'src'}


class _Page(html.parser.HTMLParser):
  """Collects a page's links and anchors."""

  def __init__(self) -> None:
    super().__init__()
    self.links: list[str] = []
    self.anchors: set[str] = set()

  def handle_starttag(self, tag, attrs) -> None:
    found = dict(attrs)
    self.anchors |= {found[k] for k in ('id', 'name') if found.get(k)}
    if link := found.get(_LINKS.get(tag, '')):
      self.links.append(link)


@functools.cache
def _read(path: pathlib.Path) -> _Page:
  page = _Page()
  page.feed(path.read_text(encoding='utf-8'))
  return page


def _is_broken(link: str, page: pathlib.Path) -> bool:
  parts = urllib.parse.urlsplit(link)
  if parts.scheme or parts.netloc:
    return False
  path = urllib.parse.unquote(parts.path)
  target = (page.parent / path).resolve() if path else page
  if not target.is_file():
    return True
  anchor = urllib.parse.unquote(parts.fragment)
  # A page that scripts fill, such as the search, has no anchors of its own.
  known = bool(anchor) and target.suffix == '.html'
  return known and anchor not in _read(target).anchors


def broken(site: pathlib.Path) -> list[tuple[str, str]]:
  """(page, link) of each link that leads nowhere."""
  pages = sorted(site.resolve().rglob('*.html'))
  return [
    (page.relative_to(site.resolve()).as_posix(), link)
    for page in pages
    for link in dict.fromkeys(_read(page).links)
    if _is_broken(link, page)
  ]


def main(site: str) -> int:
  """Prints what is broken; the exit code is 1 if anything is."""
  found = broken(pathlib.Path(site))
  for page, link in found:
    print(f'{page}: {link}')
  pages = sum(1 for _ in pathlib.Path(site).rglob('*.html'))
  print(f'{pages} pages, {len(found)} broken links')
  return bool(found)


if __name__ == '__main__':
  sys.exit(main(*sys.argv[1:]))
