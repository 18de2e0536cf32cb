"""Configs by name or file, and flags for the keys of a config."""

import pathlib
import re
import traceback
import types
from typing import Any

from absl import flags
from ml_collections import config_dict
from ml_collections.config_flags import config_path, tuple_parser

import hier_jax
from hier_jax import paths
from hier_jax.errors import UserError, did_you_mean
from hier_jax.training.config import default as config_lib

__all__ = ['define_keys', 'given_keys', 'load', 'names']

# The configs that come with the package, one module each.
_FOLDER = pathlib.Path(hier_jax.__file__).with_name('configs')
_WANTED = 'expected a Python file with a function get_config(preset=None)'
_PREFIX = 'config.'
_PARSERS: dict[type, flags.ArgumentParser[Any]] = {
  bool: flags.BooleanParser(),
  int: flags.IntegerParser(),
  float: flags.FloatParser(),
  str: flags.ArgumentParser(),
  tuple: tuple_parser.TupleParser(),
}
# How ConfigDict names a key that it does not have.
_KEY = re.compile(r'(?:Key )?["\'](\w+)["\']')


def names() -> list[str]:
  """Names of the configs that come with the package, sorted.

  Example:
    >>> from hier_jax.training.config import files
    >>> files.names()
    ['cars', 'cub', 'emoji', 'folder', 'inshop', 'quickstart', 'sop']
  """
  return sorted(
    path.stem for path in _FOLDER.glob('*.py') if path.stem != '__init__'
  )


def load(text: str) -> config_dict.ConfigDict:
  """Makes the config that a name or a file stands for.

  Args:
    text: `NAME` or `FILE`, optionally followed by `:PRESET`, the argument of
      its `get_config`. NAME is one of `names`; write `./NAME` for a file of the
      same name.

  Raises:
    UserError: the name is unknown; or the file cannot be read, is not Python,
      fails (the message names the line), or does not return a config with the
      keys of `default_config`.

  Example:
    >>> from hier_jax.training.config import files
    >>> files.load('cub:resnet50').model.embedding_dim
    512
  """
  name, colon, preset = text.partition(':')
  path = _path(name)
  code = _compiled(path)
  module = types.ModuleType('config')
  module.__file__ = str(path)
  try:
    exec(code, module.__dict__)
    if not callable(getattr(module, 'get_config', None)):
      raise UserError(f'config file {path} has no get_config: {_WANTED}')
    config = module.get_config(*([preset] if colon else []))
  except UserError:
    raise
  except Exception as error:
    lines = [
      frame.lineno
      for frame in traceback.extract_tb(error.__traceback__)
      if frame.filename == str(path)
    ]
    where = f', line {lines[-1]}' if lines else ''
    raise UserError(f'config file {path}{where}: {_why(error)}') from error
  if not isinstance(config, config_dict.ConfigDict):
    raise UserError(
      f'get_config of config file {path} returned a {type(config).__name__};'
      ' expected hier_jax.training.config.default.default_config() with other'
      ' values'
    )
  config_lib.check_keys(config_lib.flatten(config))
  return config


def _path(name: str) -> pathlib.Path:
  """The file that a config's name or path stands for."""
  if name in names():
    return _FOLDER / f'{name}.py'
  path = paths.as_path(name)
  # A lone word that is no file was meant as a name.
  if name == path.name and not path.suffix and not path.exists():
    raise UserError(
      f'unknown config {name!r}{did_you_mean(name, names())}; expected one of'
      f' {", ".join(names())}, or the path of a file'
    )
  return path


def _compiled(path: pathlib.Path) -> types.CodeType:
  try:
    return compile(path.read_bytes(), str(path), 'exec')
  except OSError as error:
    raise UserError(
      f'config file {path} cannot be read ({error.strerror}): {_WANTED}'
    ) from error
  except SyntaxError as error:
    where = '' if error.lineno is None else f', line {error.lineno}'
    line = f': {error.text.strip()}' if error.text else ''
    raise UserError(f'config file {path}{where}: {error.msg}{line}') from error
  except ValueError as error:
    raise UserError(f'config file {path}: {error}: {_WANTED}') from error


def _why(error: Exception) -> str:
  """What went wrong while a config was made, on one line."""
  # ConfigDict puts its KeyError, of many lines, into an AttributeError.
  while error.args and isinstance(error.args[0], Exception):
    error = error.args[0]
  text = str(error.args[0]) if error.args else ''
  key = _KEY.match(text)
  if isinstance(error, KeyError) and key:
    return config_lib.unknown_key(key[1])
  return f'{type(error).__name__}: {text.partition(chr(10))[0]}'


class _Parser(flags.ArgumentParser[Any]):
  """Parses the values of a key, 'None' where that is one."""

  def __init__(self, kind: type, or_none: bool) -> None:
    self._kind, self._or_none = kind, or_none

  def parse(self, argument: str) -> object:
    if argument == 'None' and self._or_none:
      return None
    try:
      return _PARSERS[self._kind].parse(argument)
    except (TypeError, ValueError):
      what = (
        'numbers as 0.2,1.0' if self._kind is tuple else self._kind.__name__
      )
      none = ' or None' if self._or_none else ''
      raise ValueError(f'expected {what}{none}') from None


def define_keys(values: flags.FlagValues) -> None:
  """Defines a flag `config.KEY` for every key of `default_config`."""
  config = config_lib.default_config()
  for key in config_lib.flatten(config):
    kind = config_path.get_type(key, config)
    flag = flags.Flag(
      _Parser(kind, config_lib.may_be_none(key)),
      None,
      f'{_PREFIX}{key}',
      None,
      'see hier_jax/training/config/default.py',
      boolean=kind is bool,
      # The second of two tuples would take the first one's place unseen.
      allow_overwrite=kind is not tuple,
    )
    flags.DEFINE_flag(flag, values)


def given_keys(values: flags.FlagValues) -> dict[str, object]:
  """Key -> value, of the flags of `define_keys` that were given."""
  return {
    name.removeprefix(_PREFIX): values[name].value
    for name in values
    if name.startswith(_PREFIX) and values[name].present
  }
