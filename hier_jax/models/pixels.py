"""Which images a model takes."""

import jax
import jax.numpy as jnp

__all__ = ['check_normalized', 'check_stored']


def check_normalized(images: jax.Array) -> None:
  """Raises ValueError where images are not what a backbone takes.

  That is float `[b, H, W, 3]`, (pixel / 255 - mean) / std of `models.spec`.
  """
  floats = jnp.issubdtype(images.dtype, jnp.floating)
  if images.ndim != 4 or images.shape[-1] != 3 or not floats:
    raise ValueError(
      f'a backbone got images {images.dtype} {images.shape}, expected floats'
      ' [b, H, W, 3] after normalization, (pixel / 255 - mean) / std; an'
      ' Embedder takes pixels as they are stored'
    )


def check_stored(images: jax.Array) -> None:
  """Raises ValueError for images other than uint8 `[b, H, W, 3]`."""
  if (images.ndim, *images.shape[-1:]) != (4, 3) or images.dtype != jnp.uint8:
    raise ValueError(
      f'an Embedder got images {images.dtype} {images.shape}, expected uint8'
      ' [b, H, W, 3], pixels as they are stored: it normalizes them itself'
    )
