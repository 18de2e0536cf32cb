"""What is said and written of steps that are not finite."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hier_jax.data import datasets
from hier_jax.errors import UserError
from hier_jax.training.logs import progress
from hier_jax.training.run import guard, loop
from hier_jax.training.run.checkpoint import Checkpoints
from hier_jax.training.step import objective
from tests.support import training_data


@pytest.mark.parametrize(
  ('metrics', 'message'),
  [
    ({'loss': np.nan, 'grad_norm': np.nan}, 'the loss is nan at step 7: lower'),
    ({'loss': 1.0, 'grad_norm': np.inf}, 'the grad_norm is inf at step 7'),
    ({'loss': 1.0, 'grad_norm': 1.0}, 'the update is not finite at step 7'),
  ],
)
def test_what_was_not_finite_is_named(tmp_path, metrics, message):
  sampler = lambda step: np.array([step, 1])
  watched = guard.Guard(tmp_path, sampler, seed=0, mode='stop', skipped=2)
  watched.watch(6, metrics | {'skipped': 2.0})
  watched.watch(7, metrics | {'skipped': 3.0})
  assert watched.check(6) == []
  with pytest.raises(UserError, match=message):
    watched.check(7)
  found = json.loads((tmp_path / 'nonfinite_7.json').read_text())
  assert found['rows'] == [6, 1]
  assert set(found['not_finite']) == {
    k for k, v in metrics.items() if not np.isfinite(v)
  }


@pytest.fixture
def poisoned(monkeypatch, colors):
  """The loss of step 5 is NaN; returns how to heal it."""
  loss = objective.loss

  def poisoned_loss(*args, step=0, **kwargs):
    value, metrics = loss(*args, step=step, **kwargs)
    value = value * jnp.where(step == 4, jnp.nan, 1)
    return value, metrics | {'loss': value}

  monkeypatch.setattr(objective, 'loss', poisoned_loss)
  return lambda: monkeypatch.setattr(objective, 'loss', loss)


def small(**settings):
  return training_data.config(
    **{'loss.hier_weight': 0.0, 'epochs': 2, **settings}
  )


@pytest.mark.slow
def test_run_stops_and_goes_on_from_before(tmp_path, poisoned):
  config, workdir = small(), tmp_path / 'run'
  with pytest.raises(UserError, match='the loss is nan at step 5: lower'):
    loop.train(config, workdir)
  with Checkpoints(workdir / 'checkpoints') as checkpoints:
    assert checkpoints.latest_step == 3
  found = json.loads((workdir / 'nonfinite_5.json').read_text())
  inputs = training_data.inputs(config, datasets.load('')['train'])
  key = jax.random.fold_in(jax.random.key(config.seed), 4)
  assert found.pop('not_finite')['loss'] == 'nan'
  assert found == {
    'step': 5,
    'steps_before': 4,
    'seed': config.seed,
    'key': jax.random.key_data(key).tolist(),
    'rows': inputs.sampler(4).tolist(),
  }
  poisoned()
  assert 'after training' in loop.train(config, workdir)


@pytest.mark.parametrize('log_every', [1, 5])
def test_run_skips(tmp_path, poisoned, log_every, monkeypatch):
  del poisoned
  said: list[str] = []
  say = lambda self, text: said.append(text)
  monkeypatch.setattr(progress.Progress, 'say', say)
  workdir = tmp_path / 'run'
  loop.train(small(nonfinite='skip', log_every=log_every), workdir)
  assert sum('step 5 was not finite' in text for text in said) == 1
  assert [p.name for p in workdir.glob('nonfinite_*')] == ['nonfinite_5.json']

  def refuse(constant):
    raise ValueError(constant)

  records = [
    json.loads(line, parse_constant=refuse)
    for line in (workdir / 'metrics.jsonl').read_text().splitlines()
  ]
  records = {r['step']: r for r in records if r['kind'] == 'train'}
  assert records[5]['loss'] is None
  assert records[6]['loss'] is not None
  skipped = {step: r['skipped'] for step, r in records.items()}
  assert skipped == {step: float(step >= 5) for step in skipped}
