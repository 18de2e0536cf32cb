"""The table of what benchmarks measured."""

import dataclasses

from experiments.benchmarks import summary
from experiments.benchmarks.common import report


def test_figures_are_replaced_by_name_and_shown_by_page(tmp_path):
  first = report.Figure('a', '1 s', 'at most 2 s', 'a CPU', '2026-01-01')
  second = report.Figure('b', '3 GB')
  report.write_figures(tmp_path / 'page.md', [first, second])
  later = dataclasses.replace(first, measured='1.5 s')
  report.write_figures(tmp_path / 'page.md', [later])
  assert report.figures_of(tmp_path / 'page.md') == [later, second]
  assert summary.table(tmp_path).splitlines()[2:] == [
    '| a | 1.5 s | at most 2 s | a CPU | 2026-01-01 | page |',
    '| b | 3 GB |  |  |  | page |',
  ]


def test_every_page_with_figures_is_there():
  pages = [path.with_suffix('.md') for path in report.RESULTS.glob('*.json')]
  assert pages
  for page in pages:
    assert page.exists()
    for figure in report.figures_of(page):
      assert figure.what
      assert figure.measured
      assert figure.device
      assert figure.date
