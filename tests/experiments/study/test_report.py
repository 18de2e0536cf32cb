"""What the page says of the lines."""

from experiments.study import comparisons, report
from tests.support import small_study


def test_arms_are_told_by_what_they_change():
  lines = small_study.tested_lines(
    {
      'alone': (0, 0),
      'triplet': (-1, 2),
      'hier_star': (2, 3),
      'distillation': (0, 1),
      'dasgupta': (-1, -1),
    }
  )
  page = report.page(lines, comparisons.compare(lines), {})
  heading = page.index('| split, regime, base loss | gains in both')
  names, _, row = page[heading:].splitlines()[:3]
  cells = dict(zip(names.split('|')[2:-1], row.split('|')[2:-1], strict=True))
  found = {
    k.strip(): v.split('(')[0].strip() for k, v in cells.items() if v.strip()
  }
  assert found == {
    'gains in both': 'hier_star',
    'gains in one': 'distillation',
    'trades one for the other': 'triplet',
    'loses in both': 'dasgupta',
  }
