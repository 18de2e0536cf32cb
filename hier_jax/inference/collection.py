"""Collections of a run's test images, or of a file of embeddings."""

import os
import pathlib
from collections.abc import Callable

import numpy as np
from PIL import Image

from hier_jax import paths
from hier_jax.data import cache, datasets, transforms
from hier_jax.errors import UserError, plain
from hier_jax.evaluation import embedding_files
from hier_jax.evaluation.collection import Collection
from hier_jax.evaluation.embedding_files import Embedded
from hier_jax.evaluation.taxonomy import Taxonomy

__all__ = ['load']


def load(
  path: str | os.PathLike,
  *,
  split: str | None = None,
  data_dir: str | os.PathLike | None = None,
  images: str | os.PathLike | None = None,
  taxonomy: str | os.PathLike | None = None,
) -> Collection:
  """The collection of a run, or of a file of embeddings.

  Args:
    path: a run's workdir or `WORKDIR/checkpoints/STEP`, whose test split is
      embedded; or an .npz or .parquet of embeddings.
    split: of a run's data set; None for 'test', or 'gallery' where there is
      none.
    data_dir: where prepared data sets lie; None for where the run, or whoever
      wrote the file, had them.
    images: the folder that the ids of a file are paths in; None for the one
      that the file names.
    taxonomy: a CSV, see `Taxonomy.from_csv`; None for the data set's own.

  Raises:
    UserError: no such run or file, a split or options that do not go with it,
      embeddings with NaN or outside the ball, a taxonomy that does not fit.

  Example:
    >>> import os, tempfile
    >>> import numpy as np
    >>> with tempfile.TemporaryDirectory() as folder:
    ...   path = os.path.join(folder, 'a.npz')
    ...   np.savez(path, embeddings=np.eye(3), labels=['cat', 'dog', 'cat'])
    ...   made = load(path)
    >>> made.classes, made.labels.tolist(), made.ids
    (('cat', 'dog'), [0, 1, 0], ('0', '1', '2'))
  """
  path = paths.as_path(path)
  tree = None if taxonomy is None else Taxonomy.from_csv(taxonomy)
  if path.is_dir():
    if images is not None:
      raise UserError(
        f'{path} is a run, whose images lie in its data set: give no folder of'
        ' images'
      )
    return _of_run(path, split, data_dir, tree)
  if split is not None:
    raise UserError(
      f'split {split!r} is asked for, but {path} is a file of embeddings and'
      ' no run: give no split'
    )
  return of_file(path, data_dir=data_dir, images=images, taxonomy=tree)


def _of_run(path, split_name, data_dir, taxonomy) -> Collection:
  # JAX waits until it is needed.
  from hier_jax.training.run import from_checkpoint, inputs

  run = from_checkpoint.open_run(path, data_dir=data_dir)
  splits = run.splits()
  split = inputs.ranked_splits(splits, split_name)[-1]
  rows, _ = run.embed_split(split)
  own = split.name.rpartition(':')[2]
  model = run.config.model
  return Collection(
    rows,
    model.c,
    tuple(f'{own}/{row}' for row in range(len(split))),
    split.labels,
    _names(split),
    taxonomy or from_checkpoint.taxonomy([split]),
    run.proxies,
    cache.Decoded(split).image,
    f'{run.workdir.name}, step {run.step}, on {split.name}',
    {
      'model': f'{run.workdir}, step {run.step}',
      'backbone': model.backbone,
      'image size': f'{model.image_size} pixels',
      'data': split.name,
    },
    run.metrics,
  )


def _names(split: datasets.Split) -> tuple[str, ...]:
  """The names of a split's classes, their numbers where they have none."""
  return tuple(split.names.get('label', map(str, split.numbers.tolist())))


def of_file(
  path: str | os.PathLike,
  *,
  data_dir: str | os.PathLike | None = None,
  images: str | os.PathLike | None = None,
  taxonomy: Taxonomy | None = None,
) -> Collection:
  """The collection of a file of embeddings; see `load`."""
  found = embedding_files.read(path)
  about = found.about
  rows = np.asarray(found.embeddings)
  ids = found.ids
  if ids is None:
    ids = [str(row) for row in range(len(rows))]
  labels, classes = _classes(found.labels)
  split = _split(about, data_dir)
  if taxonomy is None and split is not None and classes is not None:
    taxonomy = _own_taxonomy(split, classes)
  return Collection(
    rows,
    found.c,
    tuple(ids),
    labels,
    classes,
    taxonomy,
    found.proxies,
    _opener(found, split, images),
    str(about.get('title', paths.as_path(path).name)),
    {key: _shown(value) for key, value in about.items()},
  )


def _classes(labels):
  if labels is None:
    return None, None
  names, rows = np.unique(np.asarray(labels), return_inverse=True)
  return rows.reshape(-1), tuple(map(str, names.tolist()))


def _shown(value) -> str:
  if isinstance(value, list):
    return ', '.join(map(str, value))
  return str(value)


def _split(about, data_dir) -> datasets.Split | None:
  """The split that a file is of, where it is of one and that is there."""
  data = about.get('data')
  if not isinstance(data, str):
    return None
  name, _, split = data.rpartition(':')
  place = data_dir or about.get('data_dir')
  try:
    return datasets.load(name, data_dir=place).get(split)
  except UserError:
    # What a stranger's file names need not be here: then it has no pictures.
    return None


def _own_taxonomy(split, classes) -> Taxonomy | None:
  from hier_jax.training.run import from_checkpoint

  tree = from_checkpoint.taxonomy([split])
  if tree is None or not set(classes) <= set(tree.classes):
    return None
  return tree


def _opener(
  found: Embedded, split: datasets.Split | None, images
) -> Callable[[int], Image.Image] | None:
  """What opens the picture of an item; None where none are known."""
  root = images if images is not None else found.about.get('root')
  if root is None and split is not None and found.ids is not None:
    decoded, ids = cache.Decoded(split), found.ids
    return lambda item: decoded.image(int(ids[item].rpartition('/')[2]))
  if not isinstance(root, str | os.PathLike) or found.ids is None:
    return None
  folder, names = paths.as_local(root, 'the folder of images'), found.ids
  return lambda item: open_image(folder / names[item])


def open_image(path: pathlib.Path) -> Image.Image:
  """A picture as RGB.

  Raises:
    UserError: it is not there or cannot be read.
  """
  name = plain(str(path))
  try:
    data = path.read_bytes()
  except OSError as error:
    raise UserError(
      f'{name} cannot be opened ({error.strerror}): if the images were moved,'
      ' name their folder'
    ) from error
  return transforms.decode(data, name)
