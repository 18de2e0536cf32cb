"""HIER and Proxy-Anchor on Emoji, from scratch, in minutes on two CPU cores."""

from hier_jax.errors import UserError
from hier_jax.training.config import default_config


def get_config(preset=None):
  if preset is not None:
    raise UserError(f'unknown preset {preset!r}: quickstart has none')
  config = default_config()
  config.model.backbone = 'resnet_thin'
  config.model.image_size = 32
  config.model.dtype = 'float32'
  config.loss.num_proxies = 256
  config.loss.hier.triplets_per_anchor = 10
  config.optim.lr = 3e-3
  config.optim.scales = {
    'backbone': 1.0,
    'head': 1.0,
    'hierarchical_proxies': 5.0,
    'class_proxies': 10.0,
  }
  config.optim.schedule = 'one_cycle'
  config.optim.warmup_epochs = 0
  config.optim.weight_decay = 1e-3
  config.optim.adam_eps = 1e-8
  # Positives differ in style: in colours, outlines, proportions.
  config.data.train_view = {
    'scale': None,
    'ratio': (3 / 4, 4 / 3),
    'flip': 0.0,
    'affine': {
      'degrees': 15.0,
      'log_scale': 0.25,
      'log_aspect': 0.1,
      'translate': 0.1,
    },
    'grayscale': 0.25,
    'channel_shuffle': 0.25,
    'brightness': 0.2,
  }
  config.epochs = 20
  config.eval.pixels = True
  config.checkpoint.every_epochs = 5
  return config
