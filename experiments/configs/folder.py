"""HIER on your own folder of images, from a pretrained backbone.

The preset names the backbone. It rests, and the embedding head alone is
trained, which takes minutes on a CPU; `--config.optim.freeze="()"` trains all
of it, on an accelerator.
"""

from hier_jax.configs.folder import get_config as get_config
