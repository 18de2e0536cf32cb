"""Readers of files that others made, on damaged and malicious ones.

Whatever stands in a file, a reader returns what it promises or raises a
UserError with a short message, and takes little memory.
"""

import io
import json
import math
import pathlib

import hypothesis
import hypothesis.strategies as st
import numpy as np
import pytest

from hier_jax.errors import UserError
from hier_jax.evaluation import files
from hier_jax.evaluation.taxonomy import Taxonomy
from hier_jax.evaluation.tree import formats
from hier_jax.evaluation.tree.structure import Tree
from hier_jax.models.weights import files as weight_files
from hier_jax.training.config import default as config_lib
from hier_jax.training.logs import names, progress
from hier_jax.training.report import curves, runs, summary
from tests.support import torch_zip

_LONGEST_MESSAGE = 2000


def _weights(path):
  """All arrays of a file of weights."""
  found = weight_files.read(path)
  return {name: found[name].tobytes() for name in found}


def _run(path):
  """What `hier-jax report` makes of a run."""
  found = runs.load([path.parent])
  summary.as_markdown(summary.summary(found))
  curves.figure(runs.groups(found), 'map@r', 'MAP@R')


def _write_pth(path):
  saved = {'a': torch_zip.tensor('0', 6, (2, 3), (3, 1))}
  six = np.arange(6, dtype=np.float32)
  torch_zip.write(path, torch_zip.mapping(saved), {'0': six})


def _write_safetensors(path):
  weight_files.write(path, {'a': np.ones((2, 3), np.float32)}, {'k': 'v'})


def _write_npz(path):
  np.savez(path, embeddings=np.eye(3, dtype='f4'), labels=[0, 0, 1], c=0.5)


def _write_csv(path):
  path.write_text('class,group\na,x\nb,x\nc,y\n')


def _write_edges(path):
  path.write_text('child,parent\na,x\nb,x\nx,root\n')


def _write_tree(path):
  tree = Tree(np.array([3, 3, 4, 4, -1]), names=('a', 'b', 'c'))
  formats.write_tree(tree, path)


def _write_run(path):
  folder = path.parent
  config = config_lib.default_config().to_json()
  (folder / 'config.json').write_text(config)
  found = {'recall@1': 0.5, 'map@r': 0.25}
  results = {names.TRAINED: {'kind': 'eval', 'step': 1, 'name': 'x'} | found}
  (folder / 'results.json').write_text(json.dumps(results))
  train = {'kind': 'train', 'step': 1, 'epoch': 0.5, 'loss': 0.1}
  (folder / 'metrics.jsonl').write_text(json.dumps(train) + '\n')
  timing = {'kind': 'timing', 'step': 1, 'images_per_second': 10.0}
  timing |= {'seconds': 2.0} | {f'share/{part}': 0.1 for part in progress.PARTS}
  (folder / 'timing.jsonl').write_text(json.dumps(timing) + '\n')


READERS = {
  'a.pth': (_write_pth, _weights),
  'a.safetensors': (_write_safetensors, _weights),
  'weights.npz': (_write_npz, _weights),
  'embeddings.npz': (_write_npz, files.read),
  'classes.csv': (_write_csv, Taxonomy.from_csv),
  'edges.csv': (_write_edges, Taxonomy.from_csv),
  'tree.json': (_write_tree, formats.read_json),
  'config.json': (_write_run, _run),
  'results.json': (_write_run, _run),
  'metrics.jsonl': (_write_run, _run),
  'timing.jsonl': (_write_run, _run),
}
# Inserted into files, beside random bytes.
_ODD = [
  b'',
  b'\0',
  b'\xff',
  b'\r',
  b'"',
  b'{',
  b'[',
  b']',
  b',',
  b'\n',
  b'null',
]
_ODD += [b'1e999', b'-1', b'9' * 5000, b'[' * 2000, b'NaN', '\u202e'.encode()]


@st.composite
def _edits(draw, size):
  """Places to cut at, bytes to drop there and bytes to put."""
  at = draw(st.integers(0, size))
  dropped = draw(st.sampled_from([0, 0, 1, 4, size]))
  return at, dropped, draw(st.sampled_from(_ODD) | st.binary(max_size=8))


def _check(reader, path):
  try:
    reader(path)
  except UserError as error:
    assert len(str(error)) < _LONGEST_MESSAGE
    assert '\n' not in str(error)


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
  return tmp_path_factory.mktemp('files')


@pytest.mark.parametrize('name', READERS)
@hypothesis.given(st.data())
@hypothesis.settings(max_examples=60, deadline=None)
def test_damaged_files(folder, name, data):
  write, reader = READERS[name]
  path = folder / name.partition('.')[0] / name
  path.parent.mkdir(exist_ok=True)
  write(path)
  content = path.read_bytes()
  for at, dropped, put in data.draw(
    st.lists(_edits(len(content)), min_size=1, max_size=3)
  ):
    content = content[:at] + put + content[at + dropped :]
  path.write_bytes(content)
  _check(reader, path)


_JSON = st.recursive(
  st.none()
  | st.booleans()
  | st.integers()
  | st.floats()
  | st.text(max_size=5)
  | st.sampled_from(['step', 'kind', 'name', 10**400, -math.inf]),
  lambda inner: (
    st.lists(inner, max_size=3)
    | st.dictionaries(st.text(max_size=5), inner, max_size=3)
  ),
  max_leaves=5,
)


def _places(value, found):
  """Containers of a JSON value with the keys of their items."""
  keys = range(len(value)) if isinstance(value, list) else list(value)
  for key in keys:
    found.append((value, key))
    if isinstance(value[key], list | dict):
      _places(value[key], found)
  return found


@pytest.mark.parametrize('name', [n for n in READERS if 'json' in n])
@hypothesis.given(st.data())
@hypothesis.settings(max_examples=60, deadline=None)
def test_other_json_than_was_written(folder, name, data):
  """JSON of the right form, in which one value is another."""
  write, reader = READERS[name]
  path = folder / f'{name}_changed' / name
  path.parent.mkdir(exist_ok=True)
  write(path)
  whole = [json.loads(path.read_text())]
  container, key = data.draw(st.sampled_from(_places(whole, [])))
  container[key] = data.draw(_JSON)
  text = json.dumps(whole[0])
  path.write_text(text + '\n' * name.endswith('l'))
  _check(reader, path)


@pytest.mark.parametrize('name', READERS)
@pytest.mark.parametrize(
  'content', [b'', b'null', b'[]', b'{}', b'{"a": ' * 10**5, b'9' * 10**6]
)
def test_other_files_than_expected(tmp_path: pathlib.Path, name, content):
  write, reader = READERS[name]
  path = tmp_path / name
  write(path)
  path.write_bytes(content)
  _check(reader, path)


def test_names_of_folders_are_text(tmp_path):
  """Neither Markdown, HTML, escapes of a terminal nor mathematics."""
  names = ['$x', '_a', 'b|c', '<script>', 'd\n# e', 'f\x1b[31m', '\u202eg']
  for i, name in enumerate(names):
    folder = tmp_path / name
    folder.mkdir()
    _write_run(folder / 'x')
    config = json.loads((folder / 'config.json').read_text())
    (folder / 'config.json').write_text(json.dumps(config | {'epochs': i + 1}))
  found = runs.load([tmp_path / name for name in names])
  groups = [
    runs.Group(name, group.runs)
    for name, group in zip(names, runs.groups(found), strict=True)
  ]
  text = summary.as_markdown(
    {
      'unfinished': [{'folder': n, 'seed': 0, 'step': 0} for n in names],
      'groups': [
        summary.summary(group.runs)['groups'][0] | {'label': group.label}
        for group in groups
      ],
    }
  )
  assert all(c.isprintable() for c in text.replace('\n', ''))
  assert '<script>' not in text.replace('`<script>`', '')
  assert r'b\|c' in text
  assert not [line for line in text.splitlines() if line.startswith('# e')]
  figure = curves.figure(groups, 'map@r', 'MAP@R')
  shown = [t.get_text() for t in figure.legends[0].get_texts()]
  assert [s.strip()[:2] for s in shown[:4]] == ['$x', '_a', 'b|', '<s']
  figure.savefig(io.BytesIO(), format='png')
