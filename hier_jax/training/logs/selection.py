"""Which state of a run is the best, by its validation records alone.

So a resumed run decides as the uninterrupted one.
"""

from collections.abc import Sequence
from typing import Any

from hier_jax.training.logs import names

__all__ = ['best', 'exhausted']


def best(records: Sequence[dict[str, Any]], metric: str) -> dict[str, Any]:
  """The first record with the highest value of a metric; {} without any."""
  return max(_validations(records), key=lambda r: r[metric], default={})


def exhausted(
  records: Sequence[dict[str, Any]], metric: str, patience: int | None
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


def _validations(records):
  return [record for record in records if record['kind'] == names.VALIDATION]
