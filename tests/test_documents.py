"""README and docs: what they show runs, and what they link to exists."""

import pathlib
import re

import pytest

import hier_jax
from tests.support import places

PAGES = [
  *places.ROOT.glob('*.md'),
  *(places.ROOT / 'docs').glob('*.md'),
  *(places.ROOT / 'docs' / 'api').glob('*.md'),
  *(places.ROOT / 'experiments').rglob('*.md'),
]


def name(path):
  return path.relative_to(places.ROOT).as_posix()


def without_code(text):
  return re.sub(r'^```.*?^```|`[^`\n]*`', '', text, flags=re.S | re.M)


def anchors(text):
  """Those that a page's headings have on GitHub."""
  headings = re.findall(r'^#+ (.+)$', text, flags=re.M)
  kept = (re.sub(r'[^\w\- ]', '', heading).lower() for heading in headings)
  return {heading.replace(' ', '-') for heading in kept}


@pytest.mark.parametrize('page', PAGES, ids=name)
def test_links_lead_somewhere(page):
  broken = []
  text = without_code(page.read_text())
  for target in re.findall(r'\]\(([^)\s]+)\)', text):
    if '://' in target:
      continue
    path, _, anchor = target.partition('#')
    other = page.parent / path if path else page
    if not other.exists() or (
      anchor and anchor not in anchors(other.read_text())
    ):
      broken.append(target)
  assert not broken


def python_blocks():
  for page in PAGES:
    for i, code in enumerate(
      re.findall(r'^```python\n(.*?)^```', page.read_text(), flags=re.S | re.M)
    ):
      if page.parent in (places.ROOT, places.ROOT / 'docs'):
        yield pytest.param(code, id=f'{name(page)}-{i}')


@pytest.mark.slow
@pytest.mark.parametrize('code', list(python_blocks()))
def test_code_runs_as_printed(code, capsys, tmp_path, monkeypatch):
  """A comment behind `print(...)` is what it prints."""
  monkeypatch.chdir(tmp_path)
  if 'pretrained.load(' in code:
    monkeypatch.setattr(
      'hier_jax.models.weights.pretrained.load',
      lambda source, model: pytest.skip('the weights come from the hub'),
    )
  exec(compile(code, 'page', 'exec'), {})
  shown = re.findall(r'^print\(.*\)  # (.*)$', code, flags=re.M)
  assert capsys.readouterr().out.splitlines() == shown


def test_readme_is_short_and_names_the_commands_that_ci_runs():
  text = (places.ROOT / 'README.md').read_text()
  assert len(text.splitlines()) <= 150
  assert "    pip install -e '.[test]' && pytest\n" in text
  ci = (places.ROOT / '.ci' / 'run').read_text()
  assert "install --quiet --disable-pip-version-check -e '.[test]'" in ci


def test_versions_agree():
  cited = (places.ROOT / 'CITATION.cff').read_text()
  assert f'version: {hier_jax.__version__}\n' in cited
  assert (
    f'## {hier_jax.__version__}' in (places.ROOT / 'CHANGELOG.md').read_text()
  )


def test_modules_that_pages_name_exist():
  missing = []
  for page in PAGES:
    for path in re.findall(
      r'(?<![\w/.])((?:hier_jax|tests|experiments)/[\w/]+\.py)\b',
      page.read_text(),
    ):
      if not (places.ROOT / pathlib.PurePosixPath(path)).exists():
        missing.append((name(page), path))
  assert not missing
