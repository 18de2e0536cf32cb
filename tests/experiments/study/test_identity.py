"""Lines of runs are found again: what an arm is does not change.

The runs in results/ are keyed by arm, point, fold and seed. Another space,
other Sobol points or other numbers would make them runs of something else.
"""

import contextlib
import json
import zlib

import jax.numpy as jnp
import numpy as np
import pytest

from experiments.study import __main__ as study
from experiments.study import (
  added,
  arms,
  folds,
  records,
  search,
  spaces,
  training,
)
from experiments.study.records import Job
from hier_jax.errors import UserError
from tests.support import small_study

# CRC-32 of the space, and of the first four points of rounds 1 and 3.
ASKED = {
  'proxy_anchor+alone': (89280835, 1127189029),
  'proxy_anchor+official': (1851504022, 3338594223),
  'proxy_anchor+hier_star': (2355419620, 19427672),
  'proxy_anchor+triplet': (744818926, 2114158749),
  'sup_con+alone': (520434063, 1801927097),
  'sup_con+official': (1308100347, 1934436563),
  'sup_con+hier_star': (3800990043, 2597054547),
  'sup_con+triplet': (264682371, 3447555525),
}
# Of a short run at the defaults: the last loss, and the head's sum of |w|.
TRAINED = {
  'proxy_anchor+alone': (29.29654, 12.68166),
  'proxy_anchor+triplet': (29.35619, 12.68094),
  'proxy_anchor+hier_star': (30.10533, 12.68267),
  'sup_con+alone': (0.6578843, 12.65706),
  'sup_con+triplet': (0.7449511, 12.65681),
  'sup_con+hier_star': (1.344115, 12.66786),
}


def crc(value) -> int:
  return zlib.crc32(json.dumps(value).encode())


def asked(name):
  """What decides the points of an arm's search."""
  arm = arms.arm(name)
  target = search.Target('a128', 'B', name)
  space = [
    [k, d.kind, list(d.values), d.default, d.static]
    for k, d in arm.space.items()
  ]
  first = spaces.sobol(arm.space, 4, seed=search._seed(target, 1))
  third = spaces.sobol(arm.added.space, 4, seed=search._seed(target, 4))
  return crc(space), crc([first, third])


@pytest.mark.parametrize('name', list(ASKED))
def test_points_of_a_search_stay(name):
  assert asked(name) == ASKED[name]


FILES = sorted(study.HERE.glob('results/*.jsonl'))


@pytest.mark.parametrize('file', FILES)
def test_lines_of_a_base_loss_are_those_that_a_search_asks_for(file):
  # A search may start from the lines of another file.
  found = records.by_job(records.read(FILES))
  own = [Job.of_line(line) for line in records.read([file])]
  jobs = [j for j in own if j.arm.endswith('+alone') and j.why == 'search']
  wanted: set[Job] = set()
  target = search.Target(jobs[0].regime, jobs[0].split, jobs[0].arm)
  # What a round needs may not have been run yet.
  with contextlib.suppress(UserError):
    for searched, points in search.rounds(target, found):
      wanted |= {
        searched.job(p, fold) for p in points for fold in range(folds.FOLDS)
      }
  assert jobs and set(jobs) <= wanted


def test_arms_that_keep_nothing_carry_nothing():
  names = 'alone', 'official', 'hier_star', 'triplet'
  assert all(added.ADDED[name].carried is None for name in names)


@pytest.mark.slow
@pytest.mark.parametrize('name', list(TRAINED))
def test_numbers_of_a_run_stay(name, monkeypatch):
  small_study.shrink(monkeypatch)
  monkeypatch.setattr(added, '_K_MAX', 12)
  data = small_study.make()
  rows = np.flatnonzero(data.labels < 12)
  run = training.Run(
    jnp.asarray(data.x), rows, data.labels[rows], data.subgroup[:12], epochs=2
  )
  arm = arms.arm(name)
  found = training.train(arm, spaces.defaults(arm.space), run, dim=4, seed=0)
  kernel = np.asarray(found.params['head']['params']['linear']['kernel'])
  got = found.loss, np.abs(kernel).sum()
  np.testing.assert_allclose(got, TRAINED[name], rtol=1e-4)
