"""The drawings of the pages on HIER and on the ball.

    python docs/_ext/figures.py

writes them into docs/images.
"""

import pathlib
import sys

import numpy as np

from hier_jax import poincare
from hier_jax.viz import geodesics, theme

IMAGES = pathlib.Path(__file__).resolve().parents[1] / 'images'
# Two images of one kind and a third of another, by radius and turns.
_IMAGES = {'i': (0.86, 0.30), 'j': (0.86, 0.19), 'k': (0.86, 0.03)}
_PROXIES = [(0.55, 0.245), (0.30, 0.15), (0.55, 0.06), (0.5, 0.45), (0.5, 0.8)]


def _points(polar) -> np.ndarray:
  radius, turns = np.array(polar).T
  angle = 2 * np.pi * turns
  return radius[:, None] * np.stack([np.cos(angle), np.sin(angle)], axis=1)


def _disk(look, axes) -> None:
  angle = np.linspace(0, 2 * np.pi, 200)
  axes.plot(np.cos(angle), np.sin(angle), color=look.soft, lw=1)
  axes.set(aspect='equal', xlim=(-1.04, 1.04), ylim=(-1.04, 1.04))
  axes.axis('off')


def _line(axes, start, end, **style) -> None:
  points = geodesics.arcs([start], [end], 40)[0]
  axes.plot(points[:, 0], points[:, 1], **style)


def _distances(x, y) -> np.ndarray:
  matrix = poincare.dist_matrix(x.astype('f'), y.astype('f'), c=1.0)
  return np.asarray(matrix)


def lca():
  """The two ancestors that one triplet picks, and the six distances."""
  with theme.drawing('light') as look:
    drawn = look.figure(4.4, 4.4)
    axes = drawn.subplots()
    _disk(look, axes)
    images, proxies = _points(list(_IMAGES.values())), _points(_PROXIES)
    far = _distances(images, proxies)
    pair, triple = far[:2].max(0).argmin(), far.max(0).argmin()
    axes.plot(*proxies.T, 'o', color=look.other, ms=8)
    for at, hue, style in ((pair, 0, '-'), (triple, 1, '--')):
      for image in images:
        _line(axes, image, proxies[at], color=look.hues[hue], ls=style, lw=1.4)
      axes.plot(*proxies[at], 'o', color=look.hues[hue], ms=11, zorder=3)
    axes.plot(*images.T, 's', color=look.ink, ms=7, zorder=3)
    for name, (x, y) in zip(_IMAGES, images, strict=True):
      axes.text(x * 1.09, y * 1.09, name, ha='center', va='center')
    for at, name, shift in (
      (pair, 'LCA of i, j', (-0.46, -0.02)),
      (triple, 'LCA of i, j, k', (-0.24, -0.13)),
    ):
      axes.text(*(proxies[at] + shift), name, fontsize=9, va='center')
    return drawn


def circles():
  """Circles of one radius around three centers, and two geodesics."""
  with theme.drawing('light') as look:
    drawn = look.figure(4.4, 4.4)
    axes = drawn.subplots()
    _disk(look, axes)
    angle = np.linspace(0, 2 * np.pi, 200)
    ring = np.stack([np.cos(angle), np.sin(angle)], axis=1).astype('f')
    centers = np.array([[0, 0], [0.6, 0.0], [0.88, 0.0]], 'f')
    turned = centers @ np.array([[0, 1], [-1, 0]], 'f')
    for hue, center in enumerate(turned):
      # All at distance 1: the exponential map takes half of it at the origin.
      tangent = poincare.exp0(ring / 2, c=1.0)
      points = np.asarray(poincare.mobius_add(center, tangent, c=1.0))
      axes.plot(*points.T, color=look.hues[hue], lw=1.6)
      axes.plot(*center, 'o', color=look.hues[hue], ms=4)
    for start, end in (((0.2, -0.95), (0.95, -0.2)), ((-0.9, 0), (-0.2, -0.9))):
      _line(axes, start, end, color=look.ink, lw=1.2)
    return drawn


DRAWINGS = {'lca.svg': lca, 'circles.svg': circles}


def write(folder: pathlib.Path = IMAGES) -> None:
  """Writes all drawings into a folder."""
  for name, draw in DRAWINGS.items():
    theme.write(draw(), folder / name)


if __name__ == '__main__':
  sys.exit(write())
