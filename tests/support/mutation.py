"""What the tests of losses, mining and the ball catch, by mutation.

    pip install cosmic-ray
    python -m tests.support.mutation --sample 160 --seed 0 --out mutants.jsonl

changes one operator, comparison, constant or decorator at a time in a copy of
the tree and runs the tests of its room that reach its statement, the quickest
first. All places of the source are drawn alike. What survived is printed, and
what ran out of time. The same command continues after an interruption.
"""

import argparse
import ast
import collections
import json
import os
import pathlib
import random
import re
import resource
import shlex
import shutil
import subprocess
import sys
import tempfile

import coverage
from cosmic_ray.commands import init
from cosmic_ray.mutating import mutate_and_test
from cosmic_ray.work_db import WorkDB

ROOT = pathlib.Path(__file__).parents[2]
ROOMS = 'hier_jax/losses', 'hier_jax/poincare', 'hier_jax/mining.py'
# Seconds, and bytes: a mutant may ask for more than there is.
TIMEOUT = 900
MEMORY = 8 * 2**30
# An operator gives way to another of its family: `x | y` of floats dies at once
# and proves nothing.
FAMILIES = [
  {'Add', 'Sub', 'Mul', 'Div', 'Pow', 'FloorDiv', 'Mod'},
  {'BitOr', 'BitAnd', 'BitXor', 'LShift', 'RShift'},
  {'Eq', 'NotEq', 'Lt', 'LtE', 'Gt', 'GtE'},
  {'Is', 'IsNot'},
]


def modules():
  """The modules that are mutated, relative to the root."""
  for room in ROOMS:
    path = ROOT / room
    found = [path] if path.is_file() else sorted(path.glob('*.py'))
    yield from (module.relative_to(ROOT) for module in found)


def unseen(source):
  """The spans of annotations, which compute nothing."""
  nodes = list(ast.walk(ast.parse(source)))
  parts = [node.annotation for node in nodes if hasattr(node, 'annotation')]
  parts += [node.returns for node in nodes if hasattr(node, 'returns')]
  for part in filter(None, parts):
    yield (part.lineno, part.col_offset), (part.end_lineno, part.end_col_offset)


def is_fair(operator):
  """Whether a mutation's operator keeps to its family."""
  name, *kinds = operator.removeprefix('core/').split('_')
  replaces = name in (
    'ReplaceBinaryOperator',
    'ReplaceComparisonOperator',
  )
  return not replaces or any(set(kinds) <= family for family in FAMILIES)


def mutants():
  """The mutants of each place, by place."""
  with tempfile.TemporaryDirectory() as folder:
    work = WorkDB(pathlib.Path(folder) / 'work.sqlite', WorkDB.Mode.create)
    init(list(modules()), work, {})
    items = work.work_items
    work.close()
  spans = {path: list(unseen((ROOT / path).read_text())) for path in modules()}
  places = collections.defaultdict(list)
  for item in items:
    (mutation,) = item.mutations
    path, start = mutation.module_path, mutation.start_pos
    seen = not any(first <= start < last for first, last in spans[path])
    if seen and is_fair(mutation.operator_name):
      places[str(path), start].append(mutation)
  return places


def drawn(size, seed):
  """A sample of mutants, one a place."""
  places, draw = mutants(), random.Random(seed)
  chosen = draw.sample(sorted(places), min(size, len(places)))
  order = lambda mutation: (mutation.operator_name, mutation.occurrence)
  return [draw.choice(sorted(places[place], key=order)) for place in chosen]


def room_of(path):
  """Where the tests of a module are."""
  room = pathlib.Path('tests') / path.parent.relative_to('hier_jax')
  return room / f'test_{path.stem}.py' if path.stem == 'mining' else room


def pytest_command(*options):
  """What runs tests."""
  fixed = '-m pytest -x -q -o addopts= -p no:cacheprovider --tb=no -rfE'
  return [sys.executable, *fixed.split(), '-m', 'not slow', *options]


def record(out):
  """Runs all tests that there are, and writes what each takes and reaches."""
  rooms = sorted({str(room_of(module)) for module in modules()})
  os.environ['COVERAGE_FILE'] = str(out / 'coverage')
  options = '--cov=hier_jax', '--cov-context=test', '--cov-report='
  times = '--durations=0', '--durations-min=0', '-vv'
  command = pytest_command(*options, *times, *rooms)
  found = subprocess.run(command, stdout=subprocess.PIPE, text=True)
  print(found.stdout.splitlines()[-1], flush=True)
  (out / 'durations').write_text(found.stdout)


def statement(path, line):
  """The lines of the shortest statement of a file that has a line."""
  nodes = ast.walk(ast.parse((ROOT / path).read_text()))
  spans = [
    range(node.lineno, node.end_lineno + 1)
    for node in nodes
    if isinstance(node, ast.stmt) and not hasattr(node, 'body')
  ]
  return min((s for s in spans if line in s), key=len, default=[line])


class Reached:
  """The tests that reach a line, the quickest first."""

  def __init__(self, out):
    self._data = coverage.CoverageData(str(out / 'coverage'))
    self._data.read()
    self._files = {
      mutated_path: name
      for name in self._data.measured_files()
      for mutated_path in modules()
      if name.endswith(f'/{mutated_path}')
    }
    self._seconds = collections.Counter()
    line = re.compile(r'^([\d.]+)s (?:setup|call|teardown) +(\S.*)$', re.M)
    for seconds, test in line.findall((out / 'durations').read_text()):
      self._seconds[test] += float(seconds)

  def __call__(self, mutation):
    path = mutation.module_path
    contexts = self._data.contexts_by_lineno(self._files[path])
    lines = statement(path, mutation.start_pos[0])
    reached = {test for line in lines for test in contexts.get(line, ())}
    tests = {test.rpartition('|')[0] for test in reached} - {''}
    # What a module does when it is imported is of no test.
    return sorted(tests or self._seconds, key=lambda test: self._seconds[test])


def outcome(mutation, tests):
  """Which test killed a mutant, 'timeout' or '', and its diff."""
  command = shlex.join(pytest_command(*tests))
  result = mutate_and_test([mutation], command, TIMEOUT)
  if not result.is_killed:
    return '', result.diff
  failed = re.search(r'^(?:FAILED|ERROR) (\S+)', result.output, re.M)
  return failed[1] if failed else result.output[-200:], result.diff


def main():
  """Draws, runs and prints."""
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument('--sample', type=int, default=160)
  parser.add_argument('--seed', type=int, default=0)
  parser.add_argument('--out', type=pathlib.Path, default='mutants.jsonl')
  parser.add_argument('--part', default='0/1', help='1/2: each second mutant')
  options = parser.parse_args()
  out = options.out.resolve()
  recorded = out.with_suffix('.recorded')
  lines = out.read_text().splitlines() if out.exists() else []
  known = {json.loads(line)['mutant']: json.loads(line) for line in lines}
  os.chdir(ROOT)
  part, parts = map(int, options.part.split('/'))
  sample = drawn(options.sample, options.seed)[part::parts]
  with tempfile.TemporaryDirectory() as folder:
    tracked = subprocess.check_output(['git', 'ls-files'], text=True)
    for name in tracked.splitlines():
      target = pathlib.Path(folder) / name
      target.parent.mkdir(parents=True, exist_ok=True)
      shutil.copy(ROOT / name, target)
    os.chdir(folder)
    # Programs that a mutation does not change are compiled once.
    os.environ |= {
      'PYTHONPATH': folder,
      'JAX_COMPILATION_CACHE_DIR': f'{folder}/programs',
      'JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS': '0.1',
    }
    if not recorded.exists():
      recorded.mkdir()
      record(recorded)
    reached = Reached(recorded)
    resource.setrlimit(resource.RLIMIT_DATA, (MEMORY, MEMORY))
    for mutation in sample:
      line, column = mutation.start_pos
      where = f'{mutation.module_path}:{line}:{column}'
      name = f'{where} {mutation.operator_name} {mutation.occurrence}'
      if name not in known:
        killer, diff = outcome(mutation, reached(mutation))
        known[name] = {'mutant': name, 'killer': killer, 'diff': diff}
        with out.open('a') as file:
          file.write(json.dumps(known[name]) + '\n')
      print(f'{known[name]["killer"] or "SURVIVED":60} {name}', flush=True)
  os.chdir(ROOT)
  for found in known.values():
    if found['killer'] in ('', 'timeout'):
      print(found['mutant'], found['diff'], sep='\n')
  count = lambda killer: sum(
    found['killer'] == killer for found in known.values()
  )
  print(
    f'{len(known)} mutants, {count("")} survived, {count("timeout")} timeouts'
  )


if __name__ == '__main__':
  main()
