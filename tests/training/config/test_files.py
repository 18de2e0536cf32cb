"""Config files, and what is wrong with them."""

import pytest

from hier_jax.configs import quickstart
from hier_jax.errors import UserError
from hier_jax.training.config import files

HEAD = 'from hier_jax.training.config.default import default_config\n'


def write(path, text):
  path.write_text(text)
  return str(path)


def test_a_preset_is_the_argument(tmp_path):
  body = 'EPOCHS = {None: 3, "short": 1, "": 2}\n'
  body += 'def get_config(preset=None):\n  c = default_config()\n'
  body += '  c.epochs = EPOCHS[preset]\n  return c\n'
  # Any name will do, of no suffix too.
  path = write(tmp_path / 'my config', HEAD + body)
  loads = {'': 3, ':short': 1, ':': 2}
  assert {t: files.load(path + t).epochs for t in loads} == loads


@pytest.mark.parametrize(
  ('text', 'message'),
  [
    ('x = 1\ndef get_config(:\n', r', line 2: invalid syntax: def get_config'),
    ('\0', 'null bytes'),
    ('import nothing_of_this_name', ', line 1: ModuleNotFoundError: No module'),
    ('x = 1', 'has no get_config: expected a Python file with a function'),
    ('def get_config():\n  return {}', 'returned a dict; expected'),
    ('def get_config():\n  return 1 / 0', ', line 2: ZeroDivisionError'),
    (
      'def get_config():\n  raise OSError("no disk")',
      'line 2: OSError: no disk',
    ),
    *(
      (f'{HEAD}def get_config():\n  c = default_config()\n  {line}', message)
      for line, message in (
        (
          'c.learning_rate = 3',
          "line 4: unknown .* 'learning_rate'.*'optim.lr",
        ),
        ('c.optim.lrr = 3', r"line 4: unknown config key 'lrr'; .*'optim\.lr'"),
        ('c.optim.update(lrr=3)', r"line 4: unknown .*'lrr'; .*'optim\.lr'"),
        ('return c.optimm.lr', r"line 4: unknown config key 'optimm'"),
        ('c.epochs = "3"', r"line 4: TypeError: .*'epochs'"),
      )
    ),
  ],
)
def test_the_line_that_is_wrong_is_named(tmp_path, text, message):
  path = write(tmp_path / 'c.py', text)
  with pytest.raises(UserError, match=rf'c\.py.*{message}') as caught:
    files.load(path)
  assert '\n' not in str(caught.value)


def test_a_preset_that_get_config_does_not_take(tmp_path):
  path = write(tmp_path / 'c.py', 'def get_config():\n  pass\n')
  with pytest.raises(
    UserError, match=r'c\.py: TypeError: get_config\(\) takes'
  ):
    files.load(f'{path}:short')


@pytest.mark.parametrize(
  ('name', 'message'),
  [
    ('quikstart', "unknown config 'quikstart'; did you mean 'quickstart'.; e"),
    ('cubs:dino_vits16', "unknown config 'cubs'; did you mean 'cub'.; expecte"),
    ('zzz', 'expected one of cars, .*, sop, or the path of a file'),
    ('', 'a path is empty'),
  ],
)
def test_a_name_that_is_none_is_answered_with_those_that_are(
  tmp_path, monkeypatch, name, message
):
  monkeypatch.chdir(tmp_path)
  with pytest.raises(UserError, match=message):
    files.load(name)


def test_a_name_goes_before_a_file(tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  body = 'def get_config():\n  c = default_config()\n  c.epochs = 3\n  return c'
  for name in ('quickstart', 'mine'):
    write(tmp_path / name, HEAD + body)
  assert files.load('quickstart') == quickstart.get_config()
  assert files.load('./quickstart').epochs == 3
  assert files.load('mine').epochs == 3


@pytest.mark.parametrize('name', ['gone.py', '.'])
def test_a_file_that_is_none_is_named(tmp_path, monkeypatch, name):
  monkeypatch.chdir(tmp_path)
  with pytest.raises(
    UserError, match=r'cannot be read \(.*\): expected a Pyth'
  ):
    files.load(name)
