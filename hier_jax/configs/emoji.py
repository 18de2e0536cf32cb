"""HIER on Emoji, for accelerators: from scratch, or as the paper trains."""

from ml_collections import ConfigDict

from hier_jax.errors import UserError
from hier_jax.training.config import presets
from hier_jax.training.config.default import default_config

BACKBONES = {
  'vit_tiny': 'vit_tiny_patch4',
  'resnet_thin_wide': 'resnet_thin_wide',
}


def get_config(preset: str = 'vit_tiny') -> ConfigDict:
  """Config of one of `BACKBONES` from scratch, or of `presets`."""
  if preset not in BACKBONES:
    try:
      return presets.get_config('emoji', preset)
    except UserError as error:
      raise UserError(f'{error}; or {", ".join(BACKBONES)}') from error
  config = default_config()
  config.model.backbone = BACKBONES[preset]
  config.model.image_size = 40
  # White ground becomes 0, as padding is.
  config.model.mean = (1.0, 1.0, 1.0)
  config.optim.lr = 1e-3
  config.optim.schedule = 'one_cycle'
  config.optim.warmup_epochs = 0
  config.optim.weight_decay = 0.05
  config.optim.adam_eps = 1e-8
  config.optim.clip_norm = 10.0
  config.optim.scales.update(
    backbone=1.0, head=1.0, hierarchical_proxies=5.0, class_proxies=10.0
  )
  config.data.train_view.update(
    scale=None,
    flip=0.0,
    affine={
      'degrees': 15.0,
      'log_scale': 0.25,
      'log_aspect': 0.2,
      'translate': 0.1,
    },
    grayscale=0.25,
    channel_shuffle=0.25,
    brightness=0.2,
  )
  config.epochs = 200
  config.eval.pixels = True
  config.checkpoint.every_epochs = 10
  return config
