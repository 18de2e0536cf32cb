"""HIER and Proxy-Anchor on Emoji, from scratch, in minutes on two CPU cores."""

from ml_collections import ConfigDict

from hier_jax.errors import UserError
from hier_jax.training.config.default import default_config


def get_config(preset: str | None = None) -> ConfigDict:
  """The one config that there is."""
  if preset is not None:
    raise UserError(f'unknown preset {preset!r}: quickstart has none')
  config = default_config()
  # What it learns changes less when a drawing moves by a pixel.
  config.model.backbone = 'resnet_thin_blur'
  config.model.image_size = 32
  # Drawings are aligned: the place of a part tells classes apart.
  config.model.pool = 'flatten'
  config.model.dtype = 'float32'
  # White ground becomes 0, as padding is.
  config.model.mean = (1.0, 1.0, 1.0)
  config.loss.proxy_anchor.alpha = 16.0
  # Enough for a tree; HIER is then 3 % of the time.
  config.loss.num_proxies = 64
  config.loss.hier.k = 6
  config.loss.hier.triplets_per_anchor = 5
  # Decoded and shrunk once: each time it takes as long as the view itself.
  config.data.short_side = 32
  config.data.cache = 'auto'
  # From scratch in few epochs, many small steps beat fewer large ones.
  config.data.batch_size = 60
  config.data.images_per_class = 0
  config.optim.lr = 2e-2
  config.optim.scales.update(
    backbone=1.0, head=1.0, hierarchical_proxies=5.0, class_proxies=3.0
  )
  config.optim.schedule = 'one_cycle'
  config.optim.warmup_epochs = 0
  config.optim.weight_decay = 0.1
  config.optim.adam_eps = 1e-8
  # Positives differ in colors and proportions, hardly in pose.
  config.data.train_view.update(
    scale=None,
    flip=0.0,
    affine={
      'degrees': 9.0,
      'log_scale': 0.18,
      'log_aspect': 0.2,
      'translate': 0.09,
    },
    grayscale=0.4,
    channel_shuffle=0.25,
    brightness=0.4,
  )
  config.epochs = 24
  config.log_every = 20
  config.eval.every_epochs = 12
  config.eval.pixels = True
  config.checkpoint.every_epochs = 6
  config.explore = True
  return config
