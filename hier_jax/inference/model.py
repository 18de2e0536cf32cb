"""Trained models and pretrained backbones as functions of images."""

import dataclasses
import functools
import hashlib
import json
import os
from collections.abc import Callable, Mapping
from typing import Any

import flax.linen as nn
import jax
import numpy as np

from hier_jax import paths
from hier_jax.data.transforms import EvalView
from hier_jax.errors import UserError, did_you_mean
from hier_jax.inference import stored_model
from hier_jax.models import embedder, registry
from hier_jax.models.weights import pretrained
from hier_jax.training.distributed import mapping
from hier_jax.training.run import from_checkpoint, plan
from hier_jax.training.step import train_step

__all__ = ['Model', 'open_model']

# The short side is resized to size / crop before the center is cut out, as
# published backbones are evaluated.
_CROP = 224 / 256
# Side of DINOv2's images, of which its position embeddings are made for 518.
_DINOV2_SIZE = 224


@dataclasses.dataclass(frozen=True, eq=False)
class Model:
  """A function from images to embeddings, and what is known about it.

  Attributes:
    name: what a person calls it: the path of a run or a file, or a name.
    embed: images `[b, H, W, 3]` uint8 to float32 rows `[b, d]`; b is a multiple
      of the number of local devices.
    view: makes an image of the right size.
    c: None for cosine, 0 for Euclidean, c > 0 for points of the ball.
    proxies: hierarchical proxies `[P, d]`, points of the ball, or None.
    about: what files of embeddings record about it, as JSON values.
    digest: a hash of its weights and its view.
    data: for a run, the name of its data set and its folder (None for the usual
      one); else None.
    note: what to tell people about the weights.
    module: the module that `embed` applies.
    variables: its parameters and running statistics.
    settings: config.model of a run; else None.
    run: the run that it was opened from, or None.
  """

  name: str
  embed: Callable[[np.ndarray], Any]
  view: EvalView
  c: float | None
  proxies: np.ndarray | None
  about: Mapping[str, Any]
  digest: str
  data: tuple[str, str | None] | None = None
  note: str = ''
  module: embedder.Embedder | None = None
  variables: Any = None
  settings: Mapping[str, Any] | None = None
  run: from_checkpoint.Trained | None = None


def open_model(
  name: str | os.PathLike,
  *,
  architecture: str | None = None,
  image_size: int | None = None,
) -> Model:
  """Opens a model.

  Args:
    name: the workdir of a run, `WORKDIR/checkpoints/STEP`, a .safetensors that
      `hier-jax export` made from a run, a file of weights (see
      `pretrained.load`), or the name of a backbone with weights on the hub.
    architecture: the backbone's name, if a file of weights does not say it.
    image_size: side of the images in pixels for a backbone; None for the size
      in its name, and 224 for DINOv2. A run has its own size.

  Raises:
    UserError: there is no such model, or it is none of these.
  """
  path = paths.as_path(name)
  if not path.is_dir():
    stored = stored_model.read(path)
    if stored is None:
      return _backbone(name, architecture, image_size)
    _check_own(path, 'an exported run', architecture, image_size)
    return _exported(name, stored)
  _check_own(path, 'a run', architecture, image_size)
  run = from_checkpoint.open_run(path)
  data = run.config.data
  made = _of_settings(
    name,
    run.embed,
    run.variables,
    run.view,
    run.proxies,
    run.config.model.to_dict(),
    model=paths.absolute(run.workdir / 'checkpoints' / str(run.step)),
    title=f'{run.workdir.name}, step {run.step}',
  )
  return dataclasses.replace(
    made,
    data=(data.name, data.data_dir),
    module=plan.create_model(run.config.model),
    run=run,
  )


def _check_own(path, what, architecture, image_size):
  """Raises UserError where options of a backbone are given for another."""
  if image_size is not None or architecture is not None:
    raise UserError(
      f'{path} is {what}, which has an image size and an architecture of its'
      ' own: leave out --image_size and --architecture'
    )


def _exported(name, stored: stored_model.Stored) -> Model:
  """The model of a file that `stored_model.write` wrote."""
  module = plan.create_model(stored.settings)
  embed = mapping.map_embed(train_step.make_embed(module))
  made = _of_settings(
    name,
    functools.partial(embed, stored.variables),
    stored.variables,
    stored.view,
    stored.proxies,
    stored.settings,
    model=paths.absolute(paths.as_path(name)),
    title=stored.title,
  )
  return dataclasses.replace(made, module=module)


def _of_settings(
  name, embed, variables, view, proxies, settings, **about
) -> Model:
  """A run's model, or a copy of it, which has the same digest."""
  made = _made(
    str(name),
    embed,
    variables,
    view,
    settings['c'],
    proxies,
    is_run=True,
    **about,
    backbone=settings['backbone'],
    mean=list(settings['mean']),
    std=list(settings['std']),
  )
  return dataclasses.replace(made, settings=settings)


class _NoHead(nn.Module):
  """Leaves a backbone's features as they are."""

  def __call__(self, features):
    return features


def _backbone(name, architecture, image_size) -> Model:
  _check_known(name)
  backbone, module, loaded = pretrained.identify(
    name, architecture=architecture, image_size=image_size
  )
  spec = _spec(name, backbone)
  size = image_size or getattr(module, 'image_size', spec.image_size)
  if image_size is None and 'dinov2' in spec.architecture:
    size = _DINOV2_SIZE
    backbone, module, loaded = pretrained.identify(
      name, architecture=backbone, image_size=size
    )
  whole = embedder.Embedder(module, _NoHead(), spec.mean, spec.std)
  variables = {
    kind: {'backbone': jax.tree.map(jax.numpy.asarray, tree)}
    for kind, tree in loaded.variables.items()
  }
  path = paths.as_path(name)
  made = _made(
    str(name),
    functools.partial(
      mapping.map_embed(train_step.make_embed(whole)), variables
    ),
    variables,
    EvalView(size, round(size / _CROP)),
    None,
    None,
    is_run=False,
    model=paths.absolute(path) if path.exists() else str(name),
    title=path.name,
    backbone=backbone,
    mean=list(spec.mean),
    std=list(spec.std),
  )
  return dataclasses.replace(
    made, note=f'{name}: {loaded.summary()}', module=whole
  )


def _check_known(name):
  """Raises UserError for what is neither a file nor a name, in one line."""
  path = paths.as_path(name)
  if path.suffix in ('.safetensors', '.npz', '.pth', '.pt', '.bin', '.tar'):
    return
  if path.exists():
    return
  # OWNER/NAME is a repository of the hub where the name is a backbone's, and
  # otherwise the workdir of a run, misspelled.
  try:
    registry.spec(path.name if len(path.parts) == 2 else str(name))
  except UserError:
    known = [*registry.PUBLISHED, *registry.ALIASES]
    raise UserError(
      f'there is no model {name}: expected the workdir of a run, a file of'
      ' weights, or the name of published ones, such as dinov2_vits14'
      f'{did_you_mean(str(name), known)}'
    ) from None


def _spec(name, backbone) -> registry.Spec:
  """What a backbone expects of pixels.

  Raises:
    UserError: the file does not tell which of several weights it has.
  """
  spec = registry.spec(backbone)
  full = registry.ALIASES.get(backbone, backbone)
  tags = registry.PUBLISHED.get(spec.architecture, ())
  names = [f'{spec.architecture}.{tag}' for tag in tags]
  pixels = {(s.mean, s.std) for s in map(registry.spec, names)}
  if full == spec.architecture and len(pixels) > 1:
    raise UserError(
      f'{name} does not tell which weights of {backbone} it holds, and these'
      f' expect different pixels: say --architecture {" or ".join(names)}'
    )
  return spec


def _made(
  name, embed, variables, view, c, proxies, *, is_run, **about
) -> Model:
  about |= {
    'is_run': is_run,
    'c': c,
    'image_size': view.size,
    'resize': view.resize or view.size,
  }
  # A model that was moved is the same.
  kept = {k: v for k, v in about.items() if k not in ('model', 'title')}
  found = hashlib.sha256(json.dumps(kept).encode())
  for path, leaf in jax.tree.leaves_with_path(variables):
    found.update(f'{jax.tree_util.keystr(path)} {leaf.shape}'.encode())
    found.update(np.ascontiguousarray(leaf).data)
  digest = found.hexdigest()[:32]
  about['digest'] = digest
  return Model(
    name, embed, view, c, proxies, about, digest, variables=variables
  )
