"""`python -m hier_jax` is `hier-jax`."""

import sys

from hier_jax.cli import main

sys.exit(main())
