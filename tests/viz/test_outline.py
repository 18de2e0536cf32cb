"""The hierarchy as text."""

import io
import itertools

import numpy as np
import pytest
import rich.console

from hier_jax import evaluation
from hier_jax.errors import UserError
from hier_jax.evaluation.collection import Collection
from hier_jax.evaluation.tree import formats
from hier_jax.viz.outline import outline

# Two proxies, two items about each, and the root between.
PROXIES = np.array([[0.6, 0.0], [-0.6, 0.0], [0.02, 0.0]])
ITEMS = np.array([[0.8, 0.1], [0.8, -0.1], [-0.8, 0.1], [-0.7, 0.0]])


def planted(**options):
  options = {
    'ids': ('lion', 'tiger', 'wolf', 'fox'),
    'labels': np.array([0, 0, 1, 1]),
    'classes': ('cats', 'dogs'),
    'proxies': PROXIES,
    **options,
  }
  return Collection(ITEMS, 1.0, **options)


def shown(text, width=100):
  console = rich.console.Console(file=io.StringIO(), width=width)
  console.print(text)
  return console.file.getvalue().splitlines()


def test_nodes_have_classes_members_and_typical_images():
  made = outline(planted())
  found = [line.strip('└├─│ ') for line in shown(made.text)]
  root, *below = found
  assert root.startswith('proxy 2: cats (50 %), 4 images: ')
  assert sorted(below) == [
    'proxy 0: cats (100 %), 2 images: cats',
    'proxy 1: dogs (100 %), 2 images: dogs',
  ]
  assert made.tree.names == ('lion', 'tiger', 'wolf', 'fox')
  pairs = np.array(list(itertools.combinations(range(4), 2)))
  deep = made.tree.depth[made.tree.lca(*pairs.T)] > 0
  assert pairs[deep].tolist() == [[0, 1], [2, 3]]


def test_the_most_typical_images_come_first():
  made = outline(planted(labels=None, classes=None))
  below = [line.partition(': ')[2] for line in shown(made.text)[1:]]
  # The fox is nearer to their proxy than the wolf.
  assert sorted(below) == ['2 images: fox, wolf', '2 images: lion, tiger']


def test_names_are_text():
  hostile = planted(
    classes=('[bold]x[/bold]', 'a\nb\x1b[31m'), title='$\\frac$ [red]'
  )
  lines = shown(outline(hostile).text)
  assert len(lines) == 3
  assert any('[bold]x[/bold]' in line for line in lines)
  assert not any('\x1b' in line for line in lines)


def test_what_lies_deeper_is_counted():
  # Of curvature 0 there are no proxies, and linkage makes pairs of pairs.
  rows = np.arange(16.0)[:, None] ** 3
  made = outline(Collection(rows, 0, ids=tuple(map(str, range(16)))), depth=1)
  assert 'linkage' in made.note
  assert any(
    line.strip('└├─│ ').startswith('... ') for line in shown(made.text)
  )


def test_one_image():
  one = Collection(ITEMS[:1], 1.0, ids=('lion',))
  assert 'lion' in '\n'.join(shown(outline(one).text))


def test_bad_input():
  with pytest.raises(UserError, match='`depth` is 0'):
    outline(planted(), depth=0)
  with pytest.raises(UserError, match="is 'x'; expected one of"):
    outline(planted(), source='x')
  with pytest.raises(UserError, match='no hierarchical proxies'):
    outline(planted(proxies=None), source='proxies')


def test_a_tree_of_it_is_written_and_read(tmp_path):
  made = outline(planted()).tree
  evaluation.write_tree(made, tmp_path / 'a.json')
  again = formats.read_json(tmp_path / 'a.json')
  np.testing.assert_array_equal(again.parent, made.parent)
