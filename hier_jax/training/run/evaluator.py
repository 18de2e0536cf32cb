"""Evaluates the states of a run: embeds splits, ranks them, records metrics."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from hier_jax.data import transforms
from hier_jax.data.datasets import Split
from hier_jax.evaluation import baselines
from hier_jax.evaluation.retrieval import rankings
from hier_jax.training.logs import names, selection
from hier_jax.training.logs.records import MetricsLog
from hier_jax.training.run import embedding
from hier_jax.training.run.inputs import ranked_splits
from hier_jax.training.step.state import TrainState

__all__ = ['Evaluator']

# System -> its retrieval metrics; variables and images -> embeddings.
Table = dict[str, dict[str, Any]]
Embed = Callable[[Mapping[str, Any], np.ndarray], jax.Array]

# Rows of the table that come before the trained network, where they are there.
_PIXELS, _UNTRAINED = 'raw pixels', 'before training'


class Evaluator:
  """Evaluates the states of a run, and remembers by its log which was best.

  A validation split, where there is one, chooses the best state, and the test
  split is then evaluated before training and at the end alone.

  Args:
    splits: name -> `datasets.Split`.
    embed: maps variables and images to rows, see `mapping.map_embed`.
    log: `records.MetricsLog` of the run.
    say: is called with each line to print.
    before_batch: is called before each batch, and may raise to end it all.
    settings: config.eval.
    model: config.model.
    data: config.data.
  """

  def __init__(
    self,
    splits: Mapping[str, Split],
    embed: Embed,
    log: MetricsLog,
    *,
    say: Callable[[str], None],
    before_batch: Callable[[], None],
    settings: ConfigDict,
    model: ConfigDict,
    data: ConfigDict,
  ) -> None:
    self._splits, self._embed, self._log = splits, embed, log
    self._say, self._before_batch = say, before_batch
    self._settings, self._c = settings, model.c
    self._view = transforms.EvalView(model.image_size, data.eval_resize)
    self._num_threads = data.num_threads

  @property
  def best_step(self) -> int | None:
    """Step of the state that validates best so far; None without any."""
    return selection.best(self._log.records, self._settings.select).get('step')

  @property
  def patience_ended(self) -> bool:
    """Whether the run should end, since validations no longer improve."""
    return selection.exhausted(
      self._log.records, self._settings.select, self._settings.patience
    )

  def has_evaluated(self, step: int) -> bool:
    """Whether the log holds an evaluation of the state of a step."""
    return any(
      record['step'] == step and record['kind'] != 'train'
      for record in self._log.records
    )

  def evaluate_start(self, state: TrainState) -> None:
    """Records what there is to beat: the pixels, and the untrained network."""
    if self._settings.pixels:
      found = self._embedded(self._test, lambda images: images)
      pixels = [(baselines.pixel_embedding(x), y) for x, y in found]
      self._record('eval', 0, _PIXELS, self._ranked(pixels, c=None))
    self._evaluate(state, self._test, 'eval', 0, _UNTRAINED)

  def evaluate(self, state: TrainState, step: int) -> None:
    """Records a state's metrics, on the validation split where there is one."""
    if 'val' in self._splits:
      splits, kind = [self._splits['val']], names.VALIDATION
    else:
      splits, kind = self._test, 'eval'
    self._evaluate(state, splits, kind, step, _name(step))

  def evaluate_end(
    self,
    state: TrainState,
    step: int,
    restore: Callable[[int], TrainState],
  ) -> None:
    """Records test metrics of the last state and of the best on validation.

    Does nothing without a validation split, and nothing twice.

    Args:
      state: the last one.
      step: its step.
      restore: maps the step of a checkpoint to its state.
    """
    if 'val' not in self._splits:
      return
    done, best = self._log.evaluations(), self.best_step
    assert best is not None, 'the last state is validated before it is tested'
    if _name(step) not in done:
      self._evaluate(state, self._test, 'eval', step, _name(step))
    # A run that became longer has that of its shorter self.
    if done.get(names.BEST, {}).get('step') != step:
      chosen = state if best == step else restore(best)
      self._evaluate(
        chosen, self._test, 'eval', step, names.BEST, checkpoint=best
      )

  def table(self, step: int) -> Table:
    """Name of a system -> its test metrics, `step` being the run's last."""
    found = self._log.evaluations()
    rows = {name: found.get(name) for name in (_PIXELS, _UNTRAINED)}
    rows[names.TRAINED] = found[_name(step)]
    rows[names.BEST] = found.get(names.BEST)
    return {name: row for name, row in rows.items() if row is not None}

  @property
  def _test(self) -> list[Split]:
    """The queries and, where there is one, the gallery."""
    return ranked_splits(self._splits)

  def _evaluate(
    self,
    state: TrainState,
    splits: Sequence[Split],
    kind: str,
    step: int,
    name: str,
    **others: Any,
  ) -> None:
    """Embeds splits by a state, and records their metrics under a name."""
    variables = state.eval_variables
    found = self._embedded(splits, lambda im: self._embed(variables, im))
    self._record(kind, step, name, self._ranked(found, c=self._c) | others)

  def _embedded(
    self, splits: Sequence[Split], embed: Callable[[np.ndarray], Any]
  ) -> list[tuple[np.ndarray, np.ndarray]]:
    def embed_batch(images: np.ndarray) -> Any:
      self._before_batch()
      return embed(images)

    return [
      embedding.embed_split(
        split,
        embed_batch,
        self._view,
        batch_size=self._settings.batch_size,
        num_threads=self._num_threads,
      )
      for split in splits
    ]

  def _ranked(
    self, embedded: Sequence[tuple[np.ndarray, np.ndarray]], c: float | None
  ) -> dict[str, Any]:
    (queries, labels), *others = embedded
    gallery, gallery_labels = others[0] if others else (None, None)
    return rankings.both(
      queries,
      labels,
      gallery=gallery,
      gallery_labels=gallery_labels,
      c=c,
      recall_at=self._settings.recall_at,
    )

  def _record(
    self, kind: str, step: int, name: str, metrics: Mapping[str, Any]
  ) -> None:
    self._log.write({'kind': kind, 'step': step, 'name': name, **metrics})
    first = self._settings.recall_at[0]
    shown = name if kind == 'eval' else f'{name}, {kind}'
    self._say(
      f'{shown}: R@{first} {metrics[f"recall@{first}"]:.1%}'
      f' MAP@R {metrics["map@r"]:.1%}'
    )


def _name(step: int) -> str:
  """The name of the evaluation of a state, in records."""
  return f'step {step}'
