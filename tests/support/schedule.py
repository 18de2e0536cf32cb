"""Which process of pytest-xdist runs which tests, and which begin first."""

# Folders whose modules share a run or programs, hence a process.
SHARING = 'tests/inference', 'tests/training/run'
# Files whose tests share nothing and take long: each test goes to the process
# that is free.
SPREAD = (
  'tests/test_notebooks.py',
  'tests/training/distributed/test_processes.py',
  'tests/training/run/test_kill.py',
)
# What takes longest begins first: a process that began it last would work alone
# for minutes.
FIRST = (
  'tests/training/run/',
  'tests/test_notebooks.py',
  'tests/training/distributed/',
  'tests/losses/test_hier.py',
  'tests/poincare/test_operations.py',
  'tests/docs/test_commands_run.py',
  'tests/test_examples.py',
  'tests/viz/test_page.py',
  'tests/training/step/',
  'tests/experiments/study/',
)


def scope(test: str) -> str:
  """What a test's process also runs: the test alone, its file, or a folder."""
  file = test.split('::', 1)[0]
  if file in SPREAD:
    return test
  folders = (folder for folder in SHARING if file.startswith(folder))
  return next(folders, file)


def rank(test: str) -> int:
  """Place in `FIRST`; what is not there comes last."""
  places = (i for i, start in enumerate(FIRST) if test.startswith(start))
  return next(places, len(FIRST))
