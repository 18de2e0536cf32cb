"""The training step beside PyTorch's: the same model, batch and card.

Ours is `cub:dino_vits16` without HIER: ViT-S/16, Proxy-Anchor of 100
classes, AdamW, bfloat16. PyTorch's is timm's ViT under torch.compile, with
fused attention, autocast to bfloat16 and the fused AdamW.
"""

import statistics
import time

import jax
import numpy as np

from experiments.benchmarks.accelerator import kernels
from experiments.benchmarks.common import engine
from experiments.benchmarks.step import backbones, step_cases
from hier_jax.training.distributed import mapping

_TOGETHER = 20
_ROUNDS = 5
_CLASSES = 100


class Ours:
  """Our step, compiled."""

  def __init__(self, images, hier_weight=0.0):
    """Compiles for a batch."""
    sizes = step_cases.Sizes(images=images, micro_batch=0)
    self.made = step_cases.engine_of(sizes, hier_weight)
    start = time.perf_counter()
    self.compiled = self.made.compile()
    self.compile_seconds = time.perf_counter() - start
    self._state = self.made.init()
    batch = jax.tree.map(np.asarray, self.made.draw())
    self._batch = jax.device_put(mapping.spread(batch))
    self.run(2)

  def run(self, count):
    """Steps, one after the other."""
    for _ in range(count):
      self._state, metrics = self.compiled(self._state, self._batch)
    jax.block_until_ready((self._state, metrics))


class Torch:
  """timm's ViT and Proxy-Anchor, as PyTorch's users write it."""

  def __init__(self, images, mode='default'):
    """Compiles for a batch."""
    import timm
    import torch
    from torch.nn import functional

    torch.set_float32_matmul_precision('high')
    self._torch = torch
    generator = torch.Generator().manual_seed(0)
    shape = images, 224, 224, 3
    pixels = torch.randint(0, 256, shape, generator=generator)
    self._pixels = pixels.to(torch.uint8).cuda()
    self._labels = (torch.arange(images) // 2 % _CLASSES).cuda()

    class Model(torch.nn.Module):
      def __init__(self):
        super().__init__()
        self.backbone = timm.create_model(
          'vit_small_patch16_224', num_classes=0
        )
        self.head = torch.nn.Linear(self.backbone.num_features, 128)
        self.proxies = torch.nn.Parameter(torch.randn(_CLASSES, 128))
        mean = torch.tensor([0.485, 0.456, 0.406]) * 255
        self.register_buffer('mean', mean)
        deviation = torch.tensor([0.229, 0.224, 0.225]) * 255
        self.register_buffer('deviation', deviation)

      def forward(self, pixels, labels):
        x = (pixels.float() - self.mean) / self.deviation
        x = x.permute(0, 3, 1, 2)
        with torch.autocast('cuda', torch.bfloat16):
          z = self.backbone(x)
        z = functional.normalize(self.head(z.float()))
        cosine = z @ functional.normalize(self.proxies).T
        same = functional.one_hot(labels, _CLASSES).bool()
        pull = torch.where(same, torch.exp(-32 * (cosine - 0.1)), 0).sum(0)
        push = torch.where(same, 0, torch.exp(32 * (cosine + 0.1))).sum(0)
        seen = same.any(0).sum()
        return torch.log1p(pull).sum() / seen + torch.log1p(push).mean()

    self._model = Model().cuda().train()
    self._loss = torch.compile(self._model, mode=mode)
    self._optimizer = torch.optim.AdamW(
      self._model.parameters(), lr=1e-5, weight_decay=1e-2, fused=True
    )
    start = time.perf_counter()
    self.run(5)
    self.compile_seconds = time.perf_counter() - start

  def run(self, count):
    """Steps, one after the other."""
    for _ in range(count):
      self._optimizer.zero_grad(set_to_none=True)
      loss = self._loss(self._pixels, self._labels)
      loss.backward()
      self._optimizer.step()
    self._torch.cuda.synchronize()


def _turns(contenders):
  times = {name: [] for name in contenders}
  for _ in range(_ROUNDS):
    for name, made in contenders.items():
      start = time.perf_counter()
      made.run(_TOGETHER)
      times[name].append(1e3 * (time.perf_counter() - start) / _TOGETHER)
  return times


def measure(quick, only):
  """By batch: milliseconds of both, and what of ours goes where."""
  batches = (180,) if quick else (180, 512, 1024)
  found = {}
  for images in batches:
    contenders = {'ours': Ours(images)}
    if images == batches[0]:
      contenders['ours with HIER'] = Ours(images, 0.5)
    if not only or 'torch' in only:
      modes = ('default', 'reduce-overhead') if images == 180 else ('default',)
      for mode in modes:
        try:
          contenders[f'torch.compile, {mode}'] = Torch(images, mode)
        except ImportError as error:
          found['left out'] = f'PyTorch: {error}'
    times = _turns(contenders)
    ours = contenders['ours']
    flops = engine.model_flops(ours.made)
    peak = backbones.known_peak()
    rows = {}
    for name, ms in times.items():
      median = statistics.median(ms)
      rows[name] = {
        'ms': round(median, 3),
        'least to most': [round(min(ms), 3), round(max(ms), 3)],
        'images/s': round(1e3 * images / median, 1),
        'compile s': round(contenders[name].compile_seconds, 1),
        'share of peak': flops / median / 1e9 / peak if peak else None,
      }
    memory = ours.compiled.memory_analysis()
    rows['ours']['temporaries MB'] = memory.temp_size_in_bytes / 1e6
    if images == batches[0]:
      found_kernels = kernels.by_kernel(lambda made=ours: made.run(1), 5, 60)
      rows['ours']['kernels'] = found_kernels
    found[f'{images} images'] = rows
    print(images, times, flush=True)
  return found
