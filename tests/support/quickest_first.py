"""A plugin of pytest: the quickest tests run first.

    QUICKEST_FIRST=seconds.json pytest -p tests.support.quickest_first FILE...

writes what each test took where seconds.json does not exist, and sorts by it
where it does. Tests of the first file that is named stay before all others, of
which the long ones are left out.
"""

import collections
import json
import os
import pathlib

_SECONDS = pathlib.Path(os.environ['QUICKEST_FIRST'])
# Seconds.
_LONG = 0.5
_took = collections.Counter()


def pytest_collection_modifyitems(config, items):
  """Sorts."""
  if _SECONDS.exists():
    known = json.loads(_SECONDS.read_text())
    own = lambda item: item.nodeid.startswith(config.args[0])
    seconds = lambda item: known.get(item.nodeid, 0)
    items[:] = [i for i in items if own(i) or seconds(i) < _LONG]
    items.sort(key=lambda item: (not own(item), seconds(item)))


def pytest_runtest_logreport(report):
  """Adds up."""
  _took[report.nodeid] += report.duration


def pytest_sessionfinish():
  """Writes."""
  if not _SECONDS.exists():
    _SECONDS.write_text(json.dumps(_took))
