"""The vectors of 05_any_vectors.md, made by PyTorch and timm without hier_jax.

    python make_vectors.py FOLDER OUT.npz [WEIGHTS.safetensors]

FOLDER holds SPLIT/CLASS/INDEX.png; an image's id is SPLIT/INDEX. Without
WEIGHTS they come from the Hugging Face hub.
"""

import pathlib
import sys

import numpy as np
import timm
import torch
from PIL import Image

NAME, SIZE = 'vit_small_patch14_dinov2.lvd142m', 112


def main(folder, out, weights=None):
  """Embeds all images of a folder."""
  model = timm.create_model(
    NAME,
    num_classes=0,
    img_size=SIZE,
    **({'checkpoint_path': weights} if weights else {'pretrained': True}),
  ).eval()
  transform = timm.data.create_transform(
    **timm.data.resolve_model_data_config(model)
    | {'input_size': (3, SIZE, SIZE), 'crop_pct': 1.0}
  )
  paths = sorted(pathlib.Path(folder).glob('*/*/*.png'))
  rows = []
  with torch.inference_mode():
    for first in range(0, len(paths), 64):
      images = [Image.open(path) for path in paths[first : first + 64]]
      batch = torch.stack([transform(image) for image in images])
      rows.append(model(batch).numpy())
  np.savez_compressed(
    out,
    embeddings=np.concatenate(rows).astype(np.float16),
    labels=[path.parent.name for path in paths],
    ids=[f'{path.parts[-3]}/{path.stem}' for path in paths],
  )


if __name__ == '__main__':
  main(*sys.argv[1:])
