"""What all formats say of a model, and how they compute it.

All of them compute in float32, whatever a run was trained in: it is exact
enough for any device, and what a CPU is fast in.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import hier_jax
from hier_jax import layers
from hier_jax.inference.model import Model
from hier_jax.models.embedder import Embedder

__all__ = ['Usage', 'distance', 'facts', 'head', 'max_error', 'module']

# What `poincare.to_ball` adds to a length before it clips, and the share of the
# radius that it leaves free at the boundary.
SLACK, MARGIN = 1e-5, 1e-3


class Usage(NamedTuple):
  """How an export is run.

  Attributes:
    files: names of the model's files.
    install: what pip installs for the snippet.
    snippet: Python code with `embed`, which is given uint8 images
      `[b, H, W, 3]` and returns rows `[b, d]`.
    max_error: see `Exported`.
    notes: sentences for the card.
  """

  files: tuple[str, ...]
  install: str
  snippet: str
  max_error: float | None
  notes: tuple[str, ...] = ()


def module(model: Model) -> Embedder:
  """The model's `Embedder` in float32, for one device of any platform."""
  made = model.module
  assert made is not None  # Only tests make models without one.
  changed: dict[str, Any] = {'dtype': jnp.float32, 'axis_name': None}
  if hasattr(made.backbone, 'token_multiple'):
    # By default the platform that it is exported on decides.
    changed['token_multiple'] = 1
    # Not every format has loops.
    changed['scan_blocks'] = False
  backbone = made.backbone.clone(**changed)
  return Embedder(backbone, made.head, made.mean, made.std)


def head(model: Model) -> layers.BallHead | None:
  """The model's head; None for a pretrained backbone."""
  assert model.module is not None
  found = model.module.head
  return found if isinstance(found, layers.BallHead) else None


def facts(model: Model, format: str) -> dict[str, Any]:
  """What `metadata.json` says: what goes in, what comes out, from where."""
  size = model.view.size
  shapes = jax.eval_shape(
    lambda images: module(model).apply(model.variables, images, train=False),
    jax.ShapeDtypeStruct((1, size, size, 3), jnp.uint8),
  )
  return {
    'format': format,
    'hier_jax': hier_jax.__version__,
    'title': model.about['title'],
    'digest': model.digest,
    'backbone': model.about['backbone'],
    'image_size': size,
    'resize': model.about['resize'],
    'mean': [float(x) for x in model.about['mean']],
    'std': [float(x) for x in model.about['std']],
    'input': f'uint8 [b, {size}, {size}, 3], RGB',
    'output': f'float32 [b, {shapes.shape[1]}]',
    'dim': shapes.shape[1],
    'c': model.c,
    'embedding': _embedding(model),
    'distance': distance(model.c),
  }


def _embedding(model: Model) -> str:
  if head(model) is None:
    return 'features of a backbone, of any length'
  if model.c is None:
    return 'unit vectors'
  if model.c == 0:
    return 'vectors of Euclidean space'
  return f'points of the Poincare ball of radius {model.c**-0.5:.6g}'


def distance(c: float | None) -> str:
  """The distance that embeddings of a curvature are compared by."""
  if c is None:
    return 'cosine'
  return f'hyperbolic, c = {c:g}' if c else 'Euclidean'


def max_error(
  model: Model, embed: Callable[[np.ndarray], Any], num_images: int = 3
) -> float:
  """Largest difference from the model's own embeddings, of random images.

  Args:
    model: what embeds as hier_jax does.
    embed: what is compared: images `[b, H, W, 3]` uint8 to rows `[b, d]`.
    num_images: how many at least.
  """
  devices = jax.local_device_count()
  count = -(-num_images // devices) * devices
  shape = (count, model.view.size, model.view.size, 3)
  images = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
  theirs, ours = (np.asarray(f(images)) for f in (embed, model.embed))
  return float(np.abs(theirs - ours).max())
