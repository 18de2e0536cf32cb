"""Tables that the site makes of the code."""

import inspect
import re

import pytest
import tables

from hier_jax import cli, losses
from hier_jax.training.config import default as config_lib
from hier_jax.training.config import presets
from hier_jax.training.config.meanings import MEANINGS
from hier_jax.training.step import objective
from tests.support import pages

KEYS = tuple(config_lib.flatten(config_lib.default_config()))


@pytest.mark.parametrize('key', KEYS)
def test_every_key_of_the_config_is_described(key):
  text, _ = tables.meaning(key)
  assert len(text.split()) > 1 and not text.endswith('.')


def test_no_meaning_is_left_over():
  assert {key for key in MEANINGS if '*' not in key} <= set(KEYS)


def test_config_lists_every_key_once_with_its_default():
  text = tables.config()
  listed = re.findall(r'^\| `([\w.]+)` \|', text, flags=re.M)
  assert sorted(listed) == sorted(KEYS)
  assert '| `model.c` | float or None | `0.1` | at least 0 |' in text
  assert "| `parallel` | str | `'pmap'` | 'pmap', 'shard_map' |" in text
  row = next(x for x in text.splitlines() if '`loss.roadmap.slope`' in x)
  assert 'slope of the bound beyond delta' in row


def test_command_line_lists_every_verb_and_flag():
  text = tables.command_line()
  for name, verb in cli.VERBS.items():
    section = text.split(f'## {name}\n')[1].split('\n## ')[0]
    for flag in verb.shown_flags():
      assert f'`--{flag.name}' in section
    assert all(f'hier-jax {form}' in section for form in verb.forms)


def test_every_extra_says_what_it_is_for():
  found = tables.extras()
  assert {'docs', 'plots', 'hub'} <= {name for name, *_ in found}
  for name, purpose, packages in found:
    assert purpose.endswith('.'), name
    assert packages, name


def test_presets_has_a_row_for_each_data_set():
  text = tables.SOURCES['presets']()
  assert all(f'| `{name}` |' in text for name in presets.DATA)


def test_house_lists_rooms_and_arrows():
  text = tables.SOURCES['house']()
  assert re.search(r'\| `layers` \| 1 \| .*`poincare` \|', text)


def test_notebooks_are_those_there_are(tmp_path, monkeypatch):
  folder = tmp_path / 'docs' / 'notebooks'
  folder.mkdir(parents=True)
  monkeypatch.setattr(tables, 'ROOT', tmp_path)
  assert 'notebooks/' not in tables.SOURCES['notebooks']()
  (folder / 'own_loop.ipynb').touch()
  (folder / 'data.npz').touch()
  assert tables.SOURCES['notebooks']().count('notebooks/') == 1


def test_table_escapes_bars():
  assert tables.table(['a'], [['x|y']]).endswith('| x&#124;y |')


def test_every_generated_table_is_on_a_page():
  text = ''.join(page.read_text() for page in pages.pages())
  assert all(f'{{generated}} {name}\n' in text for name in tables.SOURCES)


def test_chooser_of_losses_says_what_signatures_say():
  text = (pages.DOCS / 'losses.md').read_text()
  rows = re.findall(
    r'^\| `(\w+)` \| (.+?) \| .+? \| (yes|no) \| (yes|no) \| [\d.]+ \|',
    text,
    flags=re.M,
  )
  assert {name for name, *_ in rows} == set(objective.LOSSES)
  for name, parameters, hyperbolic, memory in rows:
    found = set(inspect.signature(getattr(losses, name)).parameters)
    assert (hyperbolic == 'yes') == ('c' in found), name
    assert (memory == 'yes') == ('memory' in found), name
    own = bool(found & {'proxies', 'centers'})
    assert own == (parameters != 'none'), name
