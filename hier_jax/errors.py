"""The one exception that stands for a mistake the user can mend."""

import reprlib

_SHORT = reprlib.Repr()
_SHORT.maxlevel = 2
_SHORT.maxstring = _SHORT.maxlong = _SHORT.maxother = 200


class UserError(ValueError):
  """A bad config, file, data set or workdir.

  The message names the value, what was expected and what to do. The command
  line prints it as a single line and exits with code 2; any other exception
  is a fault of the program and keeps its traceback.
  """


def listed(found, most: int = 5) -> str:
  """The first of a sequence or array as text, for messages that count it."""
  more = ', ...' if len(found) > most else ''
  return ', '.join(map(str, found[:most])) + more


def shown(value) -> str:
  """A value of a stranger's file for a message: about 200 characters of it."""
  return _SHORT.repr(value)
