"""Trees as files: JSON, Newick, GraphML and DOT.

All are made without recursion, so that a chain of thousands of nodes is no
trouble, and equal trees make equal files.
"""

import json
import os
import pathlib
import re
from typing import Any

import numpy as np

from hier_jax import json_files, paths
from hier_jax.errors import UserError, plain
from hier_jax.evaluation.tree.structure import Tree

_FORMAT = 'hier_jax tree 1'
# Newick labels that need no quotes. An underscore would be read as a blank.
_PLAIN = re.compile(r'[A-Za-z0-9.+-]+')


def write_tree(tree: Tree, path: str | os.PathLike[str]) -> None:
  """Writes a tree in the format that the ending of the path names.

  A file that is there already stays whole until the new one is.

  Args:
    tree: the tree to write; `to_json`, `to_newick`, `to_graphml` and `to_dot`
      say what the file holds.
    path: path of the new file, which ends in .json, .nwk or .newick,
      .graphml, .dot or .gv.

  Raises:
    UserError: another ending, a folder that does not exist, GraphML without
      networkx.

  Example:
    >>> import pathlib, tempfile
    >>> from hier_jax import evaluation
    >>> tree = evaluation.linkage_tree([[0.0], [2.0]], c=0, names=['a', 'b'])
    >>> with tempfile.TemporaryDirectory() as folder:
    ...   path = pathlib.Path(folder, 'tree.nwk')
    ...   evaluation.write_tree(tree, path)
    ...   print(path.read_text().strip())
    (a:2.0,b:2.0);
  """
  path = pathlib.Path(path)
  if path.suffix not in _WRITERS:
    raise UserError(
      f'{path} ends in {path.suffix!r}; expected one of {list(_WRITERS)}'
    )
  if not path.parent.is_dir():
    raise UserError(f'{path.parent} is not a folder; make it first')
  paths.write_text(path, _WRITERS[path.suffix](tree))


def read_json(path) -> Tree:
  """The tree of a file that `write_tree` wrote as JSON.

  Raises:
    UserError: a file that cannot be read or holds no such tree.
  """
  wanted = 'a tree of write_tree'
  try:
    data = json_files.read_object(path, wanted)
  except FileNotFoundError:
    raise UserError(f'{path} does not exist; expected {wanted}') from None
  if data.get('format') != _FORMAT:
    raise UserError(
      f'{path} is JSON without "format": "{_FORMAT}"; expected {wanted}'
    )
  try:
    return _of_records(data['nodes'], data['num_leaves'])
  except (AttributeError, KeyError, TypeError, ValueError) as error:
    raise UserError(
      f'{path} holds no whole tree ({type(error).__name__}:'
      f' {plain(str(error))}); write it again'
    ) from error


def node_labels(tree: Tree) -> list[str]:
  """What the nodes are called.

  Leaves by their names, or numbers where the tree has no names; row 7 of the
  proxies 'proxy 7'; other nodes ''.
  """
  n = tree.num_leaves
  leaves = map(str, range(n)) if tree.names is None else tree.names
  proxy = np.full(len(tree.parent), -1) if tree.proxy is None else tree.proxy
  inner = (f'proxy {row}' if row >= 0 else '' for row in proxy[n:].tolist())
  return [*leaves, *inner]


def to_json(tree: Tree) -> str:
  """A JSON object, a line a node, which `read_json` reads back.

  Its 'format' is 'hier_jax tree 1', 'num_leaves' is n, and 'nodes' is a list in
  the order of the nodes: 'id', the node's number; 'parent', that of its parent,
  null for the root; and, where the tree has them, 'name' (of leaves), 'proxy'
  (of nodes that are one), 'radius', 'height' and 'length', see `Tree`. A flat
  table like this is what d3.stratify takes.
  """
  head = {'format': _FORMAT, 'num_leaves': tree.num_leaves}
  nodes = [json.dumps(node, ensure_ascii=False) for node in _records(tree)]
  return f'{json.dumps(head)[:-1]}, "nodes": [\n' + ',\n'.join(nodes) + '\n]}\n'


def to_newick(tree: Tree) -> str:
  """A Newick tree with `node_labels` and, where there are, lengths of edges.

  References:
    Olsen, Interpretation of the "Newick's 8:45" Tree Format Standard, 1990:
    labels with other signs are quoted, a quote within is doubled.
  """
  root = int(np.argmin(tree.parent))
  labels = [_newick_label(label) for label in node_labels(tree)]
  if tree.length is not None:
    for node, length in enumerate(tree.length.tolist()):
      labels[node] += '' if node == root else f':{length!r}'
  children = _children(tree)
  text, stack = [], [(root, ';\n')]
  while stack:
    node, after = stack.pop()
    below, children[node] = children[node], []
    if not below:
      text.append(labels[node] + after)
      continue
    # Back here once the children are written.
    stack.append((node, after))
    text.append('(')
    ends = [','] * (len(below) - 1) + [')']
    stack.extend(reversed(list(zip(below, ends, strict=True))))
  return ''.join(text)


def to_networkx(tree: Tree):
  """A `networkx.DiGraph` from parents to children.

  Its nodes are the numbers of the nodes, with 'label', see `node_labels`, and
  'proxy', 'radius' and 'height' where the tree has them; edges have 'length'.

  Raises:
    UserError: networkx is not installed.
  """
  networkx = _networkx()
  graph = networkx.DiGraph()
  edges = []
  for record, label in zip(_records(tree), node_labels(tree), strict=True):
    node, parent = record.pop('id'), record.pop('parent')
    record.pop('name', None)
    length = {'length': record.pop('length')} if 'length' in record else {}
    graph.add_node(node, label=label, **record)
    if parent is not None:
      edges.append((parent, node, length))
  graph.add_edges_from(edges)
  return graph


def to_graphml(tree: Tree) -> str:
  """The graph of `to_networkx` as GraphML.

  Raises:
    UserError: networkx is not installed.
  """
  return '\n'.join(_networkx().generate_graphml(to_networkx(tree))) + '\n'


def to_dot(tree: Tree) -> str:
  """A digraph of Graphviz from parents to children, with `node_labels`.

  Leaves are boxes, proxies ellipses, other nodes points.
  """
  n = tree.num_leaves
  lines = ['digraph tree {', '  rankdir=LR;', '  node [shape=ellipse];']
  for node, label in enumerate(node_labels(tree)):
    # Graphviz reads backslashes and entities such as &lt; inside strings.
    for sign, written in (('\\', r'\\'), ('"', r'\"'), ('&', '&amp;')):
      label = label.replace(sign, written)
    shape = '' if label else ', shape=point'
    shape = ', shape=box' if node < n else shape
    lines.append(f'  {node} [label="{label}"{shape}];')
  for node, parent in enumerate(tree.parent.tolist()):
    if parent >= 0:
      lines.append(f'  {parent} -> {node};')
  return '\n'.join([*lines, '}']) + '\n'


_WRITERS = {
  '.json': to_json,
  '.nwk': to_newick,
  '.newick': to_newick,
  '.graphml': to_graphml,
  '.dot': to_dot,
  '.gv': to_dot,
}


def _networkx():
  try:
    import networkx
  except ImportError as error:
    raise UserError(
      'networkx, which makes graphs and GraphML, is not installed; pip install '
      'networkx, or write another format'
    ) from error
  return networkx


def _records(tree: Tree) -> list[dict[str, Any]]:
  """What is known of each node, see `to_json`."""
  parent = [None if p < 0 else p for p in tree.parent.tolist()]
  records: list[dict[str, Any]] = [
    {'id': node, 'parent': above} for node, above in enumerate(parent)
  ]
  for field in ('proxy', 'radius', 'height', 'length'):
    if (values := getattr(tree, field)) is not None:
      for record, value in zip(records, values.tolist(), strict=True):
        record[field] = value
  for record in records:
    if record.get('proxy', 0) < 0:
      del record['proxy']
  for record, name in zip(records, tree.names or (), strict=False):
    record['name'] = name
  return records


def _of_records(nodes, num_leaves) -> Tree:
  """The tree of the nodes and their number of leaves in `to_json`."""
  if [node['id'] for node in nodes] != list(range(len(nodes))):
    raise ValueError('ids are not 0, 1, 2, ...')
  columns: dict[str, Any] = {
    field: np.array([node[field] for node in nodes], np.float64)
    for field in ('radius', 'height', 'length')
    if any(field in node for node in nodes)
  }
  if any('proxy' in node for node in nodes):
    columns['proxy'] = np.array([node.get('proxy', -1) for node in nodes])
  if any('name' in node for node in nodes):
    columns['names'] = tuple(node['name'] for node in nodes[:num_leaves])
  above = [node['parent'] for node in nodes]
  parent = np.array([-1 if p is None else p for p in above])
  tree = Tree(parent, **columns)
  if tree.num_leaves != num_leaves:
    raise ValueError(f'num_leaves is {num_leaves} of {tree.num_leaves} leaves')
  return tree


def _children(tree: Tree) -> list[list[int]]:
  children: list[list[int]] = [[] for _ in tree.parent]
  for node, parent in enumerate(tree.parent.tolist()):
    if parent >= 0:
      children[parent].append(node)
  return children


def _newick_label(label: str) -> str:
  if not label or _PLAIN.fullmatch(label):
    return label
  return "'" + label.replace("'", "''") + "'"
