"""The modules in docs/_ext can be imported by the tests here."""

import sys

from tests.support import pages

sys.path.insert(0, str(pages.EXTENSIONS))
