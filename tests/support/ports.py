"""Ports for processes of a test to meet at."""

import contextlib
import socket


@contextlib.contextmanager
def reserved():
  """A port that JAX can listen at, and that nobody else is given meanwhile.

  JAX may share what is bound with these options and is not listened at.
  """
  with socket.socket(socket.AF_INET6) as found:
    for option in (socket.SO_REUSEADDR, socket.SO_REUSEPORT):
      found.setsockopt(socket.SOL_SOCKET, option, 1)
    found.bind(('::', 0))
    yield found.getsockname()[1]
