"""What every builder of an image data set with classes shares.

TensorFlow is never needed: images stay the encoded bytes they came as, and
the records are written as array_record, which grain reads at random.
"""

import abc
import io
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import tensorflow_datasets as tfds

from hier_jax.data import transforms


class Record(NamedTuple):
  """One image of a data set.

  Attributes:
    name: where it came from, for messages.
    image: encoded bytes, kept as they are.
    fields: 'index', its place in the whole data set whatever the split, and
      one integer for each of the builder's named fields.
  """

  name: str
  image: bytes
  fields: Mapping[str, int]


class ImageBuilder(  # type: ignore[call-arg]
  tfds.core.GeneratorBasedBuilder, skip_registration=True
):
  """Base of the builders: a subclass tells its names and its records.

  The integer fields also go into the metadata, a column each, so that labels
  are there without reading a single image: `info.metadata[split][field]`.
  """

  # Only leads TFDS to checksums of downloads, of which there are none, and
  # needs importlib_resources on the way, which TFDS does not install.
  code_path = None

  @abc.abstractmethod
  def _names(self) -> Mapping[str, Sequence[str]]:
    """Returns what the values of each named field, 'label' first, mean."""

  @abc.abstractmethod
  def _records(self) -> Mapping[str, Iterable[Record]]:
    """Returns the records of each split, in their final order."""

  def _info(self) -> tfds.core.DatasetInfo:
    labels = {
      field: tfds.features.ClassLabel(names=names)
      for field, names in self._names().items()
    }
    return tfds.core.DatasetInfo(
      builder=self,
      description=type(self).__doc__,
      features=tfds.features.FeaturesDict(
        {
          'image': tfds.features.Image(shape=(None, None, 3)),
          'index': tfds.features.Scalar(np.int64),
          **labels,
        }
      ),
      supervised_keys=('image', 'label'),
      disable_shuffling=True,
      metadata=tfds.core.MetadataDict(),
    )

  def _split_generators(self, dl_manager):
    del dl_manager
    return {
      split: self._generate_examples(split, records)
      for split, records in self._records().items()
    }

  def _generate_examples(
    self, split: str, records: Iterable[Record]
  ) -> Iterator[tuple[int, dict[str, Any]]]:
    columns: dict[str, list[int]] = {}
    self.info.metadata[split] = columns
    for key, record in enumerate(records):
      # A broken image is found here, once, and not in the middle of a run.
      transforms.decode(record.image, record.name)
      for field, value in record.fields.items():
        columns.setdefault(field, []).append(value)
      yield key, {'image': io.BytesIO(record.image), **record.fields}
