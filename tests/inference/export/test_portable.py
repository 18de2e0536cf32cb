"""The module that is exported."""

from hier_jax.inference.export import portable
from tests.support import exported


def test_blocks_are_no_loop():
  model = exported.drawn('vit_test_patch4', scan_blocks=True)
  assert not portable.module(model).backbone.scan_blocks
