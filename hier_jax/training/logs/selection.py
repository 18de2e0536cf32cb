"""Which state of a run is the best, by its validation records alone.

So a resumed run decides as the uninterrupted one.
"""

from collections.abc import Sequence

from hier_jax.training.logs import names
from hier_jax.training.logs.records import Record

__all__ = ['best', 'exhausted']


def best(records: Sequence[Record], metric: str) -> Record:
  """The first record with the highest value of a metric; {} without any."""
  return max(_validations(records), key=lambda r: r[metric], default={})


def exhausted(
  records: Sequence[Record], metric: str, patience: int | None
) -> bool:
  """Whether `patience` evaluations have followed the best one.

  Args:
    records: of a log, in its order.
    metric: what the best is best in.
    patience: None for no end of it.
  """
  found = _validations(records)
  if patience is None or not found:
    return False
  since = len(found) - 1 - found.index(best(found, metric))
  return since >= patience


def _validations(records: Sequence[Record]) -> list[Record]:
  return [record for record in records if record['kind'] == names.VALIDATION]
