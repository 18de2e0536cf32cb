"""`hier-jax export`."""

import sys

from absl import flags

from hier_jax import paths
from hier_jax.cli import embed as embed_verb
from hier_jax.cli import verbs
from hier_jax.errors import UserError

__all__ = ['VERB']

_FORMATS = 'stablehlo', 'onnx', 'timm', 'safetensors'


def _define(values: flags.FlagValues) -> None:
  verbs.choice_flag(
    values,
    'format',
    _FORMATS,
    'FORMAT: stablehlo runs with JAX alone, on CPU, GPU and TPU; onnx with'
    ' onnxruntime; timm is for PyTorch; safetensors is what embed and search'
    ' open again.',
  )
  verbs.text_flags(
    values,
    out='FOLDER: The folder to write, which must not exist or be empty; by'
    ' default one named after MODEL and the format.',
  )
  embed_verb.define_backbone(values)


def _run(values: flags.FlagValues, arguments: list[str]) -> None:
  if not arguments or values.format is None:
    lacking = 'a --format' if arguments else 'a MODEL'
    raise UserError(
      f'export needs {lacking}, such as hier-jax export runs/quickstart'
      ' --format stablehlo; see hier-jax export --help'
    )
  (name,) = arguments
  out = values.out or f'{_stem(name)}-{values.format}'
  # Heavy imports wait until the arguments are known to be right.
  from hier_jax.inference import export

  export.check(out, name, values.format)
  model = embed_verb.open_model(values, name)
  if model.note:
    print(model.note, file=sys.stderr)
  made = export.write(model, out, format=values.format)
  print(f'{made.size / 1e6:.1f} MB written to {made.folder}')
  if made.max_error is not None:
    print(
      f'largest difference from hier_jax on random images: {made.max_error:.1e}'
    )
  print(f'{made.folder / "README.md"} says what it is and how to run it')


def _stem(name: str) -> str:
  """What an export is called: a run by its folder, a file by its name."""
  path = paths.as_path(name)
  if path.parent.name == 'checkpoints' and path.name.isdecimal():
    return f'{path.parent.parent.resolve().name}-{path.name}'
  name = path.resolve().name
  return path.stem if path.suffix and path.is_file() else name


VERB = verbs.Verb(
  'export',
  ('export MODEL --format FORMAT [--out FOLDER] ...',),
  'Write a model for others to run, with a model card: for JAX alone, for ONNX,'
  ' for PyTorch, or in one file of our own. MODEL is what embed takes.',
  _define,
  _run,
  positional=1,
)
