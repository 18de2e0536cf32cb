"""The one exception that stands for a mistake the user can mend."""

import difflib
import reprlib
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
  import numpy as np

# Characters of a value in a message.
_MOST = 200
_SHORT = reprlib.Repr()
_SHORT.maxlevel = 2
_SHORT.maxstring = _SHORT.maxlong = _SHORT.maxother = _MOST
# The share of letters in common from which two names are alike.
_LIKE = 0.65


class UserError(ValueError):
  """A bad config, file, data set or workdir.

  The message names the value, what was expected and what to do. The command
  line prints it as a single line and exits with code 2; any other exception
  is a fault of the program and keeps its traceback.
  """


def listed(found: 'Sequence[object] | np.ndarray', most: int = 5) -> str:
  """The first of a sequence or array as text, for messages that count it.

  What would break a line, or cannot be printed, is shown as Python writes it.
  """
  more = ', ...' if len(found) > most else ''
  return ', '.join(map(plain, map(str, found[:most]))) + more


def plain(text: str) -> str:
  """A stranger's text as it is where it is short and fits a line."""
  return text if text.isprintable() and len(text) <= _MOST else shown(text)


def shown(value: object) -> str:
  """A stranger's value as Python writes it, about 200 characters of it."""
  return _SHORT.repr(value)


def did_you_mean(name: str, known: Iterable[str], prefix: str = '') -> str:
  """'; did you mean X?', '' where no known name is like `name`.

  Of dotted names the last part counts before the rest, and where several have
  the one that is meant up to three are named. Initials are like their name:
  `lr` and `learning_rate`.

  Args:
    name: the unknown name.
    known: the known names.
    prefix: what the user types before each name, shown but not compared.
  """

  def likeness(other: str) -> tuple[float, float]:
    ours, theirs = _last(name), _last(other)
    short = _initials(theirs) == ours or _initials(ours) == theirs
    last = difflib.SequenceMatcher(None, theirs, ours).ratio()
    whole = difflib.SequenceMatcher(None, other, name).ratio()
    return (1.0 if short else last if last >= _LIKE else 0.0), whole

  like = {other: likeness(other) for other in known}
  close = [
    k for k in sorted(like, key=lambda k: like[k]) if max(like[k]) >= _LIKE
  ]
  if not close:
    return ''
  best = close[-1]
  meant = [k for k in reversed(close) if _last(k) == _last(best)]
  named = ' or '.join(repr(prefix + other) for other in meant[:3])
  return f'; did you mean {named}?'


def _last(name: str) -> str:
  return name.rpartition('.')[2]


def _initials(name: str) -> str | None:
  """Of the words of a name that has several, else None."""
  words = [word for word in name.split('_') if word]
  return ''.join(word[0] for word in words) if len(words) > 1 else None
