"""Selection: which points are tried, on which folds, and which one is taken.

All is a function of the lines that are there, so that a search that stops goes
on where it was, and two readers of the same lines choose the same point.
"""

from __future__ import annotations

import dataclasses
import zlib
from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from experiments.study import arms, folds, metrics, regimes, spaces
from experiments.study.records import Job
from experiments.study.regimes import Search
from experiments.study.runner import RANKINGS
from experiments.study.spaces import Point
from hier_jax.errors import UserError

__all__ = [
  'TEST_SEEDS',
  'Target',
  'ablation',
  'chosen',
  'front_jobs',
  'pending',
]

TEST_SEEDS = 5
Found = Mapping[Job, dict]


@dataclasses.dataclass(frozen=True)
class Target:
  """What is searched.

  Attributes:
    regime: its name.
    split: 'A', 'B' or 'icons'.
    arm: its name.
  """

  regime: str
  split: str
  arm: str

  @property
  def entry(self) -> arms.Arm:
    """The arm, with what it has in the regime."""
    return regimes.arm(self.regime, self.arm)

  @property
  def search(self) -> Search:
    """How hard it is searched."""
    return regimes.regime(self.regime).search

  @property
  def alone(self) -> Target:
    """The arm of the base loss alone."""
    return self.of('alone')

  @property
  def started(self) -> Target:
    """The same arm of the regime that it starts from, if there is one."""
    return dataclasses.replace(self, regime=self.search.start or self.regime)

  def of(self, added: str) -> Target:
    """The arm of the base loss with something else added."""
    base = self.arm.partition('+')[0]
    return dataclasses.replace(self, arm=f'{base}+{added}')

  def job(self, point: Point, fold, seed: int = 0, why='search') -> Job:
    """A job of this target."""
    return Job.of(self.regime, self.split, self.arm, point, fold, seed, why)


def pending(target: Target, found: Found) -> list[Job]:
  """Jobs that can be run now; none once the search is over.

  Raises:
    UserError: it starts from another regime, whose search is not over.
  """
  if not target.search.points:
    chosen(target, found)
    return []
  for searched, points in rounds(target, found):
    if jobs := _round_jobs(searched, points, found):
      return jobs
  if target.entry.added.ablates:
    return _pending_ablation(target, found)
  return []


def rounds(
  target: Target, found: Found
) -> Iterator[tuple[Target, list[Point]]]:
  """What is searched, and its points, a round after the other.

  A round needs the lines of those before it. Two rounds of the base loss alone
  come before the one of every arm; or each arm has two of its own, about the
  point of another regime.

  Raises:
    UserError: such lines are missing.
  """
  if target.search.start is not None:
    yield target, _first_about(target, found)
    yield target, _second_about(target, found)
    return
  alone = target.alone
  yield alone, _first_round(alone)
  yield alone, _second_round(alone, found)
  if not target.entry.added.ablates:
    yield target, _third_round(target, found)


def chosen(target: Target, found: Found) -> tuple[Point, str]:
  """The point of an arm, and the ranking that is primary for it.

  Raises:
    UserError: its search is not over, or it is an ablation, which selects none.
  """
  if ablates := target.entry.added.ablates:
    raise UserError(
      f'{target.arm} is an ablation, for which no point is selected and no test'
      f' is made; expected an arm that is searched, such as'
      f' {target.of(ablates).arm}'
    )
  if not target.search.points:
    return chosen(target.started, found)
  if waiting := pending(target, found):
    raise UserError(
      f'{target.arm} of regime {target.regime}, split {target.split} is not'
      f' selected yet: {len(waiting)} runs or more are missing; run `python -m'
      ' experiments.study search` first'
    )
  points = [
    p for of, points in rounds(target, found) if of == target for p in points
  ]
  point, ranking, _ = _best(target, points, found)
  return point, ranking


def front_jobs(target: Target, found: Found) -> list[Job]:
  """The base loss alone at its point, with other scales, on all folds."""
  alone = target.alone
  point, _ = chosen(alone, found)
  scale, dimension = next(iter(alone.entry.base.space.items()))
  places = np.linspace(0, 1, target.search.front)
  return [
    alone.job(point | {scale: dimension.at(place)}, fold, why='front')
    for place in places.tolist()
    for fold in range(folds.FOLDS)
  ]


def ablation(target: Target, found: Found) -> list[tuple[list[Job], list[Job]]]:
  """The runs of a switch, each beside those without it, by weight.

  Args:
    target: an arm that ablates another.
    found: job -> line.

  Returns:
    For each factor of the weight, the jobs on all folds of the arm that is
    ablated, at its chosen point, and of this one.

  Raises:
    UserError: the search of the arm that is ablated is not over.
  """
  arm = target.entry
  whole = target.of(arm.added.ablates)
  point, _ = chosen(whole, found)
  theirs = whole.entry.space
  own = {k: d for k, d in arm.space.items() if d != theirs.get(k)}
  pairs = []
  for factor in target.search.factors:
    jobs = []
    for of, changed in ((whole, point), (target, point | spaces.defaults(own))):
      weight = float(f'{factor * changed["weight"]:.4g}')
      changed = changed | {'weight': weight}
      why = 'ablation'
      jobs.append([of.job(changed, f, why=why) for f in range(folds.FOLDS)])
    pairs.append(tuple(jobs))
  return pairs


def test_jobs(target: Target, found: Found):
  """The jobs of the test, once selection is over, and their ranking.

  Raises:
    UserError: selection is not over, or another point has been tested: a test
      is made once.
  """
  point, ranking = chosen(target, found)
  jobs = [
    target.job(point, folds.TEST, seed, 'test') for seed in range(TEST_SEEDS)
  ]
  others = [
    job
    for job in found
    if job.fold == folds.TEST
    and (job.regime, job.split, job.arm)
    == (target.regime, target.split, target.arm)
    and job.point != jobs[0].point
  ]
  if others:
    raise UserError(
      f'{target.arm} was tested at {dict(others[0].point)}, and selection now'
      f' takes {point}; a test is made once: restore the lines that it was'
      ' selected by'
    )
  return jobs, ranking


def score(lines: Sequence[Mapping], ranking: str) -> float:
  """The criterion: MAP@R and mAP-subgroup, their mean over runs."""
  values = [
    np.mean([line['metrics'][ranking][name] for name in metrics.PRIMARY])
    for line in lines
  ]
  return float(np.mean(values))


def _first_round(alone: Target) -> list[Point]:
  space = alone.entry.space
  drawn = spaces.sobol(space, alone.search.points - 1, seed=_seed(alone, 1))
  given = {k: v for k, v in alone.search.first.items() if k in space}
  return [spaces.defaults(space) | given, *drawn]


def _second_round(alone: Target, found: Found) -> list[Point]:
  """The base loss alone, about the best point of the first round."""
  center, *_ = _best(alone, _first_round(alone), found)
  drawn = spaces.sobol(
    alone.entry.space,
    alone.search.points - 1,
    seed=_seed(alone, 2),
    center=center,
    width=alone.search.width,
  )
  return [center, *drawn]


def _third_round(target: Target, found: Found) -> list[Point]:
  """Points about the best one of the base loss alone, for every arm alike.

  The first has what is added at its defaults. Half of the points have the
  hyperparameters of the base loss as they are, where anything is added.
  """
  arm, alone = target.entry, target.alone
  tried = _first_round(alone) + _second_round(alone, found)
  center, *_ = _best(alone, tried, found)
  number = target.search.points - 1
  same = number // 2 if arm.added.space else 0
  base = [center] * same + spaces.sobol(
    arm.base_space,
    number - same,
    seed=_seed(alone, 3),
    center=center,
    width=target.search.width / 2,
  )
  added = spaces.sobol(arm.added.space, number, seed=_seed(target, 4))
  first = center | spaces.defaults(arm.added.space)
  return [first, *(b | a for b, a in zip(base, added, strict=True))]


def _first_about(target: Target, found: Found) -> list[Point]:
  """Points about the one that another regime chose for the same arm."""
  center, _ = chosen(target.started, found)
  drawn = _about(target, center, target.search.width, 5)
  return [spaces.defaults(target.entry.more) | center, *drawn]


def _second_about(target: Target, found: Found) -> list[Point]:
  """Points about the best one of the first such round."""
  center, *_ = _best(target, _first_about(target, found), found)
  return [center, *_about(target, center, target.search.width / 2, 7)]


def _about(
  target: Target, center: Point, width: float, number: int
) -> list[Point]:
  """Points of a box; what the arms of a base loss share is drawn alike.

  Args:
    target: what is searched.
    center: the middle of the box; what it lacks is drawn from its whole range.
    width: side of the box, as a share of the space's.
    number: of the seed of what is shared; what is added has the next one.
  """
  arm, points = target.entry, target.search.points - 1
  base, added = (
    spaces.sobol(space, points, seed=seed, center=center, width=width)
    for space, seed in (
      (arm.base_space, _seed(target.alone, number)),
      (arm.added.space, _seed(target, number + 1)),
    )
  )
  return [b | a for b, a in zip(base, added, strict=True)]


def _round_jobs(target: Target, points: list[Point], found: Found) -> list[Job]:
  """Those of a round's next rung that are not there."""
  rung = _missing([target.job(p, 0) for p in points], found)
  if rung:
    return rung
  kept = _ranked(target, points, found)[: target.search.kept]
  others = range(1, folds.FOLDS)
  return _missing([target.job(p, f) for p in kept for f in others], found)


def _pending_ablation(target: Target, found: Found) -> list[Job]:
  whole = target.of(target.entry.added.ablates)
  if jobs := pending(whole, found):
    return jobs
  pairs = ablation(target, found)
  return _missing([j for pair in pairs for jobs in pair for j in jobs], found)


def _missing(jobs: list[Job], found: Found) -> list[Job]:
  return list(dict.fromkeys(job for job in jobs if job not in found))


def _ranked(target: Target, points: list[Point], found: Found) -> list[Point]:
  """Points by the first fold, the best first, each once."""
  scores = {}
  for point in points:
    line = found[target.job(point, 0)]
    best = max(score([line], r) for r in RANKINGS if r in line['metrics'])
    scores[target.job(point, 0)] = best, point
  ordered = sorted(scores.values(), key=lambda item: -item[0])
  return [point for _, point in ordered]


def _best(
  target: Target, points: list[Point], found: Found
) -> tuple[Point, str, float]:
  """The best of the points that were run on all folds, by its best ranking."""
  best: tuple[Point, str, float] | None = None
  for point in points:
    jobs = [target.job(point, fold) for fold in range(folds.FOLDS)]
    if any(job not in found for job in jobs):
      continue
    lines = [found[job] for job in jobs]
    for ranking in RANKINGS:
      if ranking not in lines[0]['metrics']:
        continue
      value = score(lines, ranking)
      if best is None or value > best[2]:
        best = point, ranking, value
  if best is None:
    raise UserError(
      f'no point of {target.arm} was run on all folds; run `python -m'
      ' experiments.study search` first'
    )
  return best


def _seed(target: Target, number: int) -> int:
  """The same for the same arm in every regime's round, whatever Python."""
  return zlib.crc32(f'{target.arm} {number}'.encode())
