"""The paper's experiments as configs, each a row of two tables.

A preset is `BACKBONE[-384][,RECIPE][,LOSS][,no_hier]`: 'dino_vits16',
'deit_small-384,official', 'resnet50,multi_similarity', 'vit_small,no_hier'.
The recipe 'official' does what the authors' program does, including faults that
change a result; 'default' corrects them. 'no_hier' is the metric loss alone,
the row that shows what HIER adds.
"""

import dataclasses
import difflib

from ml_collections import ConfigDict

from hier_jax.errors import UserError
from hier_jax.training.config.default import default_config
from hier_jax.training.step import objective

__all__ = ['BACKBONES', 'DATA', 'get_config']

_RECIPES = 'default', 'official'


@dataclasses.dataclass(frozen=True)
class Step:
  """A rate that is multiplied by a factor at regular epochs."""

  lr: float
  factor: float
  epochs: int
  warmup_epochs: int | None = None


@dataclasses.dataclass(frozen=True)
class Data:
  """Settings of a data set.

  Attributes:
    name: of the data set.
    recall_at: the K of Recall@K.
    epochs: length of a run.
    warmup_epochs: first epochs, in which the backbone is not trained.
    eval_every: epochs between two evaluations.
    weight_decay: of every parameter.
    head_scale: ratio of the head's rate to the backbone's, for ViTs.
    resnet: the rate of ResNet-50 and its head.
    flip: probability of a mirrored view.
  """

  name: str
  recall_at: tuple[int, ...]
  epochs: int
  warmup_epochs: int
  eval_every: int
  weight_decay: float
  head_scale: float
  resnet: Step
  flip: float = 0.5


@dataclasses.dataclass(frozen=True)
class Backbone:
  """Settings of a backbone.

  Attributes:
    name: with the tag of its weights.
    embedding_dim: d.
    lr: rate of the backbone; None for `Data.resnet`.
    smallest_crop: smallest share of the image that a training view keeps.
  """

  name: str
  embedding_dim: int = 128
  lr: float | None = None
  smallest_crop: float = 0.2


DATA = {
  'cub': Data(
    *('cub200', (1, 2, 4, 8), 100, 1, 1, 1e-2, 1.0),
    # Without warm-up on the authors' own advice.
    resnet=Step(1e-4, 0.5, 5, warmup_epochs=0),
  ),
  'cars': Data(
    *('cars196', (1, 2, 4, 8), 100, 1, 1, 1e-2, 1.0),
    resnet=Step(1e-4, 0.5, 10),
  ),
  'sop': Data(
    *('sop', (1, 10, 100, 1000), 150, 5, 5, 1e-4, 100.0),
    resnet=Step(6e-4, 0.3, 25),
  ),
  'inshop': Data(
    *('inshop', (1, 10, 20, 30), 150, 5, 1, 1e-4, 100.0),
    resnet=Step(6e-4, 0.3, 20),
  ),
  # Not in the paper: trained as its smallest data sets are, unmirrored.
  'emoji': Data(
    *('emoji', (1, 2, 4, 8), 100, 1, 1, 1e-2, 1.0),
    resnet=Step(1e-4, 0.5, 10),
    flip=0.0,
  ),
}
BACKBONES = {
  'dino_vits16': Backbone('vit_small_patch16_224.dino', lr=5e-6),
  'deit_small': Backbone('deit_small_distilled_patch16_224.fb_in1k', lr=1e-5),
  'vit_small': Backbone('vit_small_patch16_224.augreg_in21k_ft_in1k', lr=1e-5),
  'resnet50': Backbone('resnet50.tv_in1k', 512, smallest_crop=0.08),
}


def get_config(data: str, preset: str) -> ConfigDict:
  """The config of a data set and a preset.

  Args:
    data: a row of `DATA`.
    preset: see above.

  Raises:
    UserError: for a preset that is unknown.
  """
  first, *options = preset.split(',')
  name, _, dim = first.partition('-')
  row, backbone = DATA[data], BACKBONES.get(name)
  if backbone is None or dim not in ('', '384') or (dim and not backbone.lr):
    raise UserError(
      f'unknown preset {preset!r}: expected one of {", ".join(BACKBONES)},'
      ' a ViT with -384 after it for embeddings of that size, then'
      " ',official', ',no_hier' or ',' and a loss"
    )
  known = (*_RECIPES, *objective.LOSSES, 'no_hier')
  for option in options:
    if option not in known:
      close = difflib.get_close_matches(option, known) or known
      raise UserError(
        f'unknown option {option!r} of preset {preset!r}; did you mean one of'
        f' {", ".join(close)}?'
      )
  official = 'official' in options
  config = default_config()
  _set_model(config, backbone, int(dim or backbone.embedding_dim), official)
  _set_optim(config, row, backbone, official)
  _set_data(config, row, backbone, official)
  config.loss.hier.self_negatives = official
  for option in options:
    if option in objective.LOSSES:
      config.loss.metric = option
  if 'no_hier' in options:
    config.loss.hier_weight = 0.0
  return config


def _set_model(
  config: ConfigDict, backbone: Backbone, dim: int, official: bool
) -> None:
  config.pretrained = 'hub'
  config.model.update(backbone=backbone.name, image_size=224, embedding_dim=dim)
  if backbone.lr is None:
    config.model.update(frozen_stats=True, pool='avg_max')
  elif official and 'distilled' in backbone.name:
    config.model.deit_token = 'official'


def _set_optim(
  config: ConfigDict, row: Data, backbone: Backbone, official: bool
) -> None:
  config.epochs = row.epochs
  config.optim.update(
    weight_decay=row.weight_decay,
    warmup_epochs=row.warmup_epochs,
    adam_eps=1e-4,
    clip_value=10.0,
  )
  if official:
    # The authors train on two devices.
    config.optim.grad_scale = 0.5
  if backbone.lr is not None:
    config.optim.lr = backbone.lr
    config.optim.scales.head = row.head_scale
    config.optim.freeze = ('model/backbone/patch_embed/',)
    return
  config.optim.update(
    lr=row.resnet.lr,
    schedule='step',
    step_factor=row.resnet.factor,
    step_every=row.resnet.epochs,
  )
  if row.resnet.warmup_epochs is not None and not official:
    config.optim.warmup_epochs = row.resnet.warmup_epochs


def _set_data(
  config: ConfigDict, row: Data, backbone: Backbone, official: bool
) -> None:
  config.data.name = row.name
  config.data.batch_size, config.data.images_per_class = 180, 2
  config.data.train_view.update(
    scale=(backbone.smallest_crop, 1.0), flip=row.flip
  )
  config.data.eval_crop = 224 / 256
  if official:
    config.data.sampler = 'official'
  config.eval.update(recall_at=row.recall_at, every_epochs=row.eval_every)
