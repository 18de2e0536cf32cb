"""A model for others to run: one folder with its weights and a model card."""

import json
import os
import pathlib
import types
from collections.abc import Mapping
from typing import NamedTuple

from hier_jax import paths
from hier_jax.errors import UserError
from hier_jax.inference.export import (
  card,
  onnx,
  portable,
  safetensors,
  stablehlo,
  timm,
)
from hier_jax.inference.model import Model

__all__ = ['FORMATS', 'Exported', 'check', 'write']

FORMATS: Mapping[str, types.ModuleType] = {
  'stablehlo': stablehlo,
  'onnx': onnx,
  'timm': timm,
  'safetensors': safetensors,
}
# What a person who thinks of a file would end its name with.
_SUFFIXES = '.stablehlo', '.onnx', '.safetensors', '.mlir', '.pt', '.pth'


class Exported(NamedTuple):
  """What was written.

  Attributes:
    folder: that holds it.
    size: of all its files, bytes.
    max_error: largest difference from the model's own embeddings of a few
      random images; None if they were not compared.
  """

  folder: pathlib.Path
  size: int
  max_error: float | None


def check(out: str | os.PathLike[str], model: str, format: str) -> pathlib.Path:
  """Checks, before any work, that a model can be exported.

  Args:
    out: the folder to write.
    model: what `open_model` will open.
    format: one of `FORMATS`.

  Returns:
    The folder's path.

  Raises:
    UserError: the folder exists already or cannot be written; a package is
      missing.
  """
  if paths.is_remote(out):
    raise UserError(
      f'output {out} is remote: export to a local folder, and copy that'
    )
  path = paths.check_output(out, inputs=[model], folder=not _is_file(out))
  if path.suffix in _SUFFIXES:
    raise UserError(
      f'output {path} looks like a file, but an export is a folder, with a'
      f' model card in it: take --out {path.with_suffix("")}'
    )
  if path.exists() and any(path.iterdir()):
    raise UserError(
      f'output {path} exists, and nothing is written over an export: choose'
      ' another folder with --out, or remove that one'
    )
  FORMATS[format].check()
  return path


def _is_file(out) -> bool:
  path = paths.as_path(out)
  return path.suffix in _SUFFIXES and not path.is_dir()


def write(
  model: Model, out: str | os.PathLike[str], *, format: str
) -> Exported:
  """Writes a model, its metadata and its card into a new folder.

  The folder holds the model (`FORMATS` says in which files), `metadata.json`,
  and the card in `README.md`. It is written as a whole or not at all.

  Args:
    model: what to export, see `open_model`.
    out: the folder, which must not exist or must be empty.
    format: one of `FORMATS`.

  Raises:
    UserError: as `check`, or the format does not support the model's layers.

  Example:
    >>> from hier_jax.inference import export, model
    >>> made = model.open_model('runs/quickstart')  # doctest: +SKIP
    >>> export.write(made, 'exported', format='stablehlo')  # doctest: +SKIP
  """
  out = check(out, model.name, format)
  facts = portable.facts(model, format)
  with paths.making_folder(out) as folder:
    usage = FORMATS[format].write(model, facts, folder)
    facts |= {'files': list(usage.files), 'max_error': usage.max_error}
    text = json.dumps(facts, indent=2, ensure_ascii=False)
    (folder / 'metadata.json').write_text(f'{text}\n', encoding='utf-8')
    (folder / 'README.md').write_text(
      card.text(model, facts, usage), encoding='utf-8'
    )
  size = sum(file.stat().st_size for file in out.iterdir())
  return Exported(out, size, usage.max_error)
