"""Comparisons of the runs: differences of arms, and the front."""

from __future__ import annotations

import collections
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from experiments.study import arms, folds, intervals, records, search
from experiments.study.metrics import KIN, PRIMARY
from experiments.study.records import Job
from experiments.study.spaces import Point
from hier_jax.errors import UserError

__all__ = [
  'Ablation',
  'Comparison',
  'ablations',
  'above',
  'adjusted',
  'arms_of',
  'by_arm',
  'claim',
  'compare',
  'fronts',
  'on_folds',
  'place_and_line',
]

_ALONE = 'alone'
# What the claim is made of: arms, and what each is compared with, the last
# being the plain triplet loss on the same triplets.
CLAIMED = {
  'hier_star': (_ALONE, 'triplet'),
  'hier_memory': (_ALONE, 'triplet_memory'),
}
# Arms that lack one part of another: the difference is what that part brings.
CONTROLS = {
  'hier_star': ('triplet', 'shuffled', 'euclidean', 'cosine'),
  'hier_memory': ('triplet_memory', 'hier_star'),
  'triplet_memory': ('triplet',),
  **{
    f'{loss}{told}': (f'second_{control}',)
    for loss, control in (('level_sup_con', 'sup_con'), ('happier',) * 2)
    for told in ('', '_own', '_ema', '_true_tree')
  },
}
# Its test classes have been looked at.
EXPLORED = 'A'
# The least gains over the base loss alone, in points.
LEAST = {'map@r': 1.0, KIN: 2.0}
Group = tuple[str, str]
Lines = Mapping[Job, dict]
# (MAP@R, mAP-subgroup), in %.
Place = tuple[float, float]


class Comparison(NamedTuple):
  """The test of an arm against another.

  Attributes:
    regime: its name.
    split: 'A', 'B' or 'icons'.
    arm: its name.
    against: name of the other.
    metric: a key of a line's values.
    seeds: how many both have.
    difference: the arm less the other, in points.
    claimed: whether it belongs to the claim, and is corrected for.
  """

  regime: str
  split: str
  arm: str
  against: str
  metric: str
  seeds: int
  difference: intervals.Difference
  claimed: bool


class Ablation(NamedTuple):
  """What a switch changes at one weight.

  Attributes:
    regime: its name.
    split: 'A', 'B' or 'icons'.
    arm: its name.
    weight: of what is added.
    differences: metric -> of each fold, with the switch less without, in
      points.
  """

  regime: str
  split: str
  arm: str
  weight: float
  differences: dict[str, np.ndarray]


def compare(lines: Lines) -> list[Comparison]:
  """Every tested arm against its base loss alone and against its controls."""
  tested = by_arm(lines, lambda job: job.fold == folds.TEST)
  found = []
  for (regime, split, arm), of_arm in tested.items():
    base, _, added = arm.partition('+')
    for other in (_ALONE, *CONTROLS.get(added, ())):
      against = f'{base}+{other}'
      of_other = tested.get((regime, split, against))
      if against == arm or of_other is None:
        continue
      seeds = sorted(set(of_arm) & set(of_other))
      for metric in PRIMARY:
        difference = _difference(of_other, of_arm, seeds, metric)
        claimed = other in CLAIMED.get(added, ()) and split != EXPLORED
        found.append(
          Comparison(
            regime, split, arm, against, metric, len(seeds), difference, claimed
          )
        )
  return found


def ablations(lines: Lines) -> list[Ablation]:
  """Of every ablation all of whose runs are there, by arm and weight."""
  found = []
  for group in sorted({(j.regime, j.split) for j in lines}):
    for name in arms_of(lines, group):
      target = search.Target(*group, name)
      ablates = arms.arm(name).added.ablates
      if ablates is None or search.pending(target, lines):
        continue
      _, ranking = search.chosen(target.of(ablates), lines)
      for without, switched in search.ablation(target, lines):
        pairs = [_values(jobs, lines, ranking) for jobs in (without, switched)]
        differences = dict(zip(PRIMARY, pairs[1] - pairs[0], strict=True))
        weight = dict(switched[0].point)['weight']
        found.append(Ablation(*group, name, weight, differences))
  return found


def _values(jobs: Sequence[Job], lines: Lines, ranking: str) -> np.ndarray:
  """Primary metrics by jobs `[2, jobs]`, in %."""
  of = [lines[job]['metrics'][ranking] for job in jobs]
  return 100 * np.array([[m[name] for m in of] for name in PRIMARY])


def adjusted(found: Sequence[Comparison]) -> dict[Comparison, float]:
  """Holm's p value of every comparison that belongs to the claim."""
  claimed = [c for c in found if c.claimed]
  p_values = np.array([c.difference.p_value for c in claimed])
  return dict(zip(claimed, intervals.holm(p_values).tolist(), strict=True))


def claim(
  lines: Lines, found: Sequence[Comparison]
) -> dict[tuple[str, str, str], list[str]]:
  """What each claimed arm lacks for the claim.

  Args:
    lines: job -> line.
    found: of `compare`.

  Returns:
    (split, regime, arm) of every tested arm of `CLAIMED`, but on split A ->
    what it lacks; nothing where it has all that the plan asks for.
  """
  p_values = adjusted(found)
  lacking: dict = {}
  for comparison, p_value in p_values.items():
    _, _, against = comparison.against.partition('+')
    where = comparison.split, comparison.regime, comparison.arm
    lacks = lacking.setdefault(where, [])
    least = LEAST[comparison.metric] if against == _ALONE else 0.0
    difference = comparison.difference
    if difference.mean < least or difference.low <= 0 or p_value >= 0.05:
      lacks.append(
        f'{comparison.metric} {difference.mean:+.2f} over {against}, Holm p'
        f' {p_value:.3f}'
      )
  tested = by_arm(lines, lambda job: job.fold == folds.TEST)
  for (split, regime, arm), lacks in lacking.items():
    base, _, added = arm.partition('+')
    lacks += [
      f'a test of {other}'
      for other in CLAIMED[added]
      if (regime, split, f'{base}+{other}') not in tested
    ]
    of = tested[regime, split, arm].values()
    for name in ('dp_subgroup', 'lca_triplets'):
      gain = [
        line['trees'][f'proxy_{name}'] - line['trees'][name]
        for line in of
        if f'proxy_{name}' in line['trees']
      ]
      if not gain or np.mean(gain) <= 0:
        lacks.append(f'a tree of the proxies above average linkage by {name}')
  return lacking


def fronts(lines: Lines) -> dict[str, dict[str, list[Place]]]:
  """Hierarchy against retrieval on the folds.

  Returns:
    title -> name of a line or an arm -> its places; 'BASE over its scale' is
    the line.
  """
  found: dict = collections.defaultdict(dict)
  for group in sorted({(j.regime, j.split) for j in lines}):
    for arm in arms_of(lines, group):
      target = search.Target(*group, arm)
      base = arm.partition('+')[0]
      title = f'Split {group[1]}, {group[0]}, {base}'
      try:
        place, line = place_and_line(target, lines)
      except UserError:
        continue
      found[title][arm] = [place]
      if target == target.alone and line:
        found[title][f'{base} over its scale'] = line
  return dict(found)


def place_and_line(
  target: search.Target, lines: Lines
) -> tuple[Place, list[Place]]:
  """Where an arm lies on the folds, and its base loss alone over its scale.

  Returns:
    the place of the arm's chosen point, and the line, by the scale, which goes
    through the base loss's chosen point; no line where runs of it are missing.
    Each is by the ranking that is primary for it.

  Raises:
    UserError: the arm is not selected, or its regime has no runs on folds.
  """
  if not target.search.points:
    raise UserError(
      f'regime {target.regime} has no search, so that none of its runs is on'
      f' folds; expected a regime that has one, such as {target.started.regime}'
    )
  point, ranking = search.chosen(target, lines)
  place = on_folds(target, point, lines, ranking)
  try:
    jobs = search.front_jobs(target, lines)
  except UserError:
    # The base loss alone is not selected.
    return place, []
  if any(job not in lines for job in jobs):
    return place, []
  middle, ranking = search.chosen(target.alone, lines)
  scale = next(iter(arms.arm(target.alone.arm).base.space))
  points = [dict(job.point) for job in jobs[:: folds.FOLDS]] + [middle]
  points.sort(key=lambda point: point[scale])
  return place, [on_folds(target.alone, p, lines, ranking) for p in points]


def above(place: Place, line: Sequence[Place]) -> float | None:
  """How far a place lies above a line of (MAP@R, mAP-subgroup).

  Args:
    place: (MAP@R, mAP-subgroup) of an arm.
    line: places of the base loss over its scale, in any order.

  Returns:
    mAP-subgroup of the place less the most that the line has at its MAP@R or at
    a larger one, between its places straight; None where none has as large a
    MAP@R.

  Example:
    >>> from experiments.study import comparisons
    >>> comparisons.above((1.0, 5.0), [(0.0, 4.0), (2.0, 2.0)])
    2.0
  """
  retrieval, kin = place
  beyond = [y for x, y in line if x >= retrieval]
  if not beyond:
    return None
  beside = np.interp(retrieval, *zip(*sorted(line), strict=True))
  return kin - max(*beyond, float(beside))


def on_folds(
  target: search.Target, point: Point, lines: Lines, ranking: str
) -> tuple[float, float]:
  """MAP@R and mAP-subgroup of a point, means over the folds, in %."""
  jobs = [target.job(point, fold) for fold in range(folds.FOLDS)]
  retrieval, kin = _values(jobs, lines, ranking).mean(1).tolist()
  return retrieval, kin


def _difference(first, second, seeds, metric) -> intervals.Difference:
  stack = lambda of: np.stack(
    [records.floats(of[seed]['per_class'][metric]) for seed in seeds]
  )
  counts = np.array(first[seeds[0]]['counts'])
  found = intervals.paired_difference(
    stack(first), stack(second), counts, resamples=intervals.RESAMPLES
  )
  ends = (100 * value for value in found[:3])
  return intervals.Difference(*ends, found.p_value)


def by_arm(lines: Lines, taken) -> dict[tuple[str, str, str], dict[int, dict]]:
  """(regime, split, arm) -> seed -> line."""
  found: dict = collections.defaultdict(dict)
  for job, line in lines.items():
    if taken(job):
      found[job.regime, job.split, job.arm][job.seed] = line
  return dict(sorted(found.items()))


def arms_of(lines: Lines, group: Group) -> list[str]:
  """The arms of a regime and split that have lines."""
  return sorted({j.arm for j in lines if (j.regime, j.split) == group})
