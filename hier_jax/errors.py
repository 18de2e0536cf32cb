"""The one exception that stands for a mistake the user can mend."""

import reprlib

# Characters of a value in a message.
_MOST = 200
_SHORT = reprlib.Repr()
_SHORT.maxlevel = 2
_SHORT.maxstring = _SHORT.maxlong = _SHORT.maxother = _MOST


class UserError(ValueError):
  """A bad config, file, data set or workdir.

  The message names the value, what was expected and what to do. The command
  line prints it as a single line and exits with code 2; any other exception
  is a fault of the program and keeps its traceback.
  """


def listed(found, most: int = 5) -> str:
  """The first of a sequence or array as text, for messages that count it.

  What would break a line, or cannot be printed, is shown as Python writes it.
  """
  more = ', ...' if len(found) > most else ''
  return ', '.join(map(plain, map(str, found[:most]))) + more


def plain(text: str) -> str:
  """A stranger's text as it is where it is short and fits a line."""
  return text if text.isprintable() and len(text) <= _MOST else shown(text)


def shown(value) -> str:
  """A stranger's value as Python writes it, about 200 characters of it."""
  return _SHORT.repr(value)
