"""Taxonomies from files and arrays, and every way not to be a tree."""

import tracemalloc

import numpy as np
import pytest

from hier_jax.errors import UserError
from hier_jax.evaluation.taxonomy import Taxonomy

#            root
#      animal      plant     stone
#    cat   bird     tree
#  lion tabby owl    oak
WIDE = """species,kingdom,family
lion,animal,cat
tabby,animal,cat
owl,animal,bird
oak,plant,tree
stone,,
"""
EDGES = """child,parent
animal,life
plant,life
stone,life
cat,animal
bird,animal
tree,plant
lion,cat
tabby,cat
owl,bird
oak,tree
"""
NAMES = ['lion', 'tabby', 'owl', 'oak', 'stone']
# Of the classes in the order of NAMES.
LCA_DEPTH = [
  [3, 2, 1, 0, 0],
  [2, 3, 1, 0, 0],
  [1, 1, 3, 0, 0],
  [0, 0, 0, 3, 0],
  [0, 0, 0, 0, 1],
]
DISTANCE = [
  [0, 2, 4, 6, 4],
  [2, 0, 4, 6, 4],
  [4, 4, 0, 6, 4],
  [6, 6, 6, 0, 4],
  [4, 4, 4, 4, 0],
]


def from_text(tmp_path, text):
  path = tmp_path / 'taxonomy.csv'
  path.write_text(text, encoding='utf-8')
  return Taxonomy.from_csv(path)


def from_strings():
  levels = np.array([row.split(',')[1:] for row in WIDE.split()[1:]], dtype=str)
  return Taxonomy.from_levels(levels, NAMES)


@pytest.fixture(params=['wide', 'edges', 'blanks', 'strings', 'integers'])
def taxonomy(request, tmp_path):
  if request.param == 'strings':
    return from_strings()
  if request.param == 'integers':
    levels = [[0, 1], [0, 1], [0, 0], [9, 5], [-1, -1]]
    return Taxonomy.from_levels(levels, NAMES)
  text = EDGES if request.param == 'edges' else WIDE
  if request.param == 'blanks':
    text = '\ufeff' + text.replace(',', ' , ').replace('\n', '\r\n\r\n')
  return from_text(tmp_path, text)


def test_depths_and_distances(taxonomy):
  codes = taxonomy.codes(NAMES)
  a, b = codes[:, None], codes
  np.testing.assert_array_equal(taxonomy.lca_depth(a, b), LCA_DEPTH)
  np.testing.assert_array_equal(taxonomy.distance(a, b), DISTANCE)
  # A class is the same as itself at all levels, however high it lies.
  common = np.where(np.eye(5, dtype=bool), 3, LCA_DEPTH)
  np.testing.assert_array_equal(taxonomy.common_levels(a, b), common)
  assert taxonomy.common_levels(a, b).dtype == np.uint8
  np.testing.assert_array_equal(taxonomy.depth[codes], [3, 3, 3, 3, 1])
  assert taxonomy.path.shape == (5, taxonomy.num_levels) == (5, 3)


def test_names(tmp_path):
  wide, edges = from_text(tmp_path, WIDE), from_text(tmp_path, EDGES)
  assert wide.level_names == ('kingdom', 'family', 'species')
  assert edges.level_names == ('level1', 'level2', 'class')
  assert wide.classes == tuple(NAMES)
  assert set(edges.classes) == set(NAMES)
  for taxonomy in (wide, edges):
    lion, stone = taxonomy.codes(['lion', 'stone'])
    names = [taxonomy.node_names[i] for i in taxonomy.path[lion]]
    assert names == ['animal', 'cat', 'lion']
    names = [taxonomy.node_names[i] for i in taxonomy.path[stone]]
    assert names == ['stone', 'stone', 'stone']


def test_tree_of_the_classes(taxonomy):
  parent = taxonomy.parents()
  codes = taxonomy.codes(NAMES)
  assert len(parent) == 5 + 5 + 1
  np.testing.assert_array_equal(np.flatnonzero(parent < 0), [10])

  def ancestors(node):
    return [node, *ancestors(parent[node])] if node >= 0 else []

  ways = [ancestors(code) for code in codes]
  for i in range(5):
    assert len(ways[i]) == taxonomy.depth[codes[i]] + 1
    for j in range(5):
      shared = len(set(ways[i]) & set(ways[j])) - 1
      assert shared == LCA_DEPTH[i][j]


def test_labels_that_differ_only_in_their_accents():
  """Some file systems write accents as letters of their own."""
  taxonomy = Taxonomy.from_levels([['a'], ['a']], ['ch\xe8vre', 'elk'])
  with pytest.raises(UserError, match='how accents are encoded: write both'):
    taxonomy.codes(['elk', 'che\u0300vre'])


def test_labels_of_every_kind():
  taxonomy = Taxonomy.from_levels([[0], [0], [1]], [7, 12, 3])
  for labels in (
    [3, 7, 12, 7],
    np.int16([3, 7, 12, 7]),
    np.float32([3, 7, 12, 7]),
    ['3', '7', '12', '7'],
    np.array([b'3', b'7', b'12', b'7']),
    np.array(['3', 7, '12', 7.0], dtype=object),
  ):
    np.testing.assert_array_equal(taxonomy.codes(labels), [2, 0, 1, 0])


def test_flat():
  taxonomy = Taxonomy.from_levels(np.zeros((3, 0), int))
  assert taxonomy.level_names == ('class',)
  np.testing.assert_array_equal(taxonomy.parents(), [3, 3, 3, -1])
  np.testing.assert_array_equal(taxonomy.distance([0, 0], [0, 2]), [0, 2])


def test_a_class_may_be_called_what_an_ancestor_is():
  taxonomy = Taxonomy.from_levels(
    [['cat'], ['cat'], ['dog']], ['cat', 'x', 'y']
  )
  np.testing.assert_array_equal(taxonomy.lca_depth([0, 0], [1, 2]), [1, 0])
  assert len(taxonomy.parents()) == 3 + 2 + 1


@pytest.mark.parametrize(
  ('labels', 'message'),
  [
    (['lion', 'cow', 'elk', 'cow'], "holds 2 classes: 'cow', 'elk' that"),
    (['lion', 'animal'], r"1 class: 'animal' .*inner nodes: label by classes"),
    (['lion', '', None, 'owl'], 'lacks 2 labels: 1, 2 of 4'),
    ([0.0, np.nan, 2.0], 'lacks 1 label: 1 of 3'),
  ],
)
def test_bad_labels(labels, message):
  with pytest.raises(UserError, match=message):
    from_strings().codes(np.array(labels, dtype=object))


@pytest.mark.parametrize(
  ('text', 'message'),
  [
    ('', 'holds 0 rows'),
    ('class,group\n', 'holds 1 rows'),
    ('class,group\na,x\nb\nc,x,y\n', r'2 lines: 3, 4 without a name or of'),
    ('class,group\n,x\n', '1 line: 2 without a name'),
    ('class,group\na,x\nb,x\na,x\n', "1 class: 'a' more than once"),
    ('class,g,s\na,,x\n', "class 'a' has an empty cell between"),
    (
      'class,g,s\na,x,s\nb,y,s\nc,y,t\nd,z,t\ne,z,u\n',
      r"not a tree: 2 nodes: 's', 't' with several parents .*'x', 'y'",
    ),
    ('class,g,g\na,x,s\n', "1 level: 'g' is named more than once"),
    ('class,\na,x\n', '1 level: 1 of 2 .* lacks a name'),
    ('class, ,g\na,x,y\n', '1 level: 1 of 3 .* lacks a name'),
    ('class;g\na;x\nb;y\n', "has ';' in every line and no commas"),
    ('class\tg\na\tx\n', r"has '\\t' in every line and no commas"),
    ('Parent,child\nr,a\n', 'expected child,parent, the child first'),
    ('child,parent\na,r\nb,r\na,b\n', "1 node: 'a' with several parents"),
    ('child,parent\na,r\nb,r\na,r\n', "edges of 1 node: 'a' stand twice"),
    (
      'child,parent\na,b\nb,c\nc,a\nd,r\n',
      "3 nodes: 'a', 'b', 'c' are their own ancestors",
    ),
    ('child,parent\na,a\n', "1 node: 'a' are their own ancestors"),
    ('child,parent\na,r\nb,s\n', "2 nodes: 'r', 's' have no parent"),
    ('child,parent\na,r\nb,\n', "2 nodes: 'b', 'r' have no parent"),
    ('child,parent\nr,\n', 'no class below its root'),
  ],
)
def test_bad_files(tmp_path, text, message):
  with pytest.raises(UserError, match=message):
    from_text(tmp_path, text)


def test_root_may_be_a_row_of_its_own(tmp_path):
  rows = 'Child,Parent\na,x\nb,x\nc,r\nx,r\nr,\n'
  taxonomy = from_text(tmp_path, rows)
  assert taxonomy.classes == ('a', 'b', 'c')
  a, b, c = range(3)
  np.testing.assert_array_equal(taxonomy.distance([a, a], [b, c]), [2, 3])


def test_file_that_cannot_be_read(tmp_path):
  with pytest.raises(UserError, match=r'gone\.csv cannot be read as CSV'):
    Taxonomy.from_csv(tmp_path / 'gone.csv')
  (tmp_path / 'latin.csv').write_bytes(b'class,group\nch\xe8vre,x\n')
  with pytest.raises(UserError, match=r'latin\.csv cannot be read as CSV'):
    Taxonomy.from_csv(tmp_path / 'latin.csv')


@pytest.mark.parametrize('upward', [True, False])
def test_too_many_levels(tmp_path, upward):
  """Found before the ways to the root are written out, which is quadratic."""
  chain = [f'{i + 1},{i}\n' for i in range(20_000)]
  edges = ''.join(reversed(chain) if upward else chain)
  tracemalloc.start()
  with pytest.raises(UserError, match='more than 255 levels; expected at most'):
    from_text(tmp_path, 'child,parent\n' + edges)
  peak = tracemalloc.get_traced_memory()[1]
  tracemalloc.stop()
  assert peak < 100 * len(edges)
  deepest = from_text(tmp_path, 'child,parent\n' + ''.join(chain[:255]))
  assert deepest.num_levels == 255


@pytest.mark.parametrize(
  ('arguments', 'message'),
  [
    ({'levels': [0, 1]}, r'`levels` is int64 \(2,\)'),
    ({'levels': [[0.5]]}, '`levels` is float64'),
    ({'levels': np.zeros((0, 1), int)}, r'\(0, 1\)'),
    ({'levels': [[0], [1]], 'classes': ['a']}, 'holds 1 names for the 2 rows'),
    ({'levels': [[0], [1]], 'classes': ['a', 'a']}, "1 class: 'a' more than"),
    ({'levels': [[0], [1]], 'level_names': ['g']}, 'holds 1 names; expected 2'),
    ({'levels': [[0, 5], [1, 5]]}, r"1 node: '5' with several parents"),
    ({'levels': [[0, 5], [-1, 5]]}, 'an empty cell between others'),
  ],
)
def test_bad_arrays(arguments, message):
  with pytest.raises(UserError, match=message):
    Taxonomy.from_levels(**arguments)


def test_labels_stand_for_the_classes_they_name():
  taxonomy = Taxonomy.from_levels([['a'], ['a'], ['b']], ['x', 'y', 'z'])
  made = taxonomy.labeled({7: 'z', 3: 'x', 5: 'y'})
  rows = made.codes([3, 5, 7])
  np.testing.assert_array_equal(made.distance(rows[0], rows), [0, 2, 4])
  with pytest.raises(UserError, match="holds 1 class: 'w' that"):
    taxonomy.labeled({7: 'w'})


def test_a_path_may_begin_with_a_home(tmp_path, monkeypatch):
  monkeypatch.setenv('HOME', str(tmp_path))
  (tmp_path / 'x.csv').write_bytes(b'class,"gr\r\noup"\r\nlion,cat\r\n')
  assert Taxonomy.from_csv('~/x.csv').level_names == ('gr\r\noup', 'class')
