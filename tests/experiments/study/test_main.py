import json

import numpy as np
import pytest

from experiments.study import __main__ as study
from experiments.study import features, images, intervals, runner, search
from tests.support import small_study

ARMS = ['--arms', 'sup_con+alone', '--split', 'B', '--regime', 'a128']


@pytest.fixture
def place(tmp_path, monkeypatch):
  """Options for a folder with results, whose runs cost nothing."""
  ran = []

  class Runner:
    def __init__(self, data):
      del data
      self.about = {'images': 'i', 'weights': 'w'}

    def run(self, job, ranking):
      ran.append(job)
      rng = np.random.default_rng(len(ran))
      classes = {
        k: rng.integers(0, 9000, 6).tolist()
        for k in ('map@r', 'map_subgroup', 'recall@1', 'r_precision')
      }
      more = {'ranking': ranking, 'trees': {}, 'counts': [5] * 6}
      more['per_class'] = classes
      return small_study.outcome(rng.uniform(), **more if ranking else {})

  monkeypatch.setattr(features, 'read', lambda *_: None)
  monkeypatch.setattr(runner, 'Runner', Runner)
  monkeypatch.setattr(runner, 'share_programs', lambda: None)
  monkeypatch.setattr(intervals, 'RESAMPLES', 100)
  small_study.search_less(monkeypatch, points=4, kept=2)
  return ['--results', str(tmp_path)], ran


def lines(options):
  return [
    json.loads(line)
    for path in sorted(study.pathlib.Path(options[1]).glob('*.jsonl'))
    for line in path.read_text().splitlines()
  ]


def test_icons_are_searched_with_lines_of_their_own(place, tmp_path):
  options, ran = place
  arguments = [*ARMS[:2], '--split', 'icons', '--regime', 'a128', *options]
  assert study.main(['search', *arguments]) == 0
  assert {job.split for job in ran} == {'icons'}
  assert [p.name for p in tmp_path.iterdir()] == ['icons-a128-sup_con.jsonl']


def test_search_that_is_over_runs_nothing_again(place):
  options, ran = place
  assert study.main(['search', *ARMS, *options]) == 0
  number = len(ran)
  assert number == len(set(ran)) == len(lines(options)) > 10
  assert study.main(['search', *ARMS, *options]) == 0
  assert len(ran) == number


def test_search_goes_on_where_it_stopped(place):
  options, ran = place
  study.main(['search', *ARMS, *options])
  whole = list(ran)
  path = next(study.pathlib.Path(options[1]).glob('*.jsonl'))
  kept = path.read_text().splitlines(keepends=True)[:5]
  path.write_text(''.join(kept) + '{"regime":"a1')
  ran.clear()
  study.main(['search', *ARMS, *options])
  assert not set(ran) & set(whole[:5])


def test_runs_of_other_images_are_not_mixed(place, capsys):
  options, ran = place
  study.main(['search', *ARMS, *options])
  path = next(study.pathlib.Path(options[1]).glob('*.jsonl'))
  kept = path.read_text().splitlines(keepends=True)[:5]
  path.write_text(''.join(kept))
  ran.clear()
  path.write_text(path.read_text().replace('"images":"i"', '"images":"e"'))
  assert study.main(['search', *ARMS, *options]) == 2
  assert 'cannot be compared' in capsys.readouterr().err and not ran


def test_no_time_runs_nothing(place):
  options, ran = place
  assert study.main(['search', *ARMS, *options, '--minutes', '0']) == 0
  assert not ran


def test_test_needs_selection(place, capsys):
  options, ran = place
  assert study.main(['test', *ARMS, *options]) == 2
  assert 'not selected yet' in capsys.readouterr().err and not ran


def test_report_tells_what_was_run(place, tmp_path):
  options, ran = place
  both = ['--arms', 'sup_con+alone', 'sup_con+official']
  study.main(['search', *both, *options])
  study.main(['front', *ARMS, *options])
  study.main(['test', *both, *options])
  out = tmp_path / 'RESULTS.md'
  assert study.main(['report', *options, '--out', str(out)]) == 0
  text = out.read_text()
  assert f'{len(ran)} runs' in text and 'Nothing yet about the claim' in text
  assert 'sup_con+official less sup_con+alone' in text
  assert (tmp_path / 'front.png').exists() and 'forest.png' in text
  assert study.main(['report', *options, '--out', str(out)]) == 0
  assert out.read_text() == text


def test_report_of_nothing(tmp_path, capsys):
  options = ['--results', str(tmp_path), '--out', str(tmp_path / 'a.md')]
  assert study.main(['report', *options]) == 2
  assert 'holds no runs' in capsys.readouterr().err


def test_unknown_arm_is_told(place, capsys):
  options, _ = place
  assert study.main(['search', '--arms', 'sup_con', *options]) == 2
  assert 'unknown' in capsys.readouterr().err


def test_arm_that_needs_frozen_features_is_refused_for_a_network(place, capsys):
  options, ran = place
  wanted = ['--arms', 'sup_con+happier', '--regime', 'b1']
  assert study.main(['search', *wanted, *options]) == 2
  assert 'told of frozen features' in capsys.readouterr().err and not ran


def test_network_reads_images_and_no_features(place, monkeypatch):
  options, ran = place
  monkeypatch.setattr(images, 'load', lambda: None)
  monkeypatch.setattr(features, 'read', lambda *_: 1 / 0)
  wanted = ['--arms', 'sup_con+alone', '--regime', 'b1']
  assert study.main(['search', *wanted, *options]) == 0
  assert {job.regime for job in ran} == {'b1'}


def test_trained_blocks_start_from_another_regime(place, monkeypatch, capsys):
  options, ran = place
  read = []
  monkeypatch.setattr(features, 'read', lambda *given: read.append(given))
  # The base loss alone is selected in neither regime.
  arm = ['--arms', 'sup_con+official']
  wanted = [*arm, '--regime', 'c']
  assert study.main(['search', *wanted, *options]) == 2
  assert 'of regime a128' in capsys.readouterr().err and not ran
  study.main(['search', *arm, *options])
  ran.clear()
  read.clear()
  assert study.main(['search', *wanted, *options]) == 0
  assert {job.regime for job in ran} == {'c'}
  assert read == [(study.TOKENS, 2)]
  assert study.main(['test', *wanted, *options]) == 0
  assert [job.seed for job in ran if job.fold == 'test'] == [0, 1, 2, 3, 4]
  out = study.pathlib.Path(options[1]) / 'RESULTS.md'
  assert study.main(['report', *options, '--out', str(out)]) == 0
  assert '| B, c | 16 | 1 | 1 | 1 |' in out.read_text()


def test_regime_without_a_search_is_tested_and_reported(place, monkeypatch):
  options, ran = place
  monkeypatch.setattr(images, 'load', lambda: None)
  arm = ['--arms', 'sup_con+alone', '--regime']
  assert study.main(['test', *arm, 'b3', *options]) == 2
  assert study.main(['search', *arm, 'b1', *options]) == 0
  ran.clear()
  assert study.main(['search', *arm, 'b3', *options]) == 0 and not ran
  assert study.main(['test', *arm, 'b3', *options]) == 0
  assert {(job.regime, job.fold) for job in ran} == {('b3', 'test')}
  out = study.pathlib.Path(options[1]) / 'RESULTS.md'
  assert study.main(['report', *options, '--out', str(out)]) == 0
  assert '| B, b3 | 14 | 1 | 1 | 1 |' in out.read_text()


def test_missing_tokens_say_what_makes_them(tmp_path, capsys, monkeypatch):
  monkeypatch.setattr(search, 'pending', lambda *_: ['job'])
  options = ['--features', str(tmp_path / 'no.npz'), '--regime', 'c']
  arguments = [*ARMS[:2], *options, '--results', str(tmp_path)]
  assert study.main(['search', *arguments]) == 2
  told = capsys.readouterr().err
  assert 'python -m experiments.study tokens --weights FILE' in told


def test_commands_of_the_help_can_be_pasted(capsys):
  with pytest.raises(SystemExit):
    study.main(['--help'])
  shown = capsys.readouterr().out
  assert ' \\\n' in shown and '\\\\' not in shown
