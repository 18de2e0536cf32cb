"""The one exception that stands for a mistake the user can mend."""


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
  texts = map(str, found[:most])
  shown = (text if text.isprintable() else repr(text) for text in texts)
  return ', '.join(shown) + more
