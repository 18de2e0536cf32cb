"""Trees as files: JSON, Newick, GraphML and DOT.

Writers use no recursion, so a chain of thousands of nodes works, and they write
a node or two at a time. Equal trees make equal files.
"""

import itertools
import json
import os
import pathlib
import re
from collections.abc import Callable, Iterator
from typing import Any
from xml.sax import saxutils

import numpy as np

from hier_jax import json_files, paths
from hier_jax.errors import UserError, plain
from hier_jax.evaluation.tree.structure import Tree

_FORMAT = 'hier_jax tree 1'
# Newick labels that need no quotes. An underscore would be read as a blank.
_PLAIN = re.compile(r'[A-Za-z0-9.+-]+')
# What is known of nodes, as files call it, and the GraphML types.
_NUMBERS = {
  'proxy': 'int',
  'radius': 'double',
  'height': 'double',
  'length': 'double',
}
# Nodes whose numbers are Python's at a time.
_NODES = 1 << 16


def write_tree(tree: Tree, path: str | os.PathLike[str]) -> None:
  """Writes a tree in the format that the ending of the path names.

  An existing file is replaced only by a complete new one.

  Args:
    tree: the tree to write; `to_json`, `to_newick`, `to_graphml` and `to_dot`
      say what the file holds.
    path: path of the new file, which ends in .json, .nwk or .newick,
      .graphml, .dot or .gv.

  Raises:
    UserError: another ending, a folder that does not exist.

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
  with (
    paths.replacing(path) as temporary,
    # Without `newline` lines would end as the system has it.
    temporary.open('w', encoding='utf-8', newline='\n') as file,
  ):
    file.writelines(_WRITERS[path.suffix](tree))


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
  """Returns the names of the nodes.

  Leaves have their names, or numbers if the tree has no names; row 7 of the
  proxies is 'proxy 7'; other nodes are ''.
  """
  n = tree.num_leaves
  leaves = map(str, range(n)) if tree.names is None else tree.names
  proxy = np.full(len(tree.parent), -1) if tree.proxy is None else tree.proxy
  inner = (f'proxy {row}' if row >= 0 else '' for row in proxy[n:].tolist())
  return [*leaves, *inner]


def to_json(tree: Tree) -> str:
  """A JSON object, a line a node, which `read_json` reads back.

  Its 'format' is 'hier_jax tree 1', 'num_leaves' is n, and 'nodes' lists the
  nodes in order: 'id', the node's number; 'parent', its parent's number, null
  for the root; and, if the tree has them, 'name' (of leaves), 'proxy' (of nodes
  that are proxies), 'radius', 'height' and 'length', see `Tree`. d3.stratify
  takes such a flat table.
  """
  return ''.join(_json(tree))


def _json(tree: Tree) -> Iterator[str]:
  head = {'format': _FORMAT, 'num_leaves': tree.num_leaves}
  before = f'{json.dumps(head)[:-1]}, "nodes": [\n'
  for node in _records(tree):
    yield before
    yield json.dumps(node, ensure_ascii=False)
    before = ',\n'
  yield '\n]}\n'


def to_newick(tree: Tree) -> str:
  """A Newick tree with `node_labels` and, where there are, lengths of edges.

  References:
    Olsen, Interpretation of the "Newick's 8:45" Tree Format Standard, 1990:
    labels with other signs are quoted, a quote within is doubled.
  """
  return ''.join(_newick(tree))


def _newick(tree: Tree) -> Iterator[str]:
  labels = [_newick_label(label) for label in node_labels(tree)]
  length = None if tree.length is None else tree.length.tolist()
  # The children of node i are those from first[i] on, up to first[i + 1].
  child = np.argsort(tree.parent, kind='stable')
  first = np.searchsorted(tree.parent[child], np.arange(len(labels) + 1))
  child, first = child.tolist(), first.tolist()
  root = int(np.argmin(tree.parent))
  # Back at an inner node, which is written as -1 - i, once its children are.
  stack, opened = [root], False
  while stack:
    node = stack.pop()
    below = child[first[node] : first[node + 1]] if node >= 0 else []
    if below:
      yield ',(' if opened else '('
      opened = False
      stack += [-1 - node, *reversed(below)]
      continue
    before = ')' if node < 0 else ',' if opened else ''
    node = -1 - node if node < 0 else node
    way = '' if length is None or node == root else f':{length[node]!r}'
    yield f'{before}{labels[node]}{way}'
    opened = True
  yield ';\n'


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
  """The graph of `to_networkx` as GraphML; networkx is not needed for it."""
  return ''.join(_graphml(tree))


def _graphml(tree: Tree) -> Iterator[str]:
  kinds = {'label': 'string'}
  kinds |= {k: v for k, v in _NUMBERS.items() if getattr(tree, k) is not None}
  yield '<?xml version="1.0" encoding="utf-8"?>\n'
  yield '<graphml xmlns="http://graphml.graphdrawing.org/xmlns">\n'
  for name, kind in kinds.items():
    of = 'edge' if name == 'length' else 'node'
    yield f'  <key id="{name}" for="{of}" attr.name="{name}"'
    yield f' attr.type="{kind}"/>\n'
  yield '  <graph edgedefault="directed">\n'
  data = lambda key, value: f'<data key="{key}">{value}</data>'
  for record, label in zip(_records(tree), node_labels(tree), strict=True):
    values = [data('label', saxutils.escape(label))]
    values += [
      data(key, repr(record[key]))
      for key in _NUMBERS
      if key in record and key != 'length'
    ]
    yield f'    <node id="{record["id"]}">{"".join(values)}</node>\n'
  for record in _records(tree):
    if record['parent'] is not None:
      way = data('length', repr(record['length'])) if 'length' in record else ''
      yield f'    <edge source="{record["parent"]}" target="{record["id"]}">'
      yield f'{way}</edge>\n'
  yield '  </graph>\n</graphml>\n'


def to_dot(tree: Tree) -> str:
  """A digraph of Graphviz from parents to children, with `node_labels`.

  Leaves are boxes, proxies ellipses, other nodes points.
  """
  return ''.join(_dot(tree))


def _dot(tree: Tree) -> Iterator[str]:
  yield 'digraph tree {\n  rankdir=LR;\n  node [shape=ellipse];\n'
  for node, label in enumerate(node_labels(tree)):
    # Graphviz reads backslashes and entities such as &lt; inside strings.
    for sign, written in (('\\', r'\\'), ('"', r'\"'), ('&', '&amp;')):
      label = label.replace(sign, written)
    shape = '' if label else ', shape=point'
    shape = ', shape=box' if node < tree.num_leaves else shape
    yield f'  {node} [label="{label}"{shape}];\n'
  for node, parent in enumerate(tree.parent.tolist()):
    if parent >= 0:
      yield f'  {parent} -> {node};\n'
  yield '}\n'


_WRITERS: dict[str, Callable[[Tree], Iterator[str]]] = {
  '.json': _json,
  '.nwk': _newick,
  '.newick': _newick,
  '.graphml': _graphml,
  '.dot': _dot,
  '.gv': _dot,
}


def _networkx():
  try:
    import networkx
  except ImportError as error:
    raise UserError(
      'networkx, which makes graphs, is not installed; pip install networkx, '
      'or write the tree as .graphml without it'
    ) from error
  return networkx


def _records(tree: Tree) -> Iterator[dict[str, Any]]:
  """What is known of each node, see `to_json`."""
  known = [field for field in _NUMBERS if getattr(tree, field) is not None]
  names = iter(tree.names or ())
  for start in range(0, len(tree.parent), _NODES):
    columns = (
      getattr(tree, field)[start : start + _NODES].tolist()
      for field in ('parent', *known)
    )
    rows = zip(*columns, strict=True)
    for node, (parent, *values) in enumerate(rows, start):
      above = None if parent < 0 else parent
      record: dict[str, Any] = {'id': node, 'parent': above}
      record |= zip(known, values, strict=True)
      if record.get('proxy', 0) < 0:
        del record['proxy']
      record |= (('name', name) for name in itertools.islice(names, 1))
      yield record


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


def _newick_label(label: str) -> str:
  if not label or _PLAIN.fullmatch(label):
    return label
  return "'" + label.replace("'", "''") + "'"
