"""Programs compiled for TPU v5e where there is none.

libtpu (`pip install 'jax[tpu]'`) compiles for a slice that is described to it,
and notes how many cycles it expects of each operation.
"""

import os
import re

from jax.experimental import topologies

# What a machine with a TPU asks the cloud, where nobody answers.
_ANSWERS = {
  'TPU_SKIP_MDS_QUERY': '1',
  'TPU_ACCELERATOR_TYPE': 'v5litepod-8',
  'TPU_WORKER_HOSTNAMES': 'localhost',
}
_SHAPES = {1: '1x1', 8: '2x4', 256: '16x16'}
# Four units of 128 x 128 multiply-adds a cycle make a chip's peak.
_FLOPS = 4 * 128 * 128 * 2


def devices(chips):
  """The devices of a slice of a number of chips, to compile for."""
  os.environ.update(_ANSWERS)
  more = {'chips_per_host_bounds': [1, 1, 1]} if chips == 1 else {}
  return topologies.get_topology_desc(
    f'v5e:{_SHAPES[chips]}', 'tpu', **more
  ).devices


def _computations(text):
  """Name -> lines; and the name of the one that is run."""
  found, name, entry = {}, None, None
  for line in text.splitlines():
    head = re.match(r'(ENTRY )?%?([\w.\-]+) \(.*\{$', line)
    if head:
      name = head[2]
      found[name], entry = [], name if head[1] else entry
    elif name:
      found[name].append(line)
  return found, entry


def _named(key, line):
  return re.search(rf'{key}=%?([\w.\-]+)', line)[1]


def seconds(text, peak, choose=min):
  """What the compiler expects a program to take, without its exchanges.

  Loops count as often as they run; those whose end depends on data, the ones
  over triplets, do not count. Sorting and `top_k` have no estimate.

  Args:
    text: of a program compiled for TPU.
    peak: bfloat16 FLOP/s of a chip.
    choose: which branch of a conditional runs, `min` or `max` of their cycles.
  """
  computations, entry = _computations(text)

  def cycles(name):
    return sum(map(of_line, computations[name]))

  def of_line(line):
    if ' while(' in line:
      condition = computations[_named('condition', line)]
      ends = re.findall(r' constant\((\d+)\)', '\n'.join(condition))
      return max(map(int, ends), default=0) * cycles(_named('body', line))
    if ' conditional(' in line:
      branches = re.search(r'branch_computations=\{(.*?)\}', line)[1]
      return choose(map(cycles, re.findall(r'[\w.\-]+', branches)))
    if ' call(' in line:
      return cycles(_named('to_apply', line))
    found = re.search(r'"estimated_cycles":"(\d+)"', line)
    return int(found[1]) if found else 0

  return cycles(entry) * _FLOPS / peak
