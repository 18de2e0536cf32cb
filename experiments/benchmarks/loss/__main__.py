"""What HIER's loss and its gradient cost, and where that goes.

Value and gradient by the embeddings and the proxies, compiled: by size, beside
the definition, part by part, by source of noise, estimator and chunk, and
beside a ViT's step. On an accelerator the same command times that.
"""

from experiments.benchmarks.common import report
from experiments.benchmarks.loss import cases, choices, parts, whole

_SCRIPT = 'experiments/benchmarks/loss/__main__.py'
_PACKAGES = 'hier_jax', 'jax', 'jaxlib', 'flax', 'numpy'

_SECTIONS = {
  'size': ('By size', whole.by_size),
  'definition': ('Beside the definition', whole.beside_the_definition),
  'parts': ('By part', parts.by_part),
  'noise': ('By source of noise', choices.by_source),
  'growth': ('By number of proxies', parts.by_proxies),
  'anchors': ('By number of anchors among the proxies', parts.by_anchors),
  'estimators': ('By estimator', choices.by_estimator),
  'chunks': ('By size of chunk', choices.by_chunk),
  'backbone': ('Beside a backbone', whole.beside_a_backbone),
}


def main():
  """Reads the command line."""
  parser = report.parser(__doc__, 'hier_loss.md', _SECTIONS)
  for name, kind, help_ in (
    ('batches', '+', 'numbers of embeddings'),
    ('proxies', '+', 'numbers of proxies'),
    ('dimensions', '+', 'dimensions'),
    ('growth', '+', 'numbers of proxies of the section of that name'),
    ('rounds', None, 'runs of each program, at most'),
    ('seconds', None, 'after which none runs again but for the second time'),
    ('images', None, "images of the backbone's step"),
    ('seed', None, None),
  ):
    parser.add_argument(f'--{name}', type=int, nargs=kind, help=help_)
  args = parser.parse_args()
  sizes = report.chosen(args, cases.QUICK if args.quick else cases.Sizes())
  report.emit_sections(args, _SCRIPT, _SECTIONS, _PACKAGES, sizes)


if __name__ == '__main__':
  main()
