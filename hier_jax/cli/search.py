"""`hier-jax search`."""

import sys
import zipfile
from typing import TYPE_CHECKING

from absl import flags

from hier_jax import paths
from hier_jax.cli import embed as embed_verb
from hier_jax.cli import verbs
from hier_jax.errors import UserError, plain

if TYPE_CHECKING:
  from hier_jax.inference.model import Model
  from hier_jax.inference.search import Gallery

__all__ = ['VERB']

_K = 10


def _define(values: flags.FlagValues) -> None:
  verbs.text_flags(
    values,
    gallery='FOLDER|FILE: The images to search: whatever embed takes as SOURCE,'
    ' or a file that embed wrote. By default the test images of the data set'
    ' that the run was trained on.',
  )
  verbs.number_flag(
    values, 'k', f'K: Neighbors of each image; {_K} by default.'
  )
  verbs.text_flags(
    values,
    out='SHEET: Write a contact sheet: an .html that contains all its pictures,'
    ' or a .png.',
    model='MODEL: What to embed the images with, if a file of embeddings or an'
    ' index no longer leads to its model.',
    images="DIR: The folder of a gallery's images, if they were moved.",
    data_dir='DIR: The folder of prepared data sets.',
  )
  embed_verb.define_model(values)


def _run(values: flags.FlagValues, arguments: list[str]) -> None:
  if len(arguments) < 2:
    raise UserError(
      'search needs a MODEL or an INDEX and one IMAGE or more, such as hier-jax'
      ' search photos.npz cat.jpg, found'
      f' {" ".join(arguments) or "nothing"}; see hier-jax search --help'
    )
  first, *images = arguments
  k = verbs.whole(values, 'k') or _K
  batch_size = verbs.whole(values, 'batch_size')
  if values.out is not None:
    from hier_jax.viz import sheet

    paths.check_output(
      values.out,
      inputs=[first, *images, *filter(None, [values.gallery])],
      suffixes=sheet.SUFFIXES,
    )
  # Heavy imports wait until the arguments are known to be right.
  from hier_jax.inference import pictures, search

  model, gallery = _model_and_gallery(values, first, batch_size)
  results, unread = search.search_images(
    model, gallery, images, k=k, batch_size=batch_size, root=values.images
  )
  print(search.as_text(results), flush=True)
  verbs.say_unread(unread, len(set(images)))
  if values.out is not None:
    opens = pictures.opener(
      gallery.about, images=values.images, data_dir=values.data_dir
    )
    title = f'{gallery.about.get("title", first)}, the nearest {k}'
    missing = search.write_sheet(results, values.out, title=title, opens=opens)
    if missing:
      print(
        f'{missing:,} pictures of the gallery cannot be opened; if they were'
        ' moved, name their folder with --images DIR',
        file=sys.stderr,
      )
    print(f'contact sheet written to {values.out}')


def _model_and_gallery(
  values: flags.FlagValues, first: str, batch_size: int | None
) -> tuple['Model', 'Gallery']:
  """The model, and the images to search."""
  if _is_gallery(first):
    if values.gallery is not None:
      raise UserError(
        f'{first} is a gallery already: leave out --gallery {values.gallery},'
        ' or name a model in its place'
      )
    gallery = _read_gallery(first)
    name = values.model or gallery.about.get('model')
    if not isinstance(name, str):
      raise UserError(
        f'{first} does not say what it was embedded with: name it with --model'
      )
    if values.model is None:
      print(
        f'model: {plain(name)}, as {first} says (--model names another)',
        file=sys.stderr,
      )
    try:
      return embed_verb.open_model(_sized(values, gallery), name), gallery
    except UserError as error:
      if values.model is not None:
        raise
      raise UserError(
        f'{error}. {first} was embedded with it: if it was moved, name its'
        ' place with --model'
      ) from error
  if values.model is not None:
    raise UserError(
      f'{first} is a model and not a file that embed wrote: leave out --model'
    )
  if values.gallery is not None and _is_gallery(values.gallery):
    gallery = _read_gallery(values.gallery)
    return embed_verb.open_model(_sized(values, gallery), first), gallery
  model = embed_verb.open_model(values, first)
  return model, _embedded(values, model, batch_size)


def _sized(values: flags.FlagValues, gallery: 'Gallery') -> flags.FlagValues:
  """The flags, with the image size and the backbone of a gallery's model."""
  about = gallery.about
  if about.get('is_run') is False:
    # What the command line says goes before.
    values.set_default('image_size', about.get('image_size'))
    values.set_default('architecture', about.get('backbone'))
  return values


def _is_gallery(name: str) -> bool:
  """Whether this is a file of embeddings or an index."""
  path = paths.as_path(name)
  if path.suffix in ('.faiss', '.parquet'):
    return True
  if path.suffix != '.npz' or not path.is_file():
    return False
  try:
    with zipfile.ZipFile(path) as archive:
      return 'embeddings.npy' in archive.namelist()
  except (OSError, zipfile.BadZipFile):
    return True


def _read_gallery(name: str) -> 'Gallery':
  if paths.as_path(name).suffix == '.faiss':
    from hier_jax.inference import gallery

    return gallery.open_index(name)
  from hier_jax.evaluation import embedding_files
  from hier_jax.inference import search

  return search.Rows(embedding_files.read(name))


def _embedded(
  values: flags.FlagValues, model: 'Model', batch_size: int | None
) -> 'Gallery':
  """A gallery that is embedded now."""
  from hier_jax.inference import embed, search, sources

  place, data_dir = values.gallery, values.data_dir
  if place is None:
    if model.data is None:
      raise UserError(
        f'search with {model.name} needs the images to search: name a folder or'
        ' a file with --gallery'
      )
    name, run_dir = model.data
    data_dir = data_dir or run_dir
    place = f'{name}:{sources.ranked_split(name, data_dir)}'
  source = sources.open_source(place, data_dir=data_dir)
  print(
    f'embedding {len(source):,} images of {plain(source.title)}; to do so once,'
    f' write them with: hier-jax embed {model.name} {place}',
    file=sys.stderr,
  )
  found = embed.embed_images(
    model, source, batch_size=batch_size, progress=sys.stderr.isatty()
  )
  verbs.say_unread(found.unread, len(source))
  return search.Rows(found.embedded)


VERB = verbs.Verb(
  'search',
  (
    'search INDEX IMAGE... [--k K] [--out SHEET] [--model MODEL] ...',
    'search MODEL IMAGE... [--gallery FOLDER|FILE] [--k K] [--out SHEET] ...',
  ),
  'Print the nearest images of images. INDEX is an .npz, .parquet or .faiss'
  ' that embed wrote, and knows its model; MODEL is what embed takes.',
  _define,
  _run,
  positional=None,
)
