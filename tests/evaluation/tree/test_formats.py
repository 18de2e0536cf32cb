"""Files of trees: read back, by hand, and with names that need quoting."""

import dataclasses
import html
import json
import os
import pathlib
import re
import sys
import tracemalloc
import xml.etree.ElementTree

import numpy as np
import pytest

from hier_jax.errors import UserError
from hier_jax.evaluation.tree.formats import (
  read_json,
  to_dot,
  to_graphml,
  to_json,
  to_networkx,
  to_newick,
  write_tree,
)
from hier_jax.evaluation.tree.linkage import linkage_tree
from hier_jax.evaluation.tree.proxies import proxy_tree
from hier_jax.evaluation.tree.structure import Tree
from tests.support import trees
from tests.support.planted_trees import in_ball

MAKERS = {
  '.json': to_json,
  '.nwk': to_newick,
  '.newick': to_newick,
  '.graphml': to_graphml,
  '.dot': to_dot,
  '.gv': to_dot,
}
# 0 and 1 below proxy 5, which is below the root with 2.
SMALL = Tree(
  np.array([3, 3, 4, 4, -1], np.int32),
  ('a', 'b c', 'd'),
  proxy=np.array([-1, -1, -1, 5, -1], np.int32),
  radius=np.array([3.0, 3.5, 2.0, 1.0, 0.0]),
  length=np.array([2.0, 2.5, 1e-7, 1.0, 0.0]),
)
NAMES = [
  "it's",
  'a,b;c:d',
  ' blanks at both ends ',
  '(round) [square] {curly}',
  'under_score',
  'back\\slash\\n\\',
  '"double"',
  'R&B &amp; &lt;b&gt; <b>',
  '\N{SQUID}\N{ZERO WIDTH JOINER}\N{VARIATION SELECTOR-16}',
  'Gr\u00fc\u00dfe \u4f60\u597d \u0645\u0631\u062d\u0628\u0627',
  '',
  "'",
  '-1.5e3',
  'proxy 1',
]


def awkward():
  rng = np.random.default_rng(0)
  n = len(NAMES)
  items, proxies = in_ball(rng, n, 4, low=0.7), in_ball(rng, 9, 4)
  return proxy_tree(items, proxies, c=1.0, names=NAMES)


def assert_same(tree, other):
  assert tree.names == other.names
  for field in ('parent', 'proxy', 'radius', 'height', 'length'):
    mine, theirs = getattr(tree, field), getattr(other, field)
    if mine is not None:
      np.testing.assert_array_equal(mine, theirs, err_msg=field)
    assert (mine is None) == (theirs is None), field


def shape(tree, labels, lengths):
  """The tree as nested tuples (label, length, children), children sorted."""

  def of(node):
    children = [of(int(v)) for v in np.flatnonzero(tree.parent == node)]
    return labels[node], lengths[node], tuple(sorted(children, key=repr))

  return of(int(np.argmin(tree.parent)))


def labels_of(tree):
  names = tree.names or [str(i) for i in range(tree.num_leaves)]
  rows = [-1] * len(tree.parent) if tree.proxy is None else tree.proxy
  inner = [f'proxy {r}' if r >= 0 else '' for r in rows]
  return [*names, *inner[tree.num_leaves :]]


def parse_newick(text):
  """Nested tuples of `shape`, by the grammar of the 1990 standard."""
  tokens = re.findall(
    r"\s+|'(?:[^']|'')*'|[(),:;]|[^\s()\[\]':;,]+", text.removesuffix('\n')
  )
  assert ''.join(tokens) + '\n' == text
  tokens.reverse()

  def subtree():
    children = []
    if tokens[-1] == '(':
      while tokens.pop() in '(,':
        children.append(subtree())
        assert tokens[-1] in '),'
        if tokens[-1] == ')':
          tokens.pop()
          break
    label, length = '', None
    if tokens[-1] not in list('),:;('):
      label = tokens.pop()
      if label[0] == "'":
        label = label[1:-1].replace("''", "'")
      else:
        assert not label.isspace()
        label = label.replace('_', ' ')
    if tokens[-1] == ':':
      tokens.pop()
      length = float(tokens.pop())
    return label, length, tuple(sorted(children, key=repr))

  tree = subtree()
  assert tokens == [';']
  return tree


def parse_dot(text):
  """Labels by node, and pairs (parent, child)."""
  first, *lines, last = text.removesuffix('\n').split('\n')
  assert (first, last) == ('digraph tree {', '}')
  labels, edges = {}, []
  for line in lines[2:]:
    edge = re.fullmatch(r'  (\d+) -> (\d+);', line)
    if edge:
      edges.append((int(edge[1]), int(edge[2])))
      continue
    found = re.fullmatch(
      r'  (\d+) \[label="((?:[^"\\]|\\.)*)"(?:, shape=(\w+))?\];', line
    )
    label = html.unescape(re.sub(r'\\(.)', r'\1', found[2]))
    labels[int(found[1])] = label
  return labels, edges


# ---- by hand ----------------------------------------------------------------


def test_json_by_hand():
  assert to_json(SMALL) == (
    '{"format": "hier_jax tree 1", "num_leaves": 3, "nodes": [\n'
    '{"id": 0, "parent": 3, "radius": 3.0, "length": 2.0, "name": "a"},\n'
    '{"id": 1, "parent": 3, "radius": 3.5, "length": 2.5, "name": "b c"},\n'
    '{"id": 2, "parent": 4, "radius": 2.0, "length": 1e-07, "name": "d"},\n'
    '{"id": 3, "parent": 4, "proxy": 5, "radius": 1.0, "length": 1.0},\n'
    '{"id": 4, "parent": null, "radius": 0.0, "length": 0.0}\n'
    ']}\n'
  )


def test_newick_by_hand():
  assert to_newick(SMALL) == "(d:1e-07,(a:2.0,'b c':2.5)'proxy 5':1.0);\n"
  assert to_newick(Tree(np.array([2, 2, -1]))) == '(0,1);\n'
  assert to_newick(Tree(np.array([-1]))) == '0;\n'
  assert to_newick(Tree(np.array([1, 2, -1]))) == '((0));\n'


def test_dot_by_hand():
  assert to_dot(SMALL).split('\n') == [
    'digraph tree {',
    '  rankdir=LR;',
    '  node [shape=ellipse];',
    '  0 [label="a", shape=box];',
    '  1 [label="b c", shape=box];',
    '  2 [label="d", shape=box];',
    '  3 [label="proxy 5"];',
    '  4 [label="", shape=point];',
    '  3 -> 0;',
    '  3 -> 1;',
    '  4 -> 2;',
    '  4 -> 3;',
    '}',
    '',
  ]


def test_graphml_by_hand():
  lines = to_graphml(SMALL).split('\n')
  assert lines[:4] == [
    '<?xml version="1.0" encoding="utf-8"?>',
    '<graphml xmlns="http://graphml.graphdrawing.org/xmlns">',
    '  <key id="label" for="node" attr.name="label" attr.type="string"/>',
    '  <key id="proxy" for="node" attr.name="proxy" attr.type="int"/>',
  ]
  assert lines[10] == (
    '    <node id="3"><data key="label">proxy 5</data>'
    '<data key="proxy">5</data><data key="radius">1.0</data></node>'
  )
  assert lines[14] == (
    '    <edge source="4" target="2"><data key="length">1e-07</data></edge>'
  )


def test_networkx_by_hand():
  networkx = pytest.importorskip('networkx')
  graph = to_networkx(SMALL)
  assert list(graph.edges) == [(3, 0), (3, 1), (4, 2), (4, 3)]
  assert graph.nodes[1] == {'label': 'b c', 'radius': 3.5}
  assert graph.nodes[3] == {'label': 'proxy 5', 'proxy': 5, 'radius': 1.0}
  assert graph.edges[4, 2] == {'length': 1e-7}
  assert networkx.is_arborescence(graph)


# ---- round trips ------------------------------------------------------------


@pytest.mark.parametrize(
  'tree',
  [
    SMALL,
    awkward(),
    linkage_tree(np.random.default_rng(1).normal(size=(20, 3))),
    Tree(np.array([-1], np.int32)),
    # Inner nodes in no order.
    Tree(np.array([4, 5, 3, 5, 3, -1], np.int32), ('x', 'y', 'z')),
  ],
  ids=['small', 'awkward', 'linkage', 'one', 'unordered'],
)
def test_round_trips(tree, tmp_path):
  write_tree(tree, tmp_path / 'tree.json')
  assert_same(read_json(tmp_path / 'tree.json'), tree)

  labels = labels_of(tree)
  lengths = [None] * len(labels)
  if tree.length is not None:
    above = zip(tree.parent, tree.length, strict=True)
    lengths = [None if p < 0 else x for p, x in above]
  assert parse_newick(to_newick(tree)) == shape(tree, labels, lengths)

  edges = {(int(p), i) for i, p in enumerate(tree.parent) if p >= 0}
  found, links = parse_dot(to_dot(tree))
  assert found == dict(enumerate(labels)) and set(links) == edges
  assert len(links) == len(edges)


@pytest.mark.parametrize('tree', [SMALL, awkward()], ids=['small', 'awkward'])
def test_graphml_round_trip(tree, tmp_path):
  networkx = pytest.importorskip('networkx')
  write_tree(tree, tmp_path / 'tree.graphml')
  xml.etree.ElementTree.parse(tmp_path / 'tree.graphml')
  graph = networkx.read_graphml(tmp_path / 'tree.graphml', node_type=int)
  expected = to_networkx(tree)
  assert networkx.is_arborescence(graph)
  assert set(graph.edges) == set(expected.edges)
  for node, label in enumerate(labels_of(tree)):
    # An empty text is no text to its reader.
    assert (graph.nodes[node]['label'] or '') == label
    assert graph.nodes[node]['radius'] == tree.radius[node]
  for (parent, child), values in dict(graph.edges).items():
    assert tree.parent[child] == parent
    assert values['length'] == tree.length[child]


def test_a_long_chain():
  size = 20_000
  leaves = size + np.maximum(np.arange(size) - 1, 0)
  inner = np.append(size + np.arange(1, size - 1), -1)
  tree = Tree(np.concatenate([leaves, inner]))
  text = to_newick(tree)
  assert text.startswith('(19999,(19998,') and text.endswith(
    ')' * 19999 + ';\n'
  )
  assert len(json.loads(to_json(tree))['nodes']) == 2 * size - 1
  assert to_dot(tree).count('->') == 2 * size - 2
  assert to_graphml(tree).count('<edge') == 2 * size - 2


@pytest.mark.parametrize('ending', ['.json', '.nwk', '.graphml', '.dot'])
def test_memory_of_writing_is_of_what_a_node_needs(ending, tmp_path):
  size = 6_000
  parent = trees.binary_tree(np.random.default_rng(3), size)
  height = np.arange(2.0 * size - 1)
  names = tuple(f'a name of a leaf {i}' for i in range(size))
  tree = Tree(parent, names, height=height, length=height, radius=height)
  tracemalloc.start()
  write_tree(tree, tmp_path / f'tree{ending}')
  _, peak = tracemalloc.get_traced_memory()
  tracemalloc.stop()
  # A dict a node takes 500 bytes, and its text 150.
  assert peak < 350 * 2 * size


# ---- files ------------------------------------------------------------------


@pytest.mark.parametrize('ending', MAKERS)
def test_equal_trees_make_equal_files(ending, tmp_path):
  tree = awkward()
  lists = Tree(
    tree.parent.tolist(),
    list(tree.names),
    tree.proxy.tolist(),
    tree.radius.tolist(),
  )
  arrays = dataclasses.replace(tree, height=None, length=None)
  paths = [tmp_path / f'{name}{ending}' for name in 'ab']
  for path, same in zip(paths, (lists, arrays), strict=True):
    write_tree(same, str(path))
    assert path.read_text('utf-8') == MAKERS[ending](same)
  first, second = (path.read_bytes() for path in paths)
  assert first == second and first.endswith(b'\n') and b'\r' not in first
  assert sorted(tmp_path.iterdir()) == paths


def test_a_file_stays_whole(tmp_path, monkeypatch):
  path = tmp_path / 'tree.json'
  write_tree(SMALL, path)
  before = path.read_bytes()

  def fail(self, target):
    raise OSError('the disk is full')

  monkeypatch.setattr(pathlib.Path, 'replace', fail)
  with pytest.raises(OSError, match='full'):
    write_tree(awkward(), path)
  assert path.read_bytes() == before
  assert os.listdir(tmp_path) == ['tree.json']


def test_without_networkx(tmp_path, monkeypatch):
  monkeypatch.setitem(sys.modules, 'networkx', None)
  with pytest.raises(UserError, match='pip install networkx'):
    to_networkx(SMALL)
  write_tree(SMALL, tmp_path / 'tree.graphml')
  assert os.listdir(tmp_path) == ['tree.graphml']


def test_bad_paths(tmp_path):
  with pytest.raises(UserError, match=r"ends in '\.xml'; .*'\.nwk'"):
    write_tree(SMALL, tmp_path / 'tree.xml')
  with pytest.raises(UserError, match='nowhere is not a folder'):
    write_tree(SMALL, tmp_path / 'nowhere' / 'tree.json')
  assert not os.listdir(tmp_path)


def edited(change):
  data = json.loads(to_json(SMALL))
  change(data)
  return json.dumps(data)


@pytest.mark.parametrize(
  ('text', 'message'),
  [
    ('{', 'is no JSON'),
    ('[]', 'holds a list and no object'),
    ('{"format": "other"}', 'without "format": "hier_jax tree 1"'),
    (edited(lambda d: d.pop('nodes')), 'no whole tree .*nodes'),
    (edited(lambda d: d['nodes'][0].pop('parent')), 'no whole tree .*parent'),
    (edited(lambda d: d['nodes'].pop(1)), 'ids are not 0, 1, 2'),
    (edited(lambda d: d['nodes'][1].update(parent=1)), 'no whole tree'),
    (edited(lambda d: d['nodes'][1].update(parent='3')), 'no whole tree'),
    (edited(lambda d: d['nodes'][1].update(parent=9)), 'no whole tree'),
    (edited(lambda d: d['nodes'][1].update(radius=np.nan)), '`radius` of node'),
    (edited(lambda d: d['nodes'][1].pop('radius')), 'no whole tree .*radius'),
    (edited(lambda d: d['nodes'][1].pop('name')), 'no whole tree .*name'),
    (edited(lambda d: d.update(num_leaves=2)), 'no whole tree'),
    (edited(lambda d: d.update(nodes=[])), 'no whole tree'),
    (edited(lambda d: d.update(nodes=[1])), 'no whole tree'),
  ],
)
def test_files_that_hold_no_tree(text, message, tmp_path):
  path = tmp_path / 'tree.json'
  path.write_text(text)
  with pytest.raises(UserError, match=message):
    read_json(path)


def test_no_such_file(tmp_path):
  with pytest.raises(UserError, match='does not exist'):
    read_json(tmp_path / 'none.json')
