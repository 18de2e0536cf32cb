"""Builds icons by concept, the study's second data set.

    python -m experiments.icons build --out icons
    hier-jax data prepare folder/icons --from icons

It packs two packages of the npm registry, of exact versions, draws the icons
whose names are nouns of WordNet, and writes a folder of classes with
taxonomy.csv, licenses.csv and about.json. README.md says by which rules.
"""

import argparse
import importlib.metadata
import pathlib
import sys

from experiments import command_line
from experiments.icons import build, render, sources
from hier_jax import paths
from hier_jax.errors import UserError


def main(arguments: list[str] | None = None) -> int:
  """Runs a command; returns the exit code."""
  args = _parser().parse_args(arguments)
  return command_line.run(lambda: args.command(args))


def _parser() -> argparse.ArgumentParser:
  parser = argparse.ArgumentParser(
    prog='python -m experiments.icons',
    description=__doc__,
    formatter_class=argparse.RawDescriptionHelpFormatter,
  )
  commands = parser.add_subparsers(required=True)
  made = commands.add_parser('build', help='fetches, draws and writes')
  made.add_argument('--out', type=command_line.path, required=True)
  made.add_argument(
    '--sources', type=command_line.path, default=pathlib.Path('build/icons'),
    help='where the archives of the packages are kept (%(default)s)',
  )  # fmt: skip
  made.set_defaults(command=_build)
  return parser


def _build(args: argparse.Namespace):
  out = paths.check_output(args.out, inputs=[args.sources], folder=True)
  paths.check_output(args.sources, folder=True)
  if out.exists() and any(out.iterdir()):
    raise UserError(f'output {out} holds files; name a new or an empty folder')
  render.check()
  packages = sources.ICONS, sources.WORDNET
  icons, nouns = (sources.fetch(p, args.sources) for p in packages)
  wordnet = sources.wordnet(nouns)
  drawings, reasons = build.collect(
    sources.icon_sets(icons), wordnet, build.senses()
  )
  picked = build.pick(drawings, build.draw(drawings), wordnet, reasons)
  about = {
    'packages': {p.name: p.version for p in packages},
    'versions': {
      name: importlib.metadata.version(name)
      for name in ('resvg_py', 'pillow', 'numpy')
    },
    'left_out': dict(reasons.most_common()),
  }
  build.write(picked, out, about)
  for side, found in build.counts(picked).items():
    told = ', '.join(f'{number:,} {name}' for name, number in found.items())
    print(f'{side}: {told}')


if __name__ == '__main__':
  sys.exit(main())
