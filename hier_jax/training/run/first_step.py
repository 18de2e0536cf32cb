"""What is looked at once, before the first step of a run."""

from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np

from hier_jax import debug
from hier_jax.errors import UserError
from hier_jax.training.distributed import processes
from hier_jax.training.run.evaluator import Embed
from hier_jax.training.step import objective
from hier_jax.training.step.state import TrainState

__all__ = ['check']


def check(
  embed: Embed,
  state: TrainState,
  batch: Mapping[str, jax.Array],
  *,
  eval_rows: int,
  c: float | None,
) -> None:
  """Looks at the values of a batch and of its embeddings.

  It takes an embedding pass, compiled for evaluation anyway, and no gradient.
  Embeddings of views that the device makes are not looked at.

  Args:
    embed: of `mapping.map_embed`.
    state: `TrainState`.
    batch: of this process, as `mapping.prefetch` places it.
    eval_rows: config.eval.batch_size, for which `embed` is compiled.
    c: curvature of the embeddings, config.model.c.

  Raises:
    UserError: a label is no class, or an embedding or a parameter of the loss
      is not finite or no point of the ball.
  """
  batch = jax.tree.map(np.asarray, batch)
  labels, z = batch['label'].ravel(), None
  if 'extent' not in batch:
    images = batch['image'].reshape(-1, *batch['image'].shape[-3:])
    # As many as evaluation embeds, for which the program is compiled.
    rows = eval_rows // processes.count()
    z = embed(
      state.eval_variables, np.resize(images, (rows, *images.shape[1:]))
    )
    z = jnp.asarray(np.asarray(z)[: len(labels)])
    labels = labels[: len(z)]
  try:
    with debug.debug_checks():
      objective.check(z, labels, state.params['loss'], c=c)
  except ValueError as error:
    raise UserError(
      f'the first batch cannot be trained on: {error}. Images, labels or the'
      ' pretrained weights are not what the config says'
    ) from error
