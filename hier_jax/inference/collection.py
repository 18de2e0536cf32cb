"""Collections of a run's test images, or of a file of embeddings."""

import os

import numpy as np

from hier_jax import paths
from hier_jax.data import cache, datasets
from hier_jax.errors import UserError
from hier_jax.evaluation import _checks, embedding_files
from hier_jax.evaluation.collection import Collection
from hier_jax.evaluation.taxonomy import Taxonomy
from hier_jax.inference import gallery, pictures

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
      then embedded; an .npz or .parquet of embeddings; or a .faiss that `embed`
      wrote, which is read into memory as a whole.
    split: split of the run's data set; None for 'test', or for 'gallery' if
      there is no test split.
    data_dir: folder of prepared data sets; None for the one that the run, or
      the writer of the file, used.
    images: folder to which the ids of a file are relative paths; None for the
      one that the file names.
    taxonomy: a CSV, see `Taxonomy.from_csv`; None for the data set's own.

  Raises:
    UserError: no such run or file, a split or an option that does not apply to
      it, embeddings with NaN or outside the ball, a taxonomy that does not fit.

  Example:
    >>> import os, tempfile
    >>> import numpy as np
    >>> from hier_jax.inference import collection
    >>> with tempfile.TemporaryDirectory() as folder:
    ...   path = os.path.join(folder, 'a.npz')
    ...   np.savez(path, embeddings=np.eye(3), labels=['cat', 'dog', 'cat'])
    ...   made = collection.load(path)
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
  usual = 'test' if 'test' in splits else 'gallery'
  split = inputs.named_split(splits, split_name or usual)
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
      # A page is sent on: where the run lies here is nobody's business.
      'model': f'{run.workdir.name}, step {run.step}',
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
  found = _read(path)
  about = found.about
  rows = np.asarray(found.embeddings)
  ids = found.ids
  if ids is None:
    ids = [str(row) for row in range(len(rows))]
  labels, classes = _classes(found.labels)
  split = pictures.split_of(about, data_dir)
  if taxonomy is None and split is not None and classes is not None:
    taxonomy = _own_taxonomy(split, classes)
  opens = None
  if found.ids is not None:
    opens = pictures.opener(about, images=images, data_dir=data_dir)
  return Collection(
    rows,
    found.c,
    tuple(ids),
    labels,
    classes,
    taxonomy,
    found.proxies,
    None if opens is None else lambda item: opens(ids[item]),
    str(about.get('title', paths.as_path(path).name)),
    {key: _shown(value) for key, value in about.items()},
  )


def _read(path):
  if paths.as_path(path).suffix == gallery.SUFFIX:
    return gallery.open_index(path).embedded()
  return embedding_files.read(path)


def _classes(labels):
  if labels is None:
    return None, None
  _checks.labeled('labels', np.asarray(labels))
  names, rows = np.unique(np.asarray(labels), return_inverse=True)
  return rows.reshape(-1), tuple(map(str, names.tolist()))


def _shown(value) -> str:
  if isinstance(value, list):
    return ', '.join(map(str, value))
  return str(value)


def _own_taxonomy(split, classes) -> Taxonomy | None:
  from hier_jax.training.run import from_checkpoint

  tree = from_checkpoint.taxonomy([split])
  if tree is None or not set(classes) <= set(tree.classes):
    return None
  return tree
