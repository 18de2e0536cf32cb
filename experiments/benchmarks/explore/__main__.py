"""Frames a second while the page of `hier-jax explore` is dragged.

Chromium draws without a GPU. A pointer goes round in circles for some seconds,
and the page's own frames are counted, for the tree and for the embedding.
"""

import dataclasses
import functools
import pathlib
import tempfile
import time

import numpy as np
from PIL import Image

from experiments.benchmarks.common import report
from hier_jax.evaluation.collection import Collection
from hier_jax.evaluation.taxonomy import Taxonomy
from hier_jax.viz import explore

_SCRIPT = 'experiments/benchmarks/explore/__main__.py'
_PACKAGES = 'hier_jax', 'numpy', 'pillow', 'playwright'
# Moves the pointer once a frame, and counts frames of the page's own.
_DRAG = """
([seconds, layout]) => new Promise((done) => {
  const {scene, store, view, disk} = window.explorer
  store.set({layout})
  // Amid the images of a node.
  setTimeout(() => view.focus(scene.parent[0]), 1000)
  setTimeout(() => {
    const {left, top, width, height} = disk.top.getBoundingClientRect()
    const point = (turn) => ({
      clientX: left + width / 2 + 150 * Math.cos(turn),
      clientY: top + height / 2 + 150 * Math.sin(turn),
      pointerId: 1, pointerType: 'mouse', button: 0, bubbles: true,
    })
    const send = (kind, turn) =>
      disk.top.dispatchEvent(new PointerEvent(kind, point(turn)))
    disk.top.setPointerCapture = () => {}
    send('pointerdown', 0)
    const start = performance.now()
    const first = disk.frames
    const times = []
    const next = (now) => {
      times.push(now)
      const gone = performance.now() - start
      if (gone < 1000 * seconds) {
        send('pointermove', gone / 600)
        requestAnimationFrame(next)
      } else {
        send('pointerup', gone / 600)
        const between = times.slice(1).map((t, i) => t - times[i])
        between.sort((a, b) => a - b)
        done({
          frames: (disk.frames - first) / (gone / 1000),
          late: between[Math.floor(0.95 * between.length)],
          thumbs: disk.display.thumbs.length,
        })
      }
    }
    requestAnimationFrame(next)
  }, 5000)
})
"""


@dataclasses.dataclass(frozen=True)
class Sizes:
  """What is measured."""

  images: tuple[int, ...] = (12_000, 20_000)
  seconds: float = 6.0
  dimensions: int = 32
  window: tuple[int, int] = (1440, 900)


def planted(n: int, dimensions: int, seed: int = 0) -> Collection:
  """A tree of 8 groups, 96 subgroups and classes of about 10 images."""
  draw = np.random.default_rng(seed)
  groups, subgroups, classes = 8, 96, max(1, n // 10)
  upper = np.sort(draw.integers(subgroups, size=classes))
  labels = np.sort(draw.integers(classes, size=n))
  unit = lambda num: draw.normal(size=(num, dimensions)) / np.sqrt(dimensions)
  of_group = unit(groups)
  of_subgroup = of_group[np.arange(subgroups) % groups] + 0.6 * unit(subgroups)
  of_class = of_subgroup[upper] + 0.4 * unit(classes)
  rows = of_class[labels] + 0.2 * unit(n)
  norm = lambda x: np.linalg.norm(x, axis=1, keepdims=True)
  to = lambda x, radius: x / norm(x) * radius
  names = [f'class {i}' for i in range(classes)]
  levels = [[f'group {i % groups}', f'subgroup {i}'] for i in upper.tolist()]
  proxies = np.vstack(
    [to(of_group, 0.35), to(of_subgroup, 0.6), to(of_class, 0.8)]
  )
  return Collection(
    to(rows, 0.9),
    1.0,
    tuple(f'images/{i:05d}.jpg' for i in range(n)),
    labels,
    tuple(names),
    Taxonomy.from_levels(levels, names, ['group', 'subgroup', 'class']),
    proxies,
    functools.partial(_picture, seed=seed),
    f'{n:,} planted images',
  )


def _picture(i, seed):
  """An image that compresses about as photographs do."""
  draw = np.random.default_rng([seed, i])
  small = draw.integers(0, 256, size=(12, 12, 3), dtype=np.uint8)
  large = Image.fromarray(small).resize((96, 96), Image.Resampling.BICUBIC)
  noise = draw.normal(0, 9, size=(96, 96, 1))
  return Image.fromarray(
    np.clip(np.asarray(large) + noise, 0, 255).astype(np.uint8)
  )


def measure(sizes: Sizes) -> list[str]:
  """The table."""
  # It is no package that hier_jax needs.
  from playwright.sync_api import sync_playwright

  rows = []
  with tempfile.TemporaryDirectory() as folder, sync_playwright() as play:
    browser = play.chromium.launch(
      executable_path='/usr/bin/chromium',
      args=['--no-sandbox', '--disable-gpu'],
    )
    for n in sizes.images:
      path = pathlib.Path(folder) / f'{n}.html'
      start = time.monotonic()
      explore.write(planted(n, sizes.dimensions), path)
      wrote = time.monotonic() - start
      width, height = sizes.window
      page = browser.new_page(viewport={'width': width, 'height': height})
      start = time.monotonic()
      page.goto(path.as_uri())
      page.wait_for_function('window.explorer?.disk.frames > 0')
      opened = time.monotonic() - start
      for layout, name in enumerate(('tree', 'embedding')):
        found = page.evaluate(_DRAG, [sizes.seconds, layout])
        rows.append(
          [
            f'{n:,}, {name}',
            f'{found["frames"]:.0f}',
            f'{found["late"]:.0f}',
            str(found['thumbs']),
            f'{path.stat().st_size / 1e6:.1f}',
            f'{wrote:.0f}',
            f'{opened:.1f}',
          ]
        )
      page.close()
    version = browser.version
    browser.close()
  return [
    f'A window of {sizes.window[0]} x {sizes.window[1]}, Chromium {version}'
    f' without a GPU, {sizes.seconds:g} s of dragging. Late: the time between'
    ' two frames that 95 % keep within.',
    report.table(
      [
        'images, layout',
        'frames/s',
        'late (ms)',
        'thumbnails',
        'file (MB)',
        'written in (s)',
        'opened in (s)',
      ],
      rows,
    ),
  ]


def main():
  """Measures what the command line asks for."""
  args = report.parser(__doc__, 'explore.md', ['frames']).parse_args()
  sizes = Sizes()
  if args.quick:
    sizes = Sizes(images=(500,), seconds=2.0)
  sections = {'frames': ('Frames a second', measure)}
  report.emit_sections(args, _SCRIPT, sections, _PACKAGES, sizes)


if __name__ == '__main__':
  main()
