"""Runs side by side: metrics over seeds, and where time went."""

import math
from collections.abc import Sequence
from typing import TypedDict

import numpy as np
from scipy import special, stats

from hier_jax.training.logs import progress
from hier_jax.training.logs.records import Record
from hier_jax.training.report import runs as runs_lib

__all__ = [
  'CONFIDENCE',
  'GroupSummary',
  'OverSeeds',
  'Report',
  'Unfinished',
  'common_metrics',
  'summarize',
]


class OverSeeds(TypedDict):
  """A metric of a system over the seeds of a group."""

  mean: float
  std: float | None
  low: float | None
  high: float | None
  values: dict[int, float]


class GroupSummary(TypedDict):
  """Runs that differ only in their seeds; 'systems' by system and metric."""

  label: str
  folders: list[str]
  systems: dict[str, dict[str, OverSeeds]]
  time: dict[str, float] | None


class Unfinished(TypedDict):
  """A run without results, and its latest step."""

  folder: str
  seed: int
  step: int


class Report(TypedDict):
  """What `report.json` holds."""

  groups: list[GroupSummary]
  unfinished: list[Unfinished]


# Of the interval of a mean over seeds.
CONFIDENCE = 0.95


def summarize(runs: Sequence[runs_lib.Run]) -> Report:
  """Compares runs: all numbers, as `report.json` holds them.

  Args:
    runs: of `runs.load`.

  Returns:
    'groups', a list: 'label', 'folders', 'systems' (system -> metric -> its
    'mean', 'std', 'low' and 'high' over seeds, and 'values' by seed) and, where
    the runs have them, shares of 'time'; and 'unfinished', a list.
  """
  return {
    'groups': [
      {
        'label': group.label,
        'folders': [str(run.folder) for run in group.runs],
        'systems': _systems(group.runs),
        'time': _time([r for run in group.runs for r in run.timing]),
      }
      for group in runs_lib.groups(runs)
    ],
    'unfinished': [
      {
        'folder': str(run.folder),
        'seed': run.seed,
        'step': max((r['step'] for r in run.records), default=0),
      }
      for run in runs
      if run.results is None
    ],
  }


def _systems(runs: Sequence[runs_lib.Run]) -> dict[str, dict[str, OverSeeds]]:
  return {
    system: {
      metric: _over_seeds(
        {run.seed: run.metrics_of(system)[metric] for run in runs}
      )
      for metric in common_metrics(runs, system)
    }
    for system in runs[0].results or ()
    if all(system in (run.results or ()) for run in runs)
  }


def common_metrics(runs: Sequence[runs_lib.Run], system: str) -> list[str]:
  """Metrics that all the runs have of a system, in the first one's order."""
  first, *others = (run.metrics_of(system) for run in runs)
  return [metric for metric in first if all(metric in o for o in others)]


def _over_seeds(values: dict[int, float]) -> OverSeeds:
  """Mean, standard deviation (ddof 1) and interval of a proportion."""
  found = np.array(list(values.values()))
  low, high = _interval(found)
  return {
    'mean': float(found.mean()),
    'std': float(found.std(ddof=1)) if len(found) > 1 else None,
    'low': low,
    'high': high,
    'values': values,
  }


def _interval(values: np.ndarray) -> tuple[float | None, float | None]:
  """Student's interval on the logit scale, which stays within 0 to 1.

  Near either end it also covers the mean as often as it says, where that of the
  values themselves does not. There is none of a single value, nor with a value
  of 0 or 1, which has no logit.
  """
  n = len(values)
  if n < 2 or values.min() <= 0 or values.max() >= 1:
    return None, None
  logits = special.logit(values)
  quantile = stats.t.ppf((1 + CONFIDENCE) / 2, n - 1)
  half = quantile * logits.std(ddof=1) / math.sqrt(n)
  low, high = special.expit(logits.mean() + np.array([-half, half]))
  return float(low), float(high)


def _time(records: Sequence[Record]) -> dict[str, float] | None:
  """Where the time of a group's runs went, None without records."""
  seconds = sum(r['seconds'] for r in records)
  timed = [r for r in records if r.get('images_per_second') is not None]

  # Older runs did not tell compiling apart.
  def share(record: Record, *parts: str) -> float:
    return sum(record.get(f'share/{part}') or 0 for part in parts)

  training = [r['seconds'] * (1 - share(r, *progress.APART)) for r in timed]
  if not sum(training) > 0:
    return None
  rates = [r['images_per_second'] for r in timed]
  return {'hours': seconds / 3600} | {
    'images_per_second': float(np.average(rates, weights=training)),
    **{
      part: sum(r['seconds'] * share(r, part) for r in records) / seconds
      for part in progress.PARTS
    },
  }
