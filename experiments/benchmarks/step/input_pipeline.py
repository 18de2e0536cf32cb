"""Images a second, from encoded bytes to batches, and what a step waits for.

JPEGs of 500 x 375 to random crops of 224, by this package (decoded each time
or cached, resized on the host or left to the device) and by a torch DataLoader
with the same Pillow calls.
"""

import dataclasses
import io
import math
import os
import random
import statistics
import tempfile
import time

import jax
import numpy as np
from PIL import Image

from experiments.benchmarks.common import report, timing
from hier_jax.data import cache, pipeline, transforms
from hier_jax.data.datasets import Split
from hier_jax.data.sampler import Sampler
from hier_jax.training.step import device_views

_SCRIPT = 'experiments/benchmarks/step/input_pipeline.py'
_PACKAGES = 'hier_jax', 'grain', 'Pillow', 'jax', 'torch', 'numpy'
_SIZE, _SHORT_SIDE = 224, 256
_WIDTH, _HEIGHT, _QUALITY = 500, 375, 85
_VIEW = transforms.TrainView(_SIZE)
_DEVICE_VIEW = transforms.DeviceView(_VIEW, _SHORT_SIDE)
_SEED = 0


@dataclasses.dataclass(frozen=True)
class Sizes:
  """What is measured, and how often."""

  images: int = 360
  batch: int = 180
  batches: int = 6
  rounds: int = 7
  seconds: int = 60
  threads: int = os.cpu_count() or 1
  step_ms: int = 250


QUICK = Sizes(images=24, batch=12, batches=3, rounds=2)


# ---- images -----------------------------------------------------------------


def photograph(rng):
  """A JPEG of noise with the spectrum of photographs, 1 / frequency."""
  across, down = np.fft.fftfreq(_WIDTH), np.fft.fftfreq(_HEIGHT)
  frequency = np.hypot(across[None], down[:, None])
  frequency[0, 0] = 1
  shape = (_HEIGHT, _WIDTH, 3)
  phase = rng.normal(size=shape) + 1j * rng.normal(size=shape)
  pixels = np.fft.ifft2(phase / frequency[..., None], axes=(0, 1)).real
  pixels = 128 + 50 * pixels / pixels.std()
  file = io.BytesIO()
  image = Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))
  image.save(file, 'JPEG', quality=_QUALITY)
  return file.getvalue()


def photographs(n):
  """A split of n of them, two a class."""
  rng = np.random.default_rng(_SEED)
  records = [{'image': photograph(rng)} for _ in range(n)]
  return Split('photographs', records, np.arange(n) // 2, {})


# ---- torch ------------------------------------------------------------------


class TorchViews:
  """A torch data set with torchvision's transforms, as calls of Pillow."""

  def __init__(self, records, length):
    self._records, self._length = records, length

  def __len__(self):
    return self._length

  def __getitem__(self, index):
    import torch

    record = self._records[index % len(self._records)]
    file = io.BytesIO(record['image'])
    image = Image.open(file, formats=transforms.FORMATS)
    image = image.convert('RGB').crop(_box(*image.size))
    image = image.resize((_SIZE, _SIZE), Image.Resampling.BICUBIC)
    if random.random() < _VIEW.flip:
      image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    return torch.from_numpy(np.array(image)), index // 2


def _box(width, height):
  for _ in range(10):
    area = width * height * random.uniform(*_VIEW.scale)
    aspect = math.exp(random.uniform(*map(math.log, _VIEW.ratio)))
    w, h = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
    if w <= width and h <= height:
      left, top = random.randint(0, width - w), random.randint(0, height - h)
      return left, top, left + w, top + h
  return 0, 0, width, height


def torch_batches(split, sizes):
  """A function that yields batches of a DataLoader, or None without torch."""
  try:
    from torch.utils import data
  except ImportError:
    return None
  loader = data.DataLoader(
    # An epoch is a run: workers that went on after it would slow the others.
    TorchViews(split.source, sizes.batch * sizes.batches),
    sizes.batch,
    shuffle=True,
    num_workers=sizes.threads,
    persistent_workers=True,
    # JAX has threads, which a fork would not survive.
    multiprocessing_context='spawn',
  )
  return lambda: iter(loader)


# ---- contenders -------------------------------------------------------------

_HOST = 'JPEG, views on the host'
_CACHED = 'cached, views on the host'
_DEVICE = 'cached, crops for the device'
_TORCH = 'torch DataLoader, JPEG'


def _ours(split, images, view, sizes):
  sampler = Sampler(
    split.labels, batch_size=sizes.batch, images_per_class=2, seed=_SEED
  )

  def batches(start=0):
    return pipeline.train_batches(
      split,
      sampler,
      view,
      seed=_SEED,
      num_steps=sizes.batches,
      start_step=start,
      images=images,
      num_threads=sizes.threads,
    )

  return batches


def loaders(split, sizes, folder):
  """Name -> a function that begins a run and yields its batches."""
  decoded = cache.Decoded(split)
  cached = cache.open_images(
    split,
    cache=folder,
    short_side=_SHORT_SIDE,
    num_threads=sizes.threads,
  )
  found = {
    _HOST: _ours(split, decoded, _VIEW, sizes),
    _CACHED: _ours(split, cached, _VIEW, sizes),
    _DEVICE: _ours(split, cached, _DEVICE_VIEW, sizes),
    _TORCH: torch_batches(split, sizes),
  }
  return {name: batches for name, batches in found.items() if batches}


# ---- sections ---------------------------------------------------------------


def rates(found, sizes):
  """Images a second: a run of each loader from its start to its end."""

  def exhaust(batches):
    return sum(1 for _ in batches())

  runs = [
    timing.Contender(name, exhaust, (batches,), math.nan, math.nan)
    for name, batches in found.items()
  ]
  timing.in_turns(runs, sizes.rounds, sizes.seconds)
  images, base = sizes.batch * sizes.batches, runs[0]
  rows = [
    [
      run.name,
      f'{1e3 * images / run.median:.0f}',
      f'{1e3 * images / run.median / sizes.threads:.0f}',
      timing.ratio(run, base),
    ]
    for run in runs
  ]
  heading = ['loader', 'images / s', 'a core', "the first one's time x"]
  return [
    report.table(heading, rows),
    f'Medians of {len(base.milliseconds)} rounds in which every loader makes'
    f' {sizes.batches} batches of {sizes.batch}, with {sizes.threads} threads,'
    ' or processes of torch; ratios are those of the same round, with'
    ' quartiles. Views are uint8: ToTensor and Normalize, which a DataLoader'
    ' usually does as well, are not among its work.',
  ]


def waits(found, sizes):
  """What a step waits for where an accelerator is busy for a while."""
  noted = {name: [] for name in found}
  for _ in range(2):
    for name, batches in found.items():
      iterator = batches()
      for i in range(sizes.batches):
        start = time.perf_counter()
        next(iterator)
        waited = 1e3 * (time.perf_counter() - start)
        # Before the first there is nothing to hide behind.
        noted[name] += [waited] * (i > 0)
        time.sleep(sizes.step_ms / 1e3)
  rows = [
    [name, f'{statistics.median(ms):.0f}', f'{max(ms):.0f}']
    for name, ms in noted.items()
  ]
  return [
    report.table(['loader', 'median wait, ms', 'longest'], rows),
    f'Of steps of {sizes.batch} images that leave the host idle for'
    f' {sizes.step_ms} ms, the first not counted.',
  ]


def on_device(found, sizes):
  """The device's part: its time here, and how near it comes to Pillow."""
  crops, views = (next(found[name]()) for name in (_DEVICE, _CACHED))
  arguments = crops['image'], crops['extent'], crops['flip']
  run = timing.compiled(
    '', lambda *a: device_views.views(*a, size=_SIZE), *arguments
  )
  timing.in_turns([run], sizes.rounds, sizes.seconds)
  difference = np.abs(np.asarray(run.call()).astype(int) - views['image'])
  device = jax.devices()[0]
  return [
    f'Resizing and flipping {sizes.batch} crops takes {run.median:.0f} ms on'
    f' this {device.device_kind},'
    f' {1e3 * sizes.batch / run.median:.0f} images / s. From the views of the'
    f' same cached images made by Pillow they differ by {difference.max()}'
    f' gray levels at most, in {report.scientific((difference > 0).mean())} of'
    ' the values.'
  ]


def starts(found, sizes):
  """How long a resumed run is without a batch."""
  rows = []
  for name in (_HOST, _CACHED, _DEVICE):
    seconds = []
    for turn in range(sizes.rounds):
      begin = time.perf_counter()
      next(found[name](10**6 + turn))
      seconds.append(time.perf_counter() - begin)
    rows.append([name, f'{statistics.median(seconds):.2f}'])
  return [
    report.table(['loader', 'first batch after, s'], rows),
    'Of a run that goes on at step 1,000,000, in seconds.',
  ]


def measure(sizes):
  """All sections as Markdown."""
  split = photographs(sizes.images)
  size = statistics.mean(len(record['image']) for record in split.source)
  with tempfile.TemporaryDirectory() as folder:
    found = loaders(split, sizes, folder)
    parts = [
      f'JPEGs of {_WIDTH} x {_HEIGHT}, quality {_QUALITY},'
      f' {size / 1e3:.0f} kB, to crops of {_SIZE}; the cache holds a short side'
      f' of {_SHORT_SIDE}.',
      '## Rates',
      *rates(found, sizes),
      '## Waiting',
      *waits(found, sizes),
      '## Resuming',
      *starts(found, sizes),
      '## On the device',
      *on_device(found, sizes),
      f'{report.versions(_PACKAGES)}. {report.machine()}.',
    ]
  return '\n\n'.join(parts)


def main():
  """Reads the command line."""
  parser = report.parser(__doc__, 'input_pipeline.md')
  for field in dataclasses.fields(Sizes):
    parser.add_argument(f'--{field.name.replace("_", "-")}', type=int)
  args = parser.parse_args()
  sizes = report.chosen(args, QUICK if args.quick else Sizes())
  report.emit(args, _SCRIPT, measure(sizes))


if __name__ == '__main__':
  main()
