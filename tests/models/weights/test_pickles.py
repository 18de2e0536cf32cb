"""Pickles read as data: what they describe, and nothing that they ask for."""

import argparse
import os
import pickle
import pickletools
import tracemalloc
from collections import OrderedDict

import hypothesis
import hypothesis.strategies as st
import pytest

from hier_jax.models.weights import pickles

DAMAGE = (ValueError, IndexError, KeyError)
LEAVES = st.one_of(
  st.none(),
  st.booleans(),
  st.integers(),
  st.floats(allow_nan=False),
  st.text(),
  st.binary(),
)
DATA = st.recursive(
  LEAVES,
  lambda inner: st.one_of(
    st.lists(inner),
    st.tuples(inner),
    st.tuples(inner, inner, inner, inner),
    st.dictionaries(st.text() | st.integers(-(2**31), 2**31), inner),
  ),
  max_leaves=20,
)


def allow(name):
  """Lets all names be."""


def read(program):
  return pickles.read(program, allow)


@pytest.mark.parametrize('protocol', range(pickle.HIGHEST_PROTOCOL + 1))
@hypothesis.given(DATA)
@hypothesis.settings(max_examples=30, deadline=None)
def test_data_are_what_python_reads(protocol, value):
  found = read(pickle.dumps(value, protocol))
  # Without a protocol for bytes, they are a call of a codec.
  if protocol >= 3:
    assert repr(found) == repr(pickle.loads(pickle.dumps(value, protocol)))
  elif 'Call' not in repr(found):
    assert found == value


@pytest.mark.parametrize('protocol', range(2, pickle.HIGHEST_PROTOCOL + 1))
def test_objects_are_their_names_and_arguments(protocol):
  shared = [1]
  saved = {
    'a': OrderedDict(x=shared, y=2),
    'b': argparse.Namespace(lr=0.1),
    'c': shared,
  }
  names = []
  found = pickles.read(pickle.dumps(saved, protocol), names.append)
  assert sorted(set(names)) == ['argparse.Namespace', 'collections.OrderedDict']
  assert found['a'].name == 'collections.OrderedDict'
  assert found['a'].items == {'x': [1], 'y': 2}
  assert found['a'].items['x'] is found['c']
  assert found['b'].name == 'argparse.Namespace'


@pytest.mark.parametrize('protocol', [4, 5])
def test_sets_are_lists(protocol):
  assert read(pickle.dumps([{3}, frozenset({4})], protocol)) == [[3], [4]]


class _Folder:
  def __init__(self, path):
    self.path = str(path)

  def __reduce__(self):
    return os.mkdir, (self.path,)


@pytest.mark.parametrize('protocol', range(pickle.HIGHEST_PROTOCOL + 1))
def test_nothing_is_run(tmp_path, protocol):
  victim = tmp_path / 'victim'
  program = pickle.dumps(_Folder(victim), protocol)
  found = read(program)
  assert not victim.exists()
  assert type(found) is pickles.Call
  pickle.loads(program)
  assert victim.exists()


@pytest.mark.parametrize(
  ('program', 'message'),
  [
    (b'(' * 3 + b'.', 'pop from empty list|more than it has put'),
    (b')' + b'\x85' * 3_000_000 + b'.', 'more than 2,000,000 opcodes'),
    (b')' + b'\x85' * 100 + b'.', 'nests deeper than 64'),
    # A list that holds itself, and a call that is its own argument.
    (b']q\x00h\x00\x85R.', 'calls what is no function'),
    (b'}(]K\x01u.', None),
    (b'\x8c\x01a\x8c\x01b}K\x01bs.', 'of what has none'),
    (b'K\x01K\x02a.', 'appends to what is no list'),
    (b'K\x01K\x02\x93.', 'by what is no text'),
    (b'\x82\x01.', 'opcode EXT1'),
    (b'\x97.', 'opcode NEXT_BUFFER'),
    (b'P1\n.', 'opcode PERSID'),
    (b'N', 'exhausted|end'),
    (b'h\x05.', '5'),
    (
      b'\x8d' + b'\xff' * 7 + b'\x00' + b'a',
      'expected 72057594037927935 bytes',
    ),
  ],
)
def test_what_is_no_data_is_refused(program, message):
  if message is None:
    # A key that cannot be one is left out.
    assert read(program) == {}
    return
  with pytest.raises(DAMAGE, match=message):
    read(program)


def test_a_value_within_itself_ends():
  """Depth is counted to each value's first place."""
  found = read(b']q\x00h\x00a.')
  assert found[0] is found


@pytest.mark.parametrize(
  'program',
  [
    # A high place in the memory; lists of the same list twice, 60 deep.
    b'Nr\xff\xff\xff\x7f.',
    b']' + b'2\x86' * 60 + b'.',
  ],
)
def test_memory_is_bounded_by_the_program(program):
  tracemalloc.start()
  read(program)
  peak = tracemalloc.get_traced_memory()[1]
  tracemalloc.stop()
  assert peak < 10**6


_OPCODES = [op.code.encode('latin1') for op in pickletools.opcodes]


@hypothesis.given(
  st.lists(st.sampled_from(_OPCODES) | st.binary(max_size=4), max_size=60)
)
@hypothesis.settings(max_examples=500, deadline=None)
def test_any_program_ends_in_data_or_damage(parts):
  try:
    found = read(b''.join(parts) + b'.')
  except DAMAGE:
    return
  kinds = (tuple, list, dict, str, bytes, bytearray, int, float, type(None))
  nodes = (pickles.Call, pickles.Global, pickles.Reference)
  assert type(found) in (*kinds, *nodes, bool)
