"""Which kernels a device spends its time in, by JAX's profiler."""

import collections
import pathlib
import re
import tempfile

import jax
from jax import profiler


def by_kernel(run, times, most=40):
  """Milliseconds a call by kernel, the longest first.

  Args:
    run: launches work and waits for it.
    times: how often it is called.
    most: kernels to name; the rest is summed.

  Returns:
    name -> [milliseconds a call, launches a call], and 'all', their sum.
  """
  run()
  with tempfile.TemporaryDirectory() as folder:
    with profiler.trace(folder):
      for _ in range(times):
        run()
    (path,) = pathlib.Path(folder).rglob('*.xplane.pb')
    data = profiler.ProfileData.from_file(str(path))
  spent, launched = collections.Counter(), collections.Counter()
  for plane in data.planes:
    if not plane.name.startswith(('/device:GPU', '/device:TPU')):
      continue
    for line in plane.lines:
      if not line.name.startswith(('Stream', 'XLA Ops')):
        continue
      for event in line.events:
        spent[event.name] += event.duration_ns
        launched[event.name] += 1
  rows = {
    name: [round(ns / 1e6 / times, 4), launched[name] / times]
    for name, ns in spent.most_common(most)
  }
  total = sum(spent.values()) / 1e6 / times
  return {'all': [round(total, 4), sum(launched.values()) / times]} | rows


def by_kind(rows):
  """The same, summed over kernels whose names differ in numbers alone."""
  found = collections.Counter()
  for name, (ms, _) in rows.items():
    if name != 'all':
      found[re.sub(r'[\d.]+', '', name)] += ms
  return {name: round(ms, 4) for name, ms in found.most_common()}


def waited(program, *arguments):
  """A function that runs the program and waits for it."""
  return lambda: jax.block_until_ready(program(*arguments))
