"""`hier-jax embed`."""

import pathlib
import sys
from typing import TYPE_CHECKING

from absl import flags

from hier_jax import paths
from hier_jax.cli import verbs
from hier_jax.errors import UserError

if TYPE_CHECKING:
  from hier_jax.inference.embed import Embeddings
  from hier_jax.inference.model import Model
  from hier_jax.inference.sources import Source

__all__ = ['VERB']

_KINDS = 'flat', 'hnsw', 'ivfpq'


def _define(values: flags.FlagValues) -> None:
  verbs.text_flags(
    values,
    out='FILE: The .npz, .parquet or .faiss to write: embeddings with all that'
    ' is known about them, or an index that search reads without loading it.'
    ' By default an .npz named after SOURCE.',
  )
  verbs.choice_flag(
    values,
    'index',
    _KINDS,
    'KIND: What a .faiss is: flat (the default) is exact; hnsw is a graph,'
    ' faster from about 100,000 images on; ivfpq is compressed, for millions,'
    ' and misses some neighbors.',
  )
  verbs.switch_flag(
    values,
    'add',
    'Add the images to FILE, which the same model wrote; images that it holds'
    ' already are left out.',
  )
  verbs.choice_flag(
    values,
    'labels',
    ('auto', 'folder', 'none'),
    "RULE: An image's class: folder is the first folder below SOURCE; none is"
    ' none. auto (the default) takes the folder if all images are'
    ' SOURCE/CLASS/IMAGE and there are two or more classes.',
    default='auto',
  )
  define_model(values)
  verbs.text_flags(
    values,
    data_dir='DIR: The folder of prepared data sets, for DATASET:SPLIT; by'
    ' default TFDS_DATA_DIR if it is set, else ~/tensorflow_datasets.',
  )


def define_model(values: flags.FlagValues) -> None:
  """Flags that say how a model is opened, and how it works."""
  define_backbone(values)
  verbs.number_flag(
    values,
    'batch_size',
    'N: Images at a time; by default 32 for each CPU device, 128 for each GPU'
    ' or TPU.',
  )


def define_backbone(values: flags.FlagValues) -> None:
  """Flags that say how a model is opened."""
  verbs.text_flags(
    values,
    architecture="NAME: The backbone's name, if a file of weights does not"
    ' say it.',
  )
  verbs.number_flag(
    values,
    'image_size',
    "PIXELS: The side of a pretrained backbone's images; by default the size in"
    ' its name, and 224 for DINOv2.',
  )


def open_model(values: flags.FlagValues, name: str) -> 'Model':
  """Opens the model that the flags of `define_backbone` tell of."""
  from hier_jax.inference import model

  return model.open_model(
    name,
    architecture=values.architecture,
    image_size=verbs.whole(values, 'image_size'),
  )


def _run(values: flags.FlagValues, arguments: list[str]) -> None:
  if len(arguments) < 2:
    raise UserError(
      'embed needs a MODEL and a SOURCE of images, such as hier-jax embed'
      f' runs/quickstart photos/, found {" ".join(arguments) or "nothing"}; see'
      ' hier-jax embed --help'
    )
  name, where = arguments
  batch_size = verbs.whole(values, 'batch_size')
  out = paths.as_path(values.out or _default_out(where))
  if values.index is not None and out.suffix != '.faiss':
    raise UserError(
      f'--index {values.index} is for a .faiss, but the output is {out}'
    )
  # Heavy imports wait until the arguments are known to be right.
  from hier_jax.evaluation.retrieval import faiss_index
  from hier_jax.inference import embed, output, sources

  old = output.check(
    out, add=values.add, inputs=[name, where], kind=values.index
  )
  source = sources.open_source(
    where,
    labels=values.labels,
    root=None if old is None else old.root,
    data_dir=values.data_dir,
  )
  for note in source.notes:
    print(note, file=sys.stderr)
  if old is None and values.index is not None:
    faiss_index.check_kind(values.index, len(source))
  model = open_model(values, name)
  if model.note:
    print(model.note, file=sys.stderr)
  if old is not None:
    source = output.new_images(old, model, source)
    if not len(source):
      print(f'{out} holds all of these images already')
      return
  try:
    with embed.resumable(out, model, source) as parts:
      if old is not None:
        # Others write only before the lock is taken.
        old.check_unchanged()
      found = embed.embed_images(
        model,
        source,
        parts=parts,
        batch_size=batch_size,
        progress=sys.stderr.isatty(),
      )
      written = output.write(found.embedded, out, old=old, kind=values.index)
  except KeyboardInterrupt:
    print('\nwhat is done is kept: the same command goes on', file=sys.stderr)
    raise
  verbs.say_unread(found.unread, len(source))
  print(_summary(found, source, out, written))


def _default_out(where: str) -> str:
  match = where.rpartition(':')
  if match[1] and '/' not in match[2]:
    return f'{match[0].replace("/", "-")}-{match[2]}.npz'
  path = paths.as_path(where).absolute().resolve()
  # What follows the last dot of a folder's name is no suffix.
  name = path.name if path.is_dir() else path.stem
  return f'{name if name.replace("*", "") else "embeddings"}.npz'


def _summary(
  found: 'Embeddings', source: 'Source', out: pathlib.Path, total: int
) -> str:
  rows, labels = found.embedded.embeddings, found.embedded.labels
  classes = (
    'no labels' if labels is None else f'{len(set(labels.tolist())):,} classes'
  )
  text = f'{len(rows):,} images, {rows.shape[1]} dimensions, {classes}'
  if found.resumed:
    text += f' ({found.resumed:,} of {len(source):,} were there from before)'
  if total != len(rows):
    text += f'; {total:,} in all'
  return f'{text}\nwritten to {out}'


VERB = verbs.Verb(
  'embed',
  (
    'embed MODEL SOURCE [--out FILE.npz|.parquet|.faiss] [--index KIND] [--add]'
    ' [--labels RULE] ...',
  ),
  'Embed images. MODEL is the workdir of a run, WORKDIR/checkpoints/STEP, a'
  ' file of pretrained weights or the name of published ones. SOURCE is a'
  " folder, a pattern such as 'photos/*.jpg', an image, a .txt with a path a"
  ' line, or DATASET:SPLIT such as emoji:test. After Ctrl-C the same command'
  ' goes on.',
  _define,
  _run,
  positional=2,
)
