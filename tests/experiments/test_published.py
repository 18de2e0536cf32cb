"""README's results beside the published ones."""

import json
import math

import pytest

from experiments import published
from hier_jax.errors import UserError
from tests.support import examples

PAGE = (
  '| method | backbone, dimensions | CUB | Cars | SOP | In-Shop |\n'
  '|---|---|---|---|---|---|\n'
  '| HIER | DINO, 384 | 1.5 | 2.5 | 3.5 | 4.5 |\n'
  '| no training | DINO, 384 features | 5.5 | 6.5 | 7.5 | 8.5 |\n'
)


def seeds(*values):
  rows = ('raw pixels', 0.25), ('after training', None)
  return {
    str(seed): {
      name: {'recall@1': fixed or value, 'num_queries': 9}
      for name, fixed in rows
    }
    for seed, value in enumerate(values)
  }


def test_interval_is_students_of_logits():
  values = 0.5, 0.6
  found = published.over_seeds(seeds(*values))['after training']
  a, b = (math.log(v / (1 - v)) for v in values)
  # 12.706 is Student's 97.5 % quantile with one degree of freedom; the standard
  # error of two values is half their difference.
  low, high = ((a + b) / 2 + s * 12.7062 * (b - a) / 2 for s in (-1, 1))
  expected = [1 / (1 + math.exp(-x)) for x in (low, high)]
  assert found['mean'] == pytest.approx(0.55)
  assert [found['low'], found['high']] == pytest.approx(expected, rel=1e-5)


def test_rows_say_what_is_ours_and_what_was_not_run():
  lines = published.rows(seeds(0.5, 0.5, 0.5001), PAGE)
  assert lines[2].startswith('| Emoji, the quickstart, 3 seeds | 50.0 | none |')
  assert '| 25.0 | none |' in lines[3]
  assert '| **not run** | 1.5 / 2.5 / 3.5 / 4.5 |' in lines[4]
  assert '| **not run** | 5.5 / 6.5 / 7.5 / 8.5 |' in lines[5]


def test_interval_is_shown_where_seeds_differ():
  line = published.rows(seeds(0.5, 0.6), PAGE)[2]
  assert '| 55.0 (' in line and ' to ' in line


def test_one_seed_has_no_interval():
  assert '| 50.0 | none |' in published.rows(seeds(0.5), PAGE)[2]


def test_page_without_the_row_is_named():
  with pytest.raises(UserError, match="no row 'HIER', 'DINO, 384'"):
    published.rows(seeds(0.5), '')


def test_table_takes_the_place_of_the_old_one():
  old = f'a\n\n{published._HEADING[0]}\n| old |\n| old |\n\nb\n'
  new = published.replaced(old, ['| x |', '| y |'])
  assert new == 'a\n\n| x |\n| y |\n\nb\n'
  with pytest.raises(UserError, match='add it'):
    published.replaced('a\n', [])


def test_results_that_are_broken_are_told(tmp_path, monkeypatch, capsys):
  monkeypatch.setattr(published, 'README', tmp_path / 'README.md')
  monkeypatch.setattr(published, 'QUICKSTART', tmp_path / 'quickstart.json')
  for text, why in (('{"seeds"', 'is no JSON'), ('{}', 'has no seeds')):
    published.QUICKSTART.write_text(text)
    assert published.main([]) == 2
    assert why in capsys.readouterr().err
  assert not published.README.exists()


def test_readme_has_what_was_measured_and_published():
  readme = published.README.read_text()
  found = json.loads(published.QUICKSTART.read_text())['seeds']
  page = published.REPRODUCE.read_text()
  message = 'run python -m experiments.published'
  assert published.replaced(readme, published.rows(found, page)) == readme, (
    message
  )


def test_example_prints_what_it_says():
  examples.assert_prints_what_it_says(published.over_seeds, 0)
