"""What devices exchange, from the text of a compiled program."""

import dataclasses
import math
import re

_SHAPE = re.compile(r'\b(pred|bf16|[fsu]\d+)\[([\d,]*)\]')
_LINE = re.compile(
  r'= (.+?) (all-gather|all-reduce|reduce-scatter|all-to-all'
  r'|collective-permute)(-start)?\('
)


@dataclasses.dataclass(frozen=True)
class Collective:
  """One exchange.

  Attributes:
    kind: as HLO calls it.
    payload: bytes of the whole: of what is gathered, reduced, or reduced and
      then scattered.
  """

  kind: str
  payload: int

  def sent(self, devices: int) -> float:
    """Bytes that each device sends where they stand in a ring."""
    turns = 2 if self.kind == 'all-reduce' else 1
    return turns * self.payload * (devices - 1) / devices


def parse(text: str, devices: int) -> list[Collective]:
  """The exchanges of a program, each once: none may be inside a loop.

  Args:
    text: of a compiled program.
    devices: that take part in each.

  Raises:
    ValueError: for a kind whose result says not how much is exchanged.
  """
  found = []
  for shapes, kind, start in _LINE.findall(text):
    if start or kind in ('all-to-all', 'collective-permute'):
      raise ValueError(f'{kind}{start} is not counted here')
    scattered = devices if kind == 'reduce-scatter' else 1
    found.append(Collective(kind, scattered * _bytes(shapes)))
  return found


def _bytes(shapes):
  return sum(
    _size(dtype) * math.prod(int(n) for n in dims.split(',') if n)
    for dtype, dims in _SHAPE.findall(shapes)
  )


def _size(dtype):
  return 1 if dtype == 'pred' else int(re.sub(r'\D', '', dtype)) // 8


def by_kind(found: list[Collective]) -> dict[str, int]:
  """Kind -> payload of all of them."""
  kinds = dict.fromkeys(('all-gather', 'all-reduce', 'reduce-scatter'), 0)
  for each in found:
    kinds[each.kind] += each.payload
  return kinds
