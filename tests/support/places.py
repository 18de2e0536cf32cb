"""Where the tests find what is not code."""

import pathlib

ROOT = pathlib.Path(__file__).resolve().parents[2]
# Small vectors that the tests own.
FIXTURES = ROOT / 'tests' / 'fixtures'
# Larger ones that a checkout may have beside it.
SHARED = ROOT.parent / 'shared'
