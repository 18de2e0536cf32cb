"""Arrays of a file onto the parameters of a backbone."""

import functools
import math
import os
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from flax import traverse_util

from hier_jax.errors import UserError, listed
from hier_jax.models import vit
from hier_jax.models.weights import layouts

__all__ = ['Loaded', 'detect', 'fit', 'image_size', 'names_fit']

_POS_EMBED = 'params/pos_embed'


class Loaded(NamedTuple):
  """Weights of a backbone, and what was done with the arrays of their file.

  Attributes:
    variables: 'params' and, of a ResNet, 'batch_stats'; NumPy, float32.
    layout: the name of the file's layout.
    dropped: names of arrays that a backbone has no place for, such as a
      classifier's.
    resized: sides of the grids of position embeddings of the file and of the
      model, if they differ.
    architecture: name of the backbone; None if neither the file nor its source
      says it.
  """

  variables: dict[str, Any]
  layout: str
  dropped: tuple[str, ...]
  resized: tuple[int, int] | None
  architecture: str | None = None

  @property
  def size(self) -> int:
    """Number of parameters, statistics included."""
    return sum(leaf.size for leaf in jax.tree.leaves(self.variables))

  def summary(self) -> str:
    """One line for people."""
    text = f'{self.size:,} parameters, layout {self.layout}'
    if self.architecture:
      text = f'{self.architecture}, {text}'
    if self.resized:
      old, new = self.resized
      text += f'; position embeddings from {old}x{old} to {new}x{new}'
    if self.dropped:
      text += f'; left out {len(self.dropped)}: {listed(self.dropped)}'
    return text


def detect(
  weights: Mapping[str, np.ndarray], path: str | os.PathLike[str]
) -> layouts.Layout:
  """The layout of a file.

  Raises:
    UserError: the layout is not known.
  """
  layout = layouts.detect(weights)
  if layout is None:
    known = ', '.join(known.name for known in layouts.LAYOUTS)
    raise UserError(
      f'{path} is of no known layout: its arrays are {listed(list(weights))};'
      f' known are those of {known}'
    )
  return layout


def fit(
  weights: Mapping[str, np.ndarray],
  layout: layouts.Layout,
  model: nn.Module,
  path: str | os.PathLike[str],
) -> Loaded:
  """Makes the variables of a model from the arrays of a file.

  Args:
    weights: arrays by name.
    layout: theirs.
    model: a `ViT` or `ResNet`.
    path: of the file, for messages.

  Raises:
    UserError: arrays are missing, unexpected or of another shape.
  """
  targets = _targets(model)
  rows, missing, unexpected = _match(weights, layout, targets)
  arrays, misshapen, resized = {}, [], None
  for target, row in rows.items():
    want = targets[target]
    found = [weights[name] for name in row.sources]
    array = _transformed(row.transform, found)
    if target == _POS_EMBED and array is not None and array.shape != want:
      prefix = 1 + ('params/dist_token' in targets)
      array, resized = _regrid(array, want, prefix)
    if array is None or array.shape != want:
      shapes = ', '.join(str(a.shape) for a in found)
      misshapen.append(f'{row.sources[0]} {shapes} for {target} {want}')
    else:
      # A copy, so that nothing keeps the file open.
      arrays[target] = np.array(array, np.float32, order='C')
  _raise_on(
    f'{path}, of layout {layout.name}, does not fit the backbone',
    {
      'missing': missing,
      'unexpected': unexpected,
      'of another shape': misshapen,
    },
  )
  dropped = tuple(name for name in weights if layout.drops(name))
  variables = traverse_util.unflatten_dict(arrays, sep='/')
  return Loaded(variables, layout.name, dropped, resized)


def names_fit(
  weights: Mapping[str, np.ndarray], layout: layouts.Layout, model: nn.Module
) -> bool:
  """Whether a file has arrays of all the names that a model needs, and no more.

  Their shapes are not looked at.
  """
  _, missing, unexpected = _match(weights, layout, _targets(model))
  return not missing and not unexpected


def image_size(
  weights: Mapping[str, np.ndarray], layout: layouts.Layout
) -> int | None:
  """Side of the images that a ViT's position embeddings are made for, or None.

  Args:
    weights: arrays by name.
    layout: theirs.
  """
  names = _full_names(weights, layout)
  found = []
  for target in (_POS_EMBED, 'params/patch_embed/kernel'):
    row = layout.row(target)
    if row is None or row.sources[0] not in names:
      return None
    found.append(_transformed(row.transform, [weights[names[row.sources[0]]]]))
  pos_embed, kernel = found
  if kernel is None or pos_embed is None or pos_embed.ndim != 3:
    return None
  # No, one or two tokens before the patches: no two squares are that close.
  sides = [_side(pos_embed.shape[1] - prefix) for prefix in range(3)]
  return max(sides) * kernel.shape[0] or None


def _targets(model: nn.Module) -> dict[str, tuple[int, ...]]:
  """Shapes of a model's variables by their paths."""
  side = getattr(model, 'image_size', 64)
  images = jax.ShapeDtypeStruct((1, side, side, 3), jnp.float32)
  init = functools.partial(model.init, train=False)
  shapes = jax.eval_shape(init, jax.random.key(0), images)
  flat = traverse_util.flatten_dict(shapes, sep='/')
  return {target: leaf.shape for target, leaf in flat.items()}


def _full_names(
  weights: Iterable[str], layout: layouts.Layout
) -> dict[str, str]:
  """Name in the layout -> name in the file."""
  return {layout.bare(n): n for n in weights if not layout.drops(n)}


def _match(
  weights: Iterable[str], layout: layouts.Layout, targets: Iterable[str]
) -> tuple[dict[str, layouts.Row], list[str], list[str]]:
  """Rows by target with a file's own names, and what fits none."""
  names = _full_names(weights, layout)
  rows: dict[str, layouts.Row] = {}
  missing: list[str] = []
  used: set[str] = set()
  for target in targets:
    row = layout.row(target)
    if row is None:
      missing.append(target)
    elif absent := [name for name in row.sources if name not in names]:
      missing += absent
    else:
      sources = tuple(names[name] for name in row.sources)
      rows[target] = row._replace(sources=sources)
      used.update(sources)
  unexpected = [n for n in weights if n not in used and not layout.drops(n)]
  return rows, missing, unexpected


def _transformed(
  transform: layouts.Transform, arrays: Sequence[np.ndarray]
) -> np.ndarray | None:
  """What a transform makes of arrays, None of those it cannot be for."""
  try:
    return transform.load(*arrays)
  except (IndexError, TypeError, ValueError):
    return None


def _side(patches: int) -> int:
  """Side of a square grid of that number of patches; 0 if it is no square."""
  side = math.isqrt(max(patches, 0))
  return side if side * side == patches else 0


def _regrid(
  pos_embed: np.ndarray, want: tuple[int, ...], prefix: int
) -> tuple[np.ndarray, tuple[int, int] | None]:
  """Position embeddings of the wanted grid, and the sides of both."""
  if pos_embed.ndim != 3 or pos_embed.shape[2] != want[2]:
    return pos_embed, None
  count, new = pos_embed.shape[1], _side(want[1] - prefix)
  if (old := _side(count)) and not _side(count - prefix):
    # Of patches alone (timm, with registers): the class token holds its own.
    zeros = np.zeros((1, prefix, want[2]), pos_embed.dtype)
    pos_embed = np.concatenate([zeros, pos_embed], axis=1)
  else:
    old = _side(count - prefix)
  if not old or old == new:
    return pos_embed, None
  pos_embed = pos_embed.astype(np.float32)
  grids = (old, old), (new, new)
  resized = vit.resize_pos_embed(jnp.asarray(pos_embed), prefix, *grids)
  return np.asarray(resized), (old, new)


def _raise_on(what: str, differing: Mapping[str, Sequence[str]]) -> None:
  """One error for all that differs, by kind."""
  parts = [
    f'{len(names)} {kind} ({listed(names)})'
    for kind, names in differing.items()
    if names
  ]
  if parts:
    raise UserError(
      f'{what}: {"; ".join(parts)}. Choose the backbone that it was made for.'
    )
