"""What an accelerator takes for a step, for HIER's loss and for retrieval.

    python -m experiments.benchmarks.accelerator step hier --out FOLDER

One question a file of JSON, with the device's name. What needs PyTorch (timm)
is left out where that is missing.
"""

import argparse
import datetime
import json

import jax

from experiments import command_line
from experiments.benchmarks.accelerator import hier, retrieval, step
from experiments.benchmarks.common import report

_PACKAGES = 'hier_jax', 'jax', 'jaxlib', 'flax', 'optax', 'torch', 'timm'
_QUESTIONS = {
  'step': step.measure,
  'hier': hier.measure,
  'retrieval': retrieval.measure,
}


def main():
  """Reads the command line."""
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument('questions', nargs='+', choices=_QUESTIONS)
  parser.add_argument('--quick', action='store_true', help='small sizes')
  parser.add_argument(
    '--only', nargs='+', help='measure these parts of a question alone'
  )
  parser.add_argument(
    '--out', type=command_line.path, help='folder for QUESTION.json'
  )
  args = parser.parse_args()
  for name in args.questions:
    found = {
      'question': name,
      'device': jax.devices()[0].device_kind,
      'machine': report.machine(),
      'versions': report.versions(_PACKAGES),
      'date': datetime.date.today().isoformat(),
      'measured': _QUESTIONS[name](args.quick, args.only),
    }
    text = json.dumps(found, indent=2, default=float)
    print(text, flush=True)
    if args.out:
      args.out.mkdir(parents=True, exist_ok=True)
      (args.out / f'{name}.json').write_text(f'{text}\n', 'utf-8')


if __name__ == '__main__':
  main()
