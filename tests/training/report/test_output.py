"""A report as files."""

import json
import sys

import pytest

from hier_jax.errors import UserError
from hier_jax.training.logs import names
from hier_jax.training.report import output, summary
from hier_jax.training.report import runs as runs_lib
from tests.support import finished_runs


@pytest.fixture
def three(tmp_path):
  return finished_runs.three(tmp_path / 'study')


def test_report_is_written_whole(three, tmp_path):
  finished_runs.make(three / 'other', 0.8, **{'loss.hier_weight': 0.0})
  runs = runs_lib.load([three])
  out = tmp_path / 'new' / 'out'
  text = output.as_markdown(summary.summarize(runs))
  output.write(runs, out)
  assert '## Time' not in text
  for line in (
    '| run | system | seeds | R@1 | R@2 | MAP@R |',
    '| hier_weight=0.5 | before training | 3 | 20.00 ± 0.00 | 20.00 ± 0.00 |',
    '| hier_weight=0.5 | after training | 3 | 60.00 ± 10.00 | 60.00 ± 10.00 |',
    '| hier_weight=0.5 | R@1 | 60.00 | 10.00 | 34.63 to 81.31 | 50.00 | 60.00',
    '| hier_weight=0.0 | R@1 | 80.00 |  |  | 80.00 |  |  |',
  ):
    assert line in text, line
  files = ['curves.png', 'report.json', 'report.md']
  assert sorted(p.name for p in out.iterdir()) == files
  stored = json.loads((out / 'report.json').read_text())
  assert stored == json.loads(json.dumps(summary.summarize(runs)))
  assert (out / 'report.md').read_text().startswith(text)
  first = (out / 'curves.png').read_bytes()
  assert first.startswith(b'\x89PNG')
  output.write(runs, out)
  assert (out / 'curves.png').read_bytes() == first


@pytest.mark.parametrize('shift', [0.0, 0.01])
def test_ranking_by_cosine_is_shown_where_a_seed_has_another(three, shift):
  for folder in three.iterdir():
    path = folder / 'results.json'
    found = json.loads(path.read_text())
    after = found[names.TRAINED]
    moved = shift if folder.name == 'run0' else 0.0
    after |= {'cosine/map@r': after['map@r'] + moved}
    path.write_text(json.dumps(found))
  text = output.as_markdown(summary.summarize(runs_lib.load([three])))
  assert ('COSINE/MAP@R' in text) == bool(shift)


def test_without_matplotlib_its_extra_is_named(three, monkeypatch, tmp_path):
  monkeypatch.setitem(sys.modules, 'matplotlib', None)
  with pytest.raises(UserError, match=r"pip install 'hier_jax\[plots\]'"):
    output.write(runs_lib.load([three]), tmp_path / 'out')
  assert not (tmp_path / 'out').exists()


def test_a_folder_that_cannot_be_written_to_is_named(three, tmp_path):
  (tmp_path / 'file').write_text('')
  with pytest.raises(UserError, match=r'file/curves.png lies below'):
    output.write(runs_lib.load([three]), tmp_path / 'file')
