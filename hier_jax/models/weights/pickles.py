"""Pickles read as data: nothing that a pickle names is looked up or called.

A pickle is a program. This reader follows its opcodes and builds what they
describe: dictionaries, lists, tuples, numbers and text as Python has them, and
in place of every class, function and object an inert node that holds its name.
"""

import dataclasses
import pickletools
from collections.abc import Callable, Iterable, Iterator
from typing import Any

__all__ = ['Call', 'Global', 'Reference', 'read']

# A checkpoint of 1,000 tensors and their optimizer has about 100,000 opcodes.
_MOST_OPCODES = 2_000_000
_MOST_DEPTH = 64
# Larger keys could be made to share one hash, and fill a dictionary slowly.
_LARGEST_KEY = 2**60

# Opcodes whose argument is the value.
_LITERALS = frozenset(
  {
    *('INT', 'BININT', 'BININT1', 'BININT2', 'LONG', 'LONG1', 'LONG4'),
    *('FLOAT', 'BINFLOAT', 'STRING', 'BINSTRING', 'SHORT_BINSTRING'),
    *('BINBYTES', 'SHORT_BINBYTES', 'BINBYTES8', 'BYTEARRAY8'),
    *('UNICODE', 'BINUNICODE', 'SHORT_BINUNICODE', 'BINUNICODE8'),
  }
)
_CONSTANTS: dict[str, Callable[[], Any]] = {
  'NONE': lambda: None,
  'NEWTRUE': lambda: True,
  'NEWFALSE': lambda: False,
  'EMPTY_TUPLE': tuple,
  'EMPTY_LIST': list,
  'EMPTY_DICT': dict,
  # Nobody looks into a set, and its members would be hashed.
  'EMPTY_SET': list,
}
_TUPLES = {'TUPLE1': 1, 'TUPLE2': 2, 'TUPLE3': 3}
_IGNORED = frozenset({'PROTO', 'FRAME'})


@dataclasses.dataclass(frozen=True, eq=False, slots=True)
class Global:
  """A class or function by its name, `module.name`."""

  name: str


@dataclasses.dataclass(frozen=True, eq=False, slots=True)
class Call:
  """What calling a global would have made.

  Attributes:
    name: of the global.
    arguments: its positional arguments.
    items: what was set on the result by key.
  """

  name: str
  arguments: tuple[Any, ...]
  items: dict[Any, Any] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True, eq=False, slots=True)
class Reference:
  """Something that lies outside of the pickle."""

  identifier: Any


def read(program: bytes, check_name: Callable[[str], None]) -> Any:
  """Reads a pickle of any protocol.

  Args:
    program: the pickle.
    check_name: is given the name of every global, `module.name`, when the
      pickle first names it, and may raise to refuse it.

  Returns:
    The object described, made of `dict` (by text and integers; other keys are
    left out), `list` (for sets, too), `tuple`, `str`, `bytes`, numbers, None,
    and `Global`, `Call` and `Reference`. Attributes that it sets are left out.

  Raises:
    ValueError: the pickle is damaged, asks for more than a reader of data has,
      has more than 2,000,000 opcodes or nests deeper than 64.
    IndexError: it is damaged.
    KeyError: it is damaged.
  """
  value = _Reader(check_name).run(program)
  _check_depth(value)
  return value


class _Reader:
  """The pickle machine's stack and memory."""

  def __init__(self, check_name: Callable[[str], None]) -> None:
    self._check_name = check_name
    self._stack: list[Any] = []
    self._marks: list[int] = []
    self._memo: dict[int, Any] = {}

  def run(self, program: bytes) -> Any:
    opcodes = pickletools.genops(program)
    for count, (opcode, argument, _) in enumerate(opcodes):
      if count == _MOST_OPCODES:
        raise ValueError(f'its pickle has more than {count:,} opcodes')
      name = opcode.name
      if name == 'STOP':
        return self._stack.pop()
      if name in _LITERALS:
        self._stack.append(argument)
      elif name in _CONSTANTS:
        self._stack.append(_CONSTANTS[name]())
      elif name in _TUPLES:
        self._stack.append(tuple(self._take(_TUPLES[name])))
      elif name not in _IGNORED:
        step = getattr(self, f'_{name.lower()}', None)
        if step is None:
          raise ValueError(f'its pickle has the opcode {name}')
        step(argument)
    raise ValueError('its pickle does not end')

  def _take(self, count: int) -> list[Any]:
    if count > len(self._stack):
      raise ValueError('its pickle takes more than it has put')
    at = len(self._stack) - count
    taken = self._stack[at:]
    del self._stack[at:]
    return taken

  def _to_mark(self) -> list[Any]:
    return self._take(max(0, len(self._stack) - self._marks.pop()))

  def _called(self, function: object, arguments: object) -> None:
    if type(function) is not Global or type(arguments) is not tuple:
      raise ValueError('its pickle calls what is no function')
    self._stack.append(Call(function.name, arguments))

  def _named(self, module: object, name: object) -> Global:
    if type(module) is not str or type(name) is not str:
      raise ValueError('its pickle names a function by what is no text')
    self._check_name(f'{module}.{name}')
    return Global(f'{module}.{name}')

  # One method an opcode, each with the opcode's argument.

  def _mark(self, _: None) -> None:
    self._marks.append(len(self._stack))

  def _pop(self, _: None) -> None:
    if self._marks and self._marks[-1] == len(self._stack):
      self._marks.pop()
    else:
      self._stack.pop()

  def _pop_mark(self, _: None) -> None:
    self._to_mark()

  def _dup(self, _: None) -> None:
    self._stack.append(self._stack[-1])

  def _put(self, index: int) -> None:
    self._memo[index] = self._stack[-1]

  def _memoize(self, _: None) -> None:
    self._put(len(self._memo))

  def _get(self, index: int) -> None:
    self._stack.append(self._memo[index])

  _binput = _long_binput = _put
  _binget = _long_binget = _get

  def _tuple(self, _: None) -> None:
    self._stack.append(tuple(self._to_mark()))

  def _list(self, _: None) -> None:
    self._stack.append(self._to_mark())

  _frozenset = _list

  def _dict(self, _: None) -> None:
    items = self._to_mark()
    self._stack.append({})
    self._set(items)

  def _append(self, _: None) -> None:
    self._extend(self._take(1))

  def _appends(self, _: None) -> None:
    self._extend(self._to_mark())

  _additems = _appends

  def _extend(self, values: Iterable[object]) -> None:
    if type(self._stack[-1]) is not list:
      raise ValueError('its pickle appends to what is no list')
    self._stack[-1].extend(values)

  def _setitem(self, _: None) -> None:
    self._set(self._take(2))

  def _setitems(self, _: None) -> None:
    self._set(self._to_mark())

  def _set(self, flat: list[Any]) -> None:
    target = self._stack[-1]
    if type(target) is Call:
      target = target.items
    if type(target) is not dict:
      raise ValueError('its pickle sets an item of what has none')
    target.update(pairs(zip(flat[::2], flat[1::2], strict=True)))

  def _global(self, names: str) -> None:
    self._stack.append(self._named(*names.split(' ', 1)))

  def _stack_global(self, _: None) -> None:
    self._stack.append(self._named(*self._take(2)))

  def _reduce(self, _: None) -> None:
    self._called(*self._take(2))

  _newobj = _reduce

  def _newobj_ex(self, _: None) -> None:
    function, arguments, _ = self._take(3)
    self._called(function, arguments)

  def _inst(self, names: str) -> None:
    arguments = tuple(self._to_mark())
    self._called(self._named(*names.split(' ', 1)), arguments)

  def _obj(self, _: None) -> None:
    function, *arguments = self._to_mark() or [None]
    self._called(function, tuple(arguments))

  def _build(self, _: None) -> None:
    self._take(1)

  def _binpersid(self, _: None) -> None:
    self._stack.append(Reference(self._stack.pop()))


def pairs(
  items: Iterable[tuple[object, Any]],
) -> Iterator[tuple[str | int, Any]]:
  """The pairs whose key is text or an integer of no unusual size."""
  for key, value in items:
    if type(key) is str or (type(key) is int and abs(key) < _LARGEST_KEY):
      yield key, value


def _check_depth(value: object) -> None:
  """Raises where a value nests too deep; never recurses itself."""
  layer, seen = [value], {id(value)}
  for _ in range(_MOST_DEPTH):
    children = {id(c): c for parent in layer for c in _children(parent)}
    layer = [c for key, c in children.items() if key not in seen]
    seen |= children.keys()
    if not layer:
      return
  raise ValueError(f'its pickle nests deeper than {_MOST_DEPTH}')


def _children(value: object) -> Iterable[object]:
  match value:
    case tuple() | list():
      return value
    case dict():
      return value.values()
    case Call():
      return value.arguments, value.items
    case Reference():
      return (value.identifier,)
    case _:
      return ()
