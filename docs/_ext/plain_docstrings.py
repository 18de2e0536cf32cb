"""Docstrings as autodoc is to read them.

They are written to be read in a terminal: `|x|` is a norm, `*batch` an axis and
an indented line a formula. In reStructuredText the first two would be markup,
and the third a paragraph.
"""

import re
from collections.abc import Iterable, Iterator

# Code between backticks, which stays, or a character that would be markup.
_MARKUP = re.compile(r'(``[^`]+``|`[^`]+`)|([|*])|(?<=\w)(_)(?!\w)')
_SECTION = re.compile(
  r'(Args|Attributes|Example|Examples|Raises|References|Returns|Yields):$'
)


def escaped(line: str) -> str:
  """A line of prose whose characters stand for themselves."""
  return _MARKUP.sub(lambda m: m[1] or '\\' + m[0], line)


def _indent(line: str) -> int:
  return len(line) - len(line.lstrip())


def prepared(lines: Iterable[str]) -> Iterator[str]:
  """Docstring lines with formulas as literal blocks and prose escaped."""
  lines = list(lines)
  code_above = None  # Indentation of the text above a literal block.
  section = False
  for i, line in enumerate(lines):
    text, indent = line.strip(), _indent(line)
    if code_above is not None and text and indent <= code_above:
      code_above = None
    if code_above is not None or text.startswith(('>>>', '...')):
      yield line
      continue
    if indent == 0 and text:
      section = bool(_SECTION.match(text))
    following = next((x for x in lines[i + 1 :] if x.strip()), '')
    formula = (
      not section
      and lines[i + 1 : i + 2] != [following]
      and text
      and not text.startswith('-')
      and _indent(following) > indent
      and not following.strip().startswith('>>>')
    )
    if formula:
      code_above = indent
      yield escaped(line) + (':' if text.endswith(':') else ' ::')
    else:
      yield line if _in_example(lines, i) else escaped(line)


def readable(signature: str) -> str:
  """A signature with array types by the names that users import."""
  text = re.sub(r'~?\bjaxlib\.[\w.]*\bArray(Impl)?\b', 'Array', signature)
  text = re.sub(r'~?\bnumpy\.(ndarray)\b', r'\1', text)
  text = re.sub(r'~?\bjaxtyping\.(\w+)', r'\1', text)
  alike = r"(\w+)\[Array, ('[^']*')\] \| \1\[ndarray, \2\]"
  return re.sub(alike, r'\1[ArrayLike, \2]', text)


def _in_example(lines: list[str], i: int) -> bool:
  """Whether a line is what an example prints."""
  for line in reversed(lines[:i]):
    if not line.strip():
      return False
    if line.lstrip().startswith(('>>>', '...')):
      return True
  return False


def _process(app, what, name, obj, options, lines) -> None:
  lines[:] = prepared(lines)


def _sign(app, what, name, obj, options, signature, returned):
  """Makes the types of a signature readable."""
  return tuple(text and readable(text) for text in (signature, returned))


def _skip(app, what, name, obj, skip, options) -> bool | None:
  """Leaves out the fields of named tuples, which their class describes."""
  doc = getattr(obj, '__doc__', None) or ''
  return True if doc.startswith('Alias for field number') else None


def setup(app) -> dict[str, bool]:
  """Reads docstrings before napoleon does."""
  app.connect('autodoc-process-docstring', _process, priority=400)
  app.connect('autodoc-process-signature', _sign)
  app.connect('autodoc-skip-member', _skip)
  return {'parallel_read_safe': True}
