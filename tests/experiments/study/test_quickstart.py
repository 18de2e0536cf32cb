"""The search for the quickstart's settings, and README's table of it."""

import json

import pytest

from experiments.study import quickstart
from hier_jax.data import datasets
from hier_jax.errors import UserError
from hier_jax.models import resnet
from tests.support import places, training_data

TINY = {
  'model.backbone': 'resnet_test',
  'model.image_size': 8,
  'model.embedding_dim': 8,
  'loss.hier_weight': 0.0,
  'data.batch_size': 12,
  'data.num_threads': 1,
  'data.cache': 'off',
  'data.short_side': None,
  'eval.pixels': False,
  'epochs': 2,
}


def test_trial_changes_the_quickstart_and_holds_classes_out():
  config = quickstart.config_of(
    {'optim.lr': 0.5, 'model.mean': [0.0, 0.5, 1.0], 'resnet': {'pool': 'avg'}}
  )
  assert (config.optim.lr, config.model.mean) == (0.5, (0.0, 0.5, 1.0))
  assert config.eval.hold_out == 5
  assert config.model.backbone == 'resnet_thin_blur'


def test_stages_of_a_trial_are_the_backbones_while_it_runs():
  before = resnet.VARIANTS['resnet_thin_blur']
  trial = {'resnet': {'stages': [[8, 1, 1]]}}
  with quickstart.backbone(trial):
    inside = resnet.VARIANTS['resnet_thin_blur']
    assert inside == {**before, 'stages': ((8, 1, 1),)}
  assert resnet.VARIANTS['resnet_thin_blur'] == before


@pytest.mark.slow
def test_trial_validates_on_classes_that_it_does_not_train_on(monkeypatch):
  made = training_data.splits()
  asked = []
  rank = quickstart.retrieval.retrieval_metrics

  def ranked(z, labels, **options):
    asked.append(labels)
    return rank(z, labels, **options)

  monkeypatch.setattr(datasets, 'load', lambda name, **_: made)
  monkeypatch.setattr(quickstart.retrieval, 'retrieval_metrics', ranked)
  monkeypatch.setattr(quickstart, '_HOLD_OUT', 4)
  record = quickstart.run(TINY)
  _, val = datasets.hold_out(made['train'], 4)
  for labels in asked:
    assert sorted(set(labels)) == sorted(val.numbers)
  assert record['steps'] == 2 * ((len(made['train']) - len(val)) // 12)
  for ranking in ('hyperbolic', 'cosine'):
    assert 0 < record[ranking]['recall@1'] <= 100


def test_search_goes_on_where_it_stopped(tmp_path, monkeypatch, capsys):
  ran = []

  def run(trial):
    ran.append(trial)
    return {'steps': 1}

  monkeypatch.setattr(quickstart, 'run', run)
  path = tmp_path / 'found.jsonl'
  quickstart.search([{'seed': 0}], path)
  quickstart.search([{'seed': 0}, {'seed': 1}], path)
  assert ran == [{'seed': 0}, {'seed': 1}]
  lines = [json.loads(line) for line in path.read_text().splitlines()]
  assert lines == [{'trial': trial, 'steps': 1} for trial in ran]


def test_results_of_seeds_are_gathered(tmp_path):
  metrics = dict.fromkeys(quickstart._METRICS, 0.5)
  table = dict.fromkeys(
    ('raw pixels', 'before training', 'after training'), metrics
  )
  parts = 'data', 'compile', 'step', 'evaluation', 'checkpoint'
  timing = {'kind': 'timing', 'step': 1, 'seconds': 10.0} | {
    f'share/{part}': 0.2 for part in parts
  }
  for seed in (0, 1):
    folder = tmp_path / f'seed{seed}'
    folder.mkdir()
    (folder / 'results.json').write_text(json.dumps(table))
    (folder / 'timing.jsonl').write_text(2 * (json.dumps(timing) + '\n'))
  found = quickstart.gather(tmp_path)
  assert found['seconds'] == {'0': 20, '1': 20}
  assert found['seconds_waiting_for_data'] == {'0': 4.0, '1': 4.0}
  assert found['seeds'] == {'0': table, '1': table}
  assert quickstart.rows(found) == [
    f'| {name} | 50.0 | 50.0 | 50.0 | 50.0 | 50.0 |'
    for name in (
      'raw pixels',
      'before training (seed 0)',
      'after training, seed 0',
      'seed 1',
    )
  ]


def test_folder_without_runs_is_refused(tmp_path):
  with pytest.raises(UserError, match=r'holds no seed\*/results\.json.*--seed'):
    quickstart.gather(tmp_path)


def test_unknown_verb_is_refused(capsys):
  with pytest.raises(SystemExit):
    quickstart.main(['tune', 'file'])
  assert "'tune' (choose from" in capsys.readouterr().err


def test_readme_shows_the_results():
  found = json.loads(quickstart.RESULTS.read_text())
  text = (places.ROOT / 'README.md').read_text()
  for row in quickstart.rows(found):
    assert f'\n{row}\n' in text


@pytest.mark.parametrize('line', ['{"a":', '[1]', '3'])
def test_broken_trials_are_named(line, tmp_path, capsys):
  path = tmp_path / 'trials.jsonl'
  path.write_text('{}\n\n' + line + '\n')
  assert quickstart.main(['search', str(path)]) == 2
  assert f'line 3 of {path} is' in capsys.readouterr().err
  assert quickstart.main(['search', str(tmp_path / 'gone')]) == 2
  assert 'cannot be read' in capsys.readouterr().err
