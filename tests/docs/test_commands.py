"""Commands on the pages are ones that the program takes."""

import importlib.util
import re

import pytest

from hier_jax import cli
from tests.support import pages, places
from tests.support.command_line import run


def name(page):
  return page.name


def on_pages():
  for page in pages.pages():
    for number, words in enumerate(pages.commands(page.read_text())):
      yield pytest.param(
        words, id=f'{page.name}-{number}-{" ".join(words[:3])}'
      )


COMMANDS = list(on_pages())
CONFIGS = sorted(
  {
    tuple(words)
    for words in (param.values[0] for param in COMMANDS)
    if words[:2] == ['hier-jax', 'train'] and '--config' in words
  }
)


def test_pages_show_commands():
  assert len(COMMANDS) > 50
  shown = {param.values[0][1] for param in COMMANDS}
  assert shown >= set(cli.VERBS)


@pytest.mark.parametrize('words', COMMANDS)
def test_command_parses(words):
  program, *rest = words
  if program == 'python':
    assert_python(rest)
  elif rest[0] in cli.VERBS and '--help' not in rest:
    cli.VERBS[rest[0]].parse(rest[1:])
  else:
    assert run(*rest) == 0


def assert_python(rest):
  if rest[0] == '-m':
    assert importlib.util.find_spec(rest[1])
  elif rest[0] != '-c':
    assert (places.ROOT / rest[0]).is_file()


@pytest.mark.parametrize('page', pages.pages(), ids=name)
def test_forms_name_verbs_and_flags(page):
  for form in pages.forms(page.read_text()):
    _, verb, *_ = form.split()
    if verb in ('VERB', '--help', '--version'):
      continue
    assert verb in cli.VERBS, form
    known = {flag.name for flag in cli.VERBS[verb].shown_flags()}
    for flag in re.findall(r'--(\w+)(?!\w*\.)\b', form):
      assert flag in known or flag == 'config', form


@pytest.mark.parametrize('page', pages.pages(), ids=name)
def test_config_flags_name_keys(page):
  from hier_jax.training.config import default as config_lib

  flags = re.findall(r'--config\.[\w.]+(?:=[^\s`\]]*)?', page.read_text())
  keys = config_lib.flatten(config_lib.default_config())
  given = {}
  for flag in flags:
    key, _, value = flag.removeprefix('--config.').partition('=')
    if key.isupper() or '.OPTION' in key:
      continue
    assert key.rstrip('.') in keys, flag
    if value and not value.isupper():
      given[key] = value.strip('"\'')
  cli.VERBS['train'].parse([f'--config.{k}={v}' for k, v in given.items()])


@pytest.mark.parametrize('words', CONFIGS, ids=' '.join)
def test_config_of_a_command_is_one(words, monkeypatch):
  from hier_jax.training.config import files

  values, _ = cli.VERBS['train'].parse(words[2:])
  monkeypatch.chdir(places.ROOT)
  config = files.load(values.config)
  config.update_from_flattened_dict(files.given_keys(values))
