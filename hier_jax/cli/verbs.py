"""What a verb of the command line is: its flags, its help, its errors.

The help of a flag that takes a value begins with a placeholder for that value:
'FILE: what the flag is for'.
"""

import dataclasses
import math
import sys
import textwrap
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

from absl import flags

from hier_jax.errors import UserError, did_you_mean, plain
from hier_jax.viz.theme import THEMES

__all__ = [
  'Flag',
  'Verb',
  'choice_flag',
  'choices_flag',
  'integers_flag',
  'number_flag',
  'say_unread',
  'switch_flag',
  'text_flags',
  'theme_flag',
  'usage',
  'whole',
]

_CONFIG = 'config.'
_KEYS = 'hier_jax/training/config/default.py'
# Unreadable images that are named one by one.
_NAMED = 20


class Flag(NamedTuple):
  """A flag as its help shows it.

  Attributes:
    name: without the dashes.
    placeholder: what stands for its value, '' where it takes none.
    text: what it is for.
  """

  name: str
  placeholder: str
  text: str


@dataclasses.dataclass(frozen=True)
class Verb:
  """One verb.

  Attributes:
    name: what the user types.
    forms: the command lines to show, from the verb's name on.
    about: what the verb does, in whole sentences.
    define: defines the verb's flags in the `FlagValues` that it is given.
    run: does the work, given the values of the flags and the other arguments.
    positional: how many other arguments there may be; None for any number.
    define_more: defines flags that are too many to be listed in the help.
  """

  name: str
  forms: Sequence[str]
  about: str
  define: Callable[[flags.FlagValues], None]
  run: Callable[[flags.FlagValues, list[str]], None]
  positional: int | None = 0
  define_more: Callable[[flags.FlagValues], None] | None = None

  def __call__(self, args: Sequence[str]) -> None:
    """Parses what follows the verb on the command line, and runs the verb.

    Raises:
      UserError: as `parse`, and for whatever the user can correct.
    """
    self.run(*self.parse(args))

  def parse(self, args: Sequence[str]) -> tuple[flags.FlagValues, list[str]]:
    """The values of the verb's flags, and the other arguments.

    Raises:
      UserError: a flag is unknown, lacks its value or has a wrong one, or there
        are too many arguments.
    """
    values = self._flags()
    if self.define_more is not None:
      self.define_more(values)
    see = f'see hier-jax {self.name} --help'
    try:
      others = values([self.name, *args])[1:]
    except flags.UnrecognizedFlagError as error:
      hint = _like(error.flagname, values) or f'; {see}'
      raise UserError(f'unknown flag --{error.flagname}{hint}') from error
    except (flags.Error, ValueError) as error:
      raise UserError(f'{_why(error, values)}; {see}') from error
    for name in values:
      _check_given(values[name], see)
    if self.positional is not None and len(others) > self.positional:
      most = f'at most {self.positional}' if self.positional else 'none'
      raise UserError(
        f'unexpected argument {others[self.positional]!r}: {self.name} takes'
        f' {most} besides its flags; {see}'
      )
    return values, others

  def help(self) -> str:
    """The text of `hier-jax VERB --help`."""
    lines = ['usage:', usage([self]), '', 'flags:']
    for name, placeholder, text in self.shown_flags():
      lines += [f'  --{name} {placeholder}'.rstrip(), _indented(text)]
    return '\n'.join(lines)

  def shown_flags(self) -> list[Flag]:
    """The verb's flags, without what `define_more` defines."""
    values = self._flags()
    return [Flag(name, *_parts(values[name])) for name in values]

  def _flags(self) -> flags.FlagValues:
    values = flags.FlagValues()
    values.set_gnu_getopt()
    self.define(values)
    switch_flag(
      values, 'traceback', 'Show the Python traceback of an error message.'
    )
    return values


def _parts(flag: flags.Flag[Any]) -> tuple[str, str]:
  """The placeholder for a flag's value, '' if it takes none, and its help."""
  if flag.boolean:
    return '', flag.help
  placeholder, separator, text = flag.help.partition(': ')
  return (placeholder, text) if separator else ('VALUE', flag.help)


def _why(error: Exception, values: flags.FlagValues) -> str:
  """One line for an error of absl's, in the words of the other messages."""
  text = ' '.join(str(error).split())
  _, missing, name = text.partition('Missing value for flag --')
  if missing and name in values:
    return f'--{name} has no value: expected {_parts(values[name])[0]}'
  return text.removeprefix('flag ').rstrip('.')


def _check_given(flag: flags.Flag[Any], see: str) -> None:
  """Raises UserError for a flag with an empty value, or with a flag as value.

  absl takes whatever follows as a flag's value.
  """
  if isinstance(flag.value, str) and flag.value.startswith('--'):
    raise UserError(
      f'--{flag.name} has no value: expected {_parts(flag)[0]}, but'
      f' {flag.value} follows; {see}'
    )
  if flag.present and flag.value in ('', []):
    raise UserError(
      f'--{flag.name} is empty: expected {_parts(flag)[0]}; {see}'
    )


def _like(name: str, values: flags.FlagValues) -> str:
  """A hint at known flags that are like an unknown one; '' if none is."""
  if not name.startswith(_CONFIG):
    known = [other for other in values if '.' not in other]
    return did_you_mean(name, known, prefix='--')
  keys = [k.removeprefix(_CONFIG) for k in values if k.startswith(_CONFIG)]
  hint = did_you_mean(name.removeprefix(_CONFIG), keys, prefix=f'--{_CONFIG}')
  return hint or f'; {_KEYS} lists all keys'


def usage(verbs: Iterable[Verb]) -> str:
  """The command lines of verbs, and what each verb does."""
  return '\n\n'.join(
    '\n'.join([*map(_form, verb.forms), _indented(verb.about)])
    for verb in verbs
  )


def _form(form: str) -> str:
  """A command line, in lines that end before a flag."""
  # Spaces within brackets must not end a line.
  words = form.replace(' [', '\n[').replace(' --', '\n--').split('\n')
  lines = [f'  hier-jax {words[0]}']
  for word in words[1:]:
    if len(lines[-1]) + len(word) < 80:
      lines[-1] += f' {word}'
    else:
      lines.append(f'{" " * 11}{word}')
  return '\n'.join(lines)


def _indented(text: str) -> str:
  """Text in lines of 80 columns, none of which ends within a flag's name."""
  indent = ' ' * 6
  return textwrap.fill(
    text,
    80,
    initial_indent=indent,
    subsequent_indent=indent,
    break_on_hyphens=False,
  )


def text_flags(values: flags.FlagValues, **helps: str) -> None:
  """Defines flags that take any text: name -> 'PLACEHOLDER: what it is for'."""
  for name, text in helps.items():
    flags.DEFINE_string(name, None, text, flag_values=values)


def switch_flag(values: flags.FlagValues, name: str, text: str) -> None:
  """Defines a flag that takes no value and is off unless it is given."""
  flags.DEFINE_bool(name, False, text, flag_values=values)


def number_flag(
  values: flags.FlagValues, name: str, text: str, *, or_none: bool = False
) -> None:
  """Defines a flag that takes a number, None unless it is given.

  With `or_none` it takes the word none too, for None: `values[name].present`
  tells that from a flag that was not given.
  """
  flags.DEFINE(_Number(or_none), name, None, text, values)


def integers_flag(values: flags.FlagValues, name: str, text: str) -> None:
  """Defines a flag that takes a list of integers, None unless it is given."""
  flags.DEFINE(_Integers(), name, None, text, values)


def choice_flag(
  values: flags.FlagValues,
  name: str,
  choices: Sequence[str],
  text: str,
  *,
  default: str | None = None,
) -> None:
  """Defines a flag that takes one of some words."""
  flags.DEFINE(_Choice(choices), name, default, text, values)


def choices_flag(
  values: flags.FlagValues, name: str, choices: Sequence[str], text: str
) -> None:
  """Defines a flag that takes some of a few words, None unless it is given."""
  flags.DEFINE(_Choices(choices), name, None, text, values)


def theme_flag(values: flags.FlagValues, what: str) -> None:
  """Defines the flag that says on what paper figures are drawn."""
  choice_flag(
    values,
    'theme',
    tuple(THEMES),
    f'THEME: Whether {what} are drawn for light (the default) or dark paper.',
    default='light',
  )


def whole(values: flags.FlagValues, name: str) -> int | None:
  """The value of a flag that takes a number of 1 or more, or None."""
  value = values[name].value
  if value is None:
    return None
  if not (math.isfinite(value) and value == int(value) and value >= 1):
    raise UserError(f'--{name} is {value:g}; expected an integer of 1 or more')
  return int(value)


def say_unread(unread: Sequence[tuple[str, str]], total: int) -> None:
  """Names on stderr the images that could not be read: (name, reason)."""
  for name, why in unread[:_NAMED]:
    print(f'skipped {plain(name)}: {why}', file=sys.stderr)
  if len(unread) > _NAMED:
    print(f'skipped {len(unread) - _NAMED:,} more', file=sys.stderr)
  if unread:
    print(
      f'{len(unread):,} of {total:,} images could not be read',
      file=sys.stderr,
    )


class _Number(flags.ArgumentParser[float | None]):
  """Parses a number, or the word none where that has a meaning."""

  def __init__(self, or_none: bool) -> None:
    self._or_none = or_none

  def parse(self, argument: str) -> float | None:
    if self._or_none and argument.lower() == 'none':
      return None
    try:
      return float(argument)
    except ValueError:
      none = ' or none' if self._or_none else ''
      raise ValueError(f'expected a number{none}') from None


class _Integers(flags.ArgumentParser[list[int]]):
  """Parses integers separated by commas."""

  def parse(self, argument: str) -> list[int]:
    if not argument:
      return []
    try:
      return [int(text) for text in argument.split(',')]
    except ValueError:
      raise ValueError(
        'expected integers separated by commas, such as 1,10'
      ) from None


class _Choice(flags.ArgumentParser[str]):
  """Parses one of some words."""

  def __init__(self, choices: Sequence[str]) -> None:
    self._choices = tuple(choices)

  def parse(self, argument: str) -> str:
    if argument not in self._choices:
      *others, last = self._choices
      either = f'{", ".join(others)} or {last}' if others else last
      raise ValueError(f'expected {either}')
    return argument


class _Choices(flags.ArgumentParser[list[str]]):
  """Parses words separated by commas."""

  def __init__(self, choices: Sequence[str]) -> None:
    self._choices = _Choice(choices)

  def parse(self, argument: str) -> list[str]:
    return [self._choices.parse(word) for word in argument.split(',')]
