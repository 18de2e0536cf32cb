"""Random views of a batch of images, made on the device.

The host draws crops and cuts them out; what is left is the costly part, to
resize and to flip, in fixed shapes.
"""

import jax
import jax.numpy as jnp
from jax import lax

__all__ = ['views']


def views(
  image: jax.Array, extent: jax.Array, flip: jax.Array, *, size: int
) -> jax.Array:
  """Resizes crops as Pillow does (bicubic, antialiased), and flips them.

  Both passes are products with a matrix of weights, rounded to uint8 after
  each, as `transforms.TrainView` has Pillow do it, the width first. Pixels
  differ from Pillow's only where a sum falls between two gray levels by less
  than float32's rounding errors: one in 20,000, by one level or, seldom, two.

  Args:
    image: uint8 `[b, S, S, 3]`, a crop in the upper left corner of each.
    extent: int32 `[b, 2]`, height and width of the crops, 1 to S.
    flip: bool `[b]`, whether to mirror from left to right.
    size: height and width of the result; `(2 size + 1)(2 S + 1)` below 2^31.

  Returns:
    uint8 `[b, size, size, 3]`.
  """
  side = image.shape[1]
  columns = _weights(extent[:, 1], side, size)
  columns = jnp.where(flip[:, None, None], columns[:, ::-1], columns)
  image = _product('bow,bhwc->bhoc', columns, image)
  rows = _weights(extent[:, 0], side, size)
  return _product('boh,bhwc->bowc', rows, image).astype(jnp.uint8)


def _weights(length: jax.Array, side: int, size: int) -> jax.Array:
  """Weights of pixels in resized ones, float32 `[b, size, side]`.

  Args:
    length: int32 `[b]`, how many of the pixels there are.
    side: what they are padded to.
    size: number of resized pixels.
  """
  length = length[:, None, None]
  new = jnp.arange(size, dtype=jnp.int32)[None, :, None]
  old = jnp.arange(side, dtype=jnp.int32)[None, None, :]
  # Twice the distance of the centers, times size: exact as an integer, where
  # a difference of two floats would lose digits and shift the window.
  distance = (2 * new + 1) * length - (2 * old + 1) * size
  extent = 2 * jnp.maximum(length, size)
  weight = _cubic(distance.astype(jnp.float32) / extent.astype(jnp.float32))
  weight = jnp.where(old < length, weight, 0.0)
  return weight / weight.sum(-1, keepdims=True)


def _cubic(x: jax.Array) -> jax.Array:
  """The cubic convolution kernel of Keys with a = -1/2, Pillow's bicubic."""
  x = jnp.abs(x)
  near = (1.5 * x - 2.5) * x * x + 1
  far = ((-0.5 * x + 2.5) * x - 4) * x + 2
  return jnp.where(x < 1, near, jnp.where(x < 2, far, 0.0))


def _product(
  subscripts: str, weights: jax.Array, image: jax.Array
) -> jax.Array:
  """A weighted sum of pixels, rounded and clipped as they are, float32."""
  image = image.astype(jnp.float32)
  # Lower precisions, the default of some devices, err by whole gray levels.
  total = jnp.einsum(
    subscripts, weights, image, precision=lax.Precision.HIGHEST
  )
  return jnp.clip(jnp.floor(total + 0.5), 0, 255)
