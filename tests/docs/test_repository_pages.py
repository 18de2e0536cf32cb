"""Links of pages, as they are on the site."""

import re

import repository_pages

from tests.support import pages, places

PAGE = pages.DOCS / 'training.md'


def rewritten(text, origin=PAGE, page=PAGE):
  return repository_pages.rewritten(text, origin, page)


def test_every_page_of_the_repository_exists():
  assert len(repository_pages.pages()) >= len(repository_pages.FILES) + 10
  names = list(repository_pages.pages().values())
  assert len(set(names)) == len(names)


def test_markdown_of_the_repository_has_its_page_here(monkeypatch):
  monkeypatch.delenv('DOCS_REPOSITORY', raising=False)
  link = '[x](../experiments/benchmarks/results/hier_loss.md#by-size)'
  assert rewritten(link) == '[x](/repository/benchmarks/hier_loss.md#by-size)'
  assert rewritten('[x](../CHANGELOG.md)') == '[x](/repository/changelog.md)'


def test_links_within_the_site_and_to_others_stay():
  text = '[a](data.md#batches-and-views) [b](#here) [c](https://x.org/a.md)'
  assert rewritten(text) == text


def test_code_is_downloaded_or_shown_in_the_repository(monkeypatch):
  link = '[x](../hier_jax/cli/verbs.py)'
  monkeypatch.delenv('DOCS_REPOSITORY', raising=False)
  assert rewritten(link) == link
  monkeypatch.setenv('DOCS_REPOSITORY', 'https://x.org/blob/main/')
  assert rewritten(link) == '[x](https://x.org/blob/main/hier_jax/cli/verbs.py)'


def test_links_of_a_copy_lead_where_those_of_its_origin_do(monkeypatch):
  monkeypatch.delenv('DOCS_REPOSITORY', raising=False)
  origin = places.ROOT / 'CHANGELOG.md'
  page = pages.DOCS / 'repository' / 'changelog.md'
  text = rewritten('[a](docs/look.md#figures) [b](setup.cfg)', origin, page)
  assert text == '[a](../look.md#figures) [b](../../setup.cfg)'


def links(path):
  """Files that a page or a copy of one links to, within the repository."""
  found = re.findall(r'\]\(([^)\s#:]+\.md)[^)]*\)', path.read_text('utf-8'))
  return [(path.parent / link).resolve() for link in found]


def test_markdown_that_is_linked_to_is_a_page():
  known = repository_pages.pages()
  pages_here = [p for p in pages.pages() if p.is_relative_to(pages.DOCS)]
  linked = {link for p in [*pages_here, *known] for link in links(p)}
  outside = {link for link in linked if not link.is_relative_to(pages.DOCS)}
  assert len(outside) >= 10
  assert outside <= {*known, places.ROOT / 'README.md'}
