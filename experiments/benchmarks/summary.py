"""What was measured, beside what was aimed at: one table of all benchmarks.

Benchmarks write the figures beside their pages, with --write. The date is the
day of the measurement.
"""

import argparse

from experiments.benchmarks.common import report


def table(folder=report.RESULTS):
  """A Markdown table of the figures in a folder, by page."""
  rows = []
  for path in sorted(folder.glob('*.json')):
    for figure in report.figures_of(path):
      row = figure.what, figure.measured, figure.target, figure.device
      rows.append([*row, figure.date, path.stem])
  heading = ['what', 'measured', 'target', 'device', 'date', 'page']
  return report.table(heading, rows)


def main():
  """Reads the command line."""
  argparse.ArgumentParser(description=__doc__).parse_args()
  print(table())


if __name__ == '__main__':
  main()
