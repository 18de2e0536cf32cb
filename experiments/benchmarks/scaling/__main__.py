"""What devices exchange in a step, and how well it scales by that.

Bytes from the compiled step at 1 to 256 devices, beside a formula; the work of
the loss that grows with all devices' batch; the efficiency that follows on
slices of TPU v5e, for which programs are compiled (`pip install 'jax[tpu]'`);
and what four devices in place of one cost here. Nothing is run on more devices
than this machine pretends to have.
"""

import json
import os

# With fewer threads than devices the collectives of fake devices deadlock.
os.environ.setdefault('NPROC', '64')

import jax

from experiments.benchmarks.common import report
from experiments.benchmarks.scaling import (
  cases,
  classes,
  compiling,
  efficiency,
  exchange,
  pretended,
)

_SCRIPT = 'experiments/benchmarks/scaling/__main__.py'
_PACKAGES = 'hier_jax', 'jax', 'jaxlib', 'libtpu', 'flax', 'optax', 'numpy'
_QUICK = cases.Sizes(
  (1, 4),
  (),
  few=20,
  total=40,
  rounds=3,
  classes=(1000,),
  spread=4,
  dim=32,
  trained=(1000, 16),
)


_SECTIONS = {
  'bytes': ('What devices exchange', exchange.exchanged),
  'loss': ('What the losses do on each device', efficiency.growing),
  'predicted': ('Efficiency on TPU v5e', efficiency.predicted),
  'classes': ('Class proxies by number of classes', classes.by_classes),
  'measured': ('Pretended devices', pretended.measured),
}


def main():
  """Reads the command line."""
  parser = report.parser(__doc__, 'scaling.md', _SECTIONS)
  parser.add_argument('--rounds', type=int, help='of the measured steps')
  parser.add_argument('--compile_once', type=json.loads, help='internal')
  args = parser.parse_args()
  if args.compile_once:
    compiling.compile_once(**args.compile_once)
    return
  sizes = report.chosen(args, _QUICK if args.quick else cases.Sizes())
  # Every section asks JAX for its devices, after which their number is fixed.
  jax.config.update('jax_num_cpu_devices', sizes.fake)
  report.emit_sections(args, _SCRIPT, _SECTIONS, _PACKAGES, sizes)


if __name__ == '__main__':
  main()
