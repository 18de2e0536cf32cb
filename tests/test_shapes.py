"""Shapes in annotations are those of arrays, by jaxtyping's import hook."""

import json
import subprocess
import sys

import pytest

from tests.support import checked_shapes, places

# All rooms are called in a process of its own.
pytestmark = pytest.mark.slow


@pytest.fixture(scope='module')
def errors():
  """Of calls in a process where the hook checks all functions."""
  code = 'from tests.support import checked_shapes; checked_shapes.main()'
  done = subprocess.run(
    [sys.executable, '-c', code],
    cwd=places.ROOT,
    capture_output=True,
    text=True,
  )
  assert done.returncode == 0, done.stderr
  return json.loads(done.stdout.splitlines()[-1])


def test_calls_fit_their_annotations(errors):
  assert not {k: v for k, v in errors['right'].items() if v is not None}


@pytest.mark.parametrize('room', checked_shapes.ROOMS)
def test_hook_refuses_another_shape(errors, room):
  assert (errors['wrong'][room] or '').startswith('TypeCheckError')
