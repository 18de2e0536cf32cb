"""`hier-jax figures`."""

import pathlib
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from absl import flags

from hier_jax import paths
from hier_jax.cli import collections, verbs
from hier_jax.errors import UserError
from hier_jax.viz import theme as themes

if TYPE_CHECKING:
  from hier_jax.evaluation.collection import Collection
  from hier_jax.viz.outline import Outline

__all__ = ['VERB']

_NAMES = 'disk', 'icicle', 'histograms', 'worst'
# A sheet of pictures is no drawing.
_SHEET = {'png': 'png', 'svg': 'html'}
_LAYOUTS = 'tree', 'pca', 'horopca', 'cosne', 'umap'


def _define(values: flags.FlagValues) -> None:
  verbs.text_flags(
    values,
    out='FOLDER: Where to write them; by default figures in the workdir, or'
    ' NAME-figures beside a file.',
  )
  verbs.choices_flag(
    values,
    'only',
    _NAMES,
    'NAMES: Some of disk,icicle,histograms,worst: images and proxies on the'
    ' Poincare disk; the tree from its root downward; distances within and'
    ' between classes; the queries whose first right neighbor comes last. By'
    ' default every figure that there is data for.',
  )
  verbs.choice_flag(
    values,
    'format',
    tuple(_SHEET),
    'FORMAT: png (the default) or svg; with svg, worst is an .html.',
    default='png',
  )
  verbs.theme_flag(values, 'figures')
  verbs.choice_flag(
    values,
    'layout',
    _LAYOUTS,
    'LAYOUT: Where the disk has an image: at its place in the tree (the'
    ' default), or where pca (tangent PCA), horopca, cosne or umap projects its'
    ' embedding.',
    default='tree',
  )
  verbs.text_flags(
    values,
    level='LEVEL: What colors tell apart: a level of the taxonomy, or class; by'
    ' default the coarsest.',
  )
  collections.define_source(values)
  collections.define(values)


def _run(values: flags.FlagValues, arguments: Sequence[str]) -> None:
  path, inputs = collections.named(values, arguments, 'figures')
  folder = paths.check_output(
    values.out or collections.beside(path, 'figures', '-figures'),
    inputs=inputs,
    folder=True,
  )
  names = list(dict.fromkeys(values.only or _NAMES))
  if names != ['worst']:
    themes.check()
  loaded = collections.load(values, path)
  made = None
  if {'disk', 'icicle'} & set(names):
    from hier_jax.viz import outline

    source = str(values['from'].value)
    made = outline.outline(loaded, source=source)
  for name in names:
    kind = values.format if name != 'worst' else _SHEET[values.format]
    out = folder / f'{name}.{kind}'
    try:
      _write(name, out, loaded, made, values)
    except paths.WriteError:
      raise
    except UserError as error:
      # The first is drawn of anything: what it lacks is a mistake.
      if values.only or name == _NAMES[0]:
        raise
      print(f'no {name}: {error}', file=sys.stderr)
    else:
      print(f'{name} written to {out}', flush=True)


def _write(
  name: str,
  out: pathlib.Path,
  collection: 'Collection',
  made: 'Outline | None',
  values: flags.FlagValues,
) -> None:
  """Draws one of `_NAMES` and writes it."""
  # Heavy imports wait until the arguments are known to be right.
  from hier_jax.viz import disk, histograms, icicle, worst

  look = {'theme': values.theme}
  if name == 'worst':
    worst.write(collection, out, **look)
    return
  if made is not None:
    tree = {'source': made.hierarchy, 'level': values.level, **look}
  if name == 'disk':
    drawn = disk.figure(collection, layout=values.layout, **tree)
  elif name == 'icicle':
    drawn = icicle.figure(collection, **tree)
  else:
    drawn = histograms.figure(collection, **look)
  themes.write(drawn, out)


VERB = verbs.Verb(
  'figures',
  (f'figures {collections.FORM} [--out FOLDER] [--only NAMES] ...',),
  'Draw what a model has learned: its images and their tree on the Poincare'
  ' disk, the tree alone, distances within and between classes, and the worst'
  ' queries.',
  _define,
  _run,
  positional=1,
)
