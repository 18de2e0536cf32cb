"""What a backbone's forward pass and its training step cost.

Beside a plain ViT in PyTorch where both run on the CPU; and by backbone, in
images a second and the share of the device's peak that the model's arithmetic
reaches. On an accelerator the same command times that, in bfloat16.
"""

import dataclasses
import functools
import math

import jax
import jax.numpy as jnp
import numpy as np

from experiments.benchmarks.common import report, timing
from hier_jax import models

_SCRIPT = 'experiments/benchmarks/step/backbones.py'
_PACKAGES = 'hier_jax', 'jax', 'jaxlib', 'flax', 'torch', 'numpy'
# Start of a device's name -> dense bfloat16 TFLOP/s, of its data sheet.
_PEAKS = {
  'NVIDIA A100': 312,
  'NVIDIA H100': 989,
  'NVIDIA H200': 989,
  'TPU v4': 275,
  'TPU v5 lite': 197,
  'TPU v5p': 459,
  'TPU v6 lite': 918,
}


@dataclasses.dataclass(frozen=True)
class Sizes:
  """What is measured.

  Attributes:
    backbone: that is compared with PyTorch's.
    backbones: whose throughput is measured.
    images: of a batch.
    rounds: runs of each program, at most.
    seconds: after which none runs again but for the second time.
    peak: TFLOP/s of the device, None for what is known of it.
  """

  backbone: str = 'vit_small_patch16_224'
  backbones: tuple[str, ...] = (
    'vit_small_patch16_224',
    'vit_base_patch16_224',
    'resnet50',
  )
  images: int = 8
  rounds: int = 11
  seconds: int = 60
  peak: float | None = None


_QUICK = Sizes('vit_tiny_patch16_64', ('vit_tiny_patch16_64',), 2, 3)


@dataclasses.dataclass(frozen=True)
class Case:
  """A backbone with a batch.

  Attributes:
    model: the module.
    variables: what it was initialized with.
    images: `[b, H, W, 3]`.
    cotangents: `[b, F]`, of the features.
  """

  model: object
  variables: dict
  images: jax.Array
  cotangents: jax.Array

  @classmethod
  def create(cls, name, images, dtype, **options):
    """Random parameters, images and cotangents."""
    model = models.create_backbone(name, dtype=dtype, **options)
    size = models.spec(name).image_size
    keys = jax.random.split(jax.random.key(0), 3)
    pixels = jax.random.normal(keys[0], (images, size, size, 3))
    init = functools.partial(model.init_with_output, train=False)
    features, variables = jax.jit(init)(keys[1], pixels)
    cotangents = jax.random.normal(keys[2], features.shape)
    return cls(model, variables, pixels, cotangents)

  def forward(self, name):
    """Features, as in evaluation."""
    apply = functools.partial(self.model.apply, train=False)
    return timing.compiled(name, apply, self.variables, self.images)

  def step(self, name):
    """Features and the gradient by the parameters, as in training."""
    fixed = {k: v for k, v in self.variables.items() if k != 'params'}

    def run(params, fixed, images, cotangents):
      def features(params):
        made, updates = self.model.apply(
          {'params': params, **fixed},
          images,
          train=True,
          mutable=['batch_stats'],
        )
        return made, updates

      made, pull, updates = jax.vjp(features, params, has_aux=True)
      return made, *pull(cotangents), updates

    given = self.variables['params'], fixed, self.images, self.cotangents
    return timing.compiled(name, run, *given)

  def flops(self):
    """Operations of a forward pass of the batch, two a multiply-add.

    XLA's own count of the program in float32, the elementwise included.
    """
    model = self.model.clone(dtype=jnp.float32)
    apply = functools.partial(model.apply, train=False)
    lowered = jax.jit(apply).lower(self.variables, self.images)
    return lowered.cost_analysis()['flops']


def _ms(contender):
  return (
    f'{contender.median:.3g}'
    if contender.median < 100
    else (f'{contender.median:.0f}')
  )


# ---- beside PyTorch ---------------------------------------------------------


def beside_torch(sizes):
  """Time of both passes, float32, the same parameters and threads."""
  if jax.default_backend() != 'cpu':
    return ['PyTorch is measured on the CPU alone.']
  try:
    from experiments.benchmarks.step import torch_vit
  except ImportError:
    return ['PyTorch is not installed: `pip install torch`.']
  case = Case.create(sizes.backbone, sizes.images, jnp.float32)
  peer = _Torch(torch_vit, case)
  pairs = [
    ('forward', case.forward('hier_jax'), peer.contender(peer.forward)),
    ('forward and backward', case.step('hier_jax'), peer.contender(peer.step)),
  ]
  timing.in_turns(
    [c for _, *pair in pairs for c in pair], sizes.rounds, sizes.seconds
  )
  rows = [
    [
      f'{what}, {c.name}',
      _ms(c),
      timing.ratio(c, theirs),
      f'{c.cores:.1f}',
      '' if math.isnan(c.temporary_mb) else f'{c.temporary_mb:.0f}',
    ]
    for what, ours, theirs in pairs
    for c in (ours, theirs)
  ]
  heading = ['pass', 'ms', 'its ratio', 'cores busy', 'temporaries, MB']
  features, gradient = peer.differences()
  return [
    report.table(heading, rows),
    f'`{sizes.backbone}`, {sizes.images} images, float32, {peer.threads}'
    ' threads each. PyTorch is eager, its attention'
    ' `scaled_dot_product_attention` ([`torch_vit.py`](../step/torch_vit.py)).'
    f' Medians of {len(pairs[0][1].milliseconds)} rounds in which every row'
    ' runs once; ratios are those of the same round, with quartiles. With the'
    f' same parameters the features differ by {report.scientific(features)} of'
    " the largest, the gradient of the patches' kernel by"
    f' {report.scientific(gradient)}.',
  ]


class _Torch:
  """The peer of a case."""

  def __init__(self, torch_vit, case):
    self._torch = torch = torch_vit.torch
    self._case = case
    self._model = torch_vit.same_as(case.model, case.variables['params'])
    tensor = lambda a: torch.tensor(np.asarray(a))
    self._images = tensor(case.images).permute(0, 3, 1, 2).contiguous()
    self._cotangents = tensor(case.cotangents)
    self.threads = torch.get_num_threads()

  def contender(self, program):
    return timing.Contender('PyTorch', program, (), math.nan, math.nan)

  def forward(self):
    with self._torch.no_grad():
      return self._model(self._images)

  def step(self):
    self._model.zero_grad()
    features = self._model(self._images)
    features.backward(self._cotangents)
    return features.detach()

  def differences(self):
    """Of features and of a gradient that all layers take part in."""
    features, grads, _ = self._case.step('').call()
    theirs = self.step().numpy()
    kernel = np.asarray(grads['patch_embed']['kernel']).transpose(3, 2, 0, 1)
    gradient = self._model.patch_embed.weight.grad.numpy()
    return [
      np.abs(a - b).max() / np.abs(b).max()
      for a, b in ((features, theirs), (kernel, gradient))
    ]


# ---- throughput -------------------------------------------------------------


def throughput(sizes):
  """Images a second, and the share of the peak."""
  cpu = jax.default_backend() == 'cpu'
  dtype = jnp.float32 if cpu else jnp.bfloat16
  peak = sizes.peak or known_peak()
  rows = []
  for name in sizes.backbones:
    case = Case.create(name, sizes.images, dtype)
    saving = Case.create(name, sizes.images, dtype, remat=True)
    # A backward pass takes twice the forward's; what remat adds is no use.
    found = [
      (1, case.forward('forward')),
      (3, case.step('forward and backward')),
      (3, saving.step('the same, remat')),
    ]
    timing.in_turns([c for _, c in found], sizes.rounds, sizes.seconds)
    for passes, c in found:
      flops = passes * case.flops() / (1e-3 * c.median)
      rows.append(
        [
          f'`{name}`, {c.name}',
          f'{1e3 * sizes.images / c.median:.3g}',
          f'{flops / 1e12:.2g}',
          f'{100 * flops / 1e12 / peak:.0f} %' if peak else '',
          f'{c.temporary_mb:.0f}',
          f'{c.compile_seconds:.1f}',
        ]
      )
  heading = ['pass', 'images/s', 'TFLOP/s', 'of the peak', 'temporaries, MB']
  of_peak = (
    f'The peak is {peak:g} TFLOP/s.'
    if peak
    else "The device's peak is not known: give it with `--peak`."
  )
  return [
    report.table([*heading, 'compile, s'], rows),
    f'{sizes.images} images, {jnp.dtype(dtype).name}. {of_peak} The arithmetic'
    ' is that of the model, three times the forward pass for a step.',
  ]


def known_peak():
  """TFLOP/s of the device, None where it is not in the table."""
  kind = jax.devices()[0].device_kind
  return next((p for name, p in _PEAKS.items() if kind.startswith(name)), None)


# ---- all --------------------------------------------------------------------

_SECTIONS = {
  'torch': ('Beside PyTorch', beside_torch),
  'throughput': ('Throughput', throughput),
}


def main():
  """Reads the command line."""
  parser = report.parser(__doc__, 'backbones.md', _SECTIONS)
  parser.add_argument('--backbone', help="the ViT compared with PyTorch's")
  parser.add_argument('--backbones', nargs='+', help='whose throughput')
  parser.add_argument('--images', type=int, help='of a batch')
  parser.add_argument('--rounds', type=int, help='runs of a program, at most')
  parser.add_argument('--seconds', type=int, help='after which none runs again')
  parser.add_argument('--peak', type=float, help='TFLOP/s of the device')
  args = parser.parse_args()
  sizes = report.chosen(args, _QUICK if args.quick else Sizes())
  report.emit_sections(args, _SCRIPT, _SECTIONS, _PACKAGES, sizes)


if __name__ == '__main__':
  main()
