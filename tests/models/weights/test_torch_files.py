"""PyTorch's checkpoints: what is read, and what is refused without running."""

import argparse
import pathlib
import sys
import zipfile
from collections import OrderedDict

import ml_dtypes
import numpy as np
import pytest

from hier_jax.errors import UserError
from hier_jax.models.weights import files
from tests.support import torch_zip

SIX = np.arange(6, dtype=np.float32)


def _write(folder, pickled, **kwargs):
  return torch_zip.write(folder / 'a.pth', pickled, {'0': SIX}, **kwargs)


def test_views_by_strides_and_offset(tmp_path):
  saved = {
    'rows': torch_zip.tensor('0', 6, (2, 3), (3, 1)),
    'columns': torch_zip.tensor('0', 6, (3, 2), (1, 3)),
    'second': torch_zip.tensor('0', 6, (3,), (1,), offset=3),
    'repeated': torch_zip.tensor('0', 6, (2, 2), (0, 1), offset=1),
    'scalar': torch_zip.tensor('0', 6, (), (), offset=5),
    'empty': torch_zip.tensor('0', 6, (0, 3), (3, 1)),
  }
  arrays = files.read(_write(tmp_path, torch_zip.mapping(saved)))
  want = {
    'rows': [[0, 1, 2], [3, 4, 5]],
    'columns': [[0, 3], [1, 4], [2, 5]],
    'second': [3, 4, 5],
    'repeated': [[1, 2], [1, 2]],
    'scalar': 5,
    'empty': np.zeros((0, 3)),
  }
  assert set(arrays) == set(want)
  for name, value in want.items():
    np.testing.assert_array_equal(arrays[name], value)
  with pytest.raises(ValueError, match='read-only'):
    arrays['rows'][0] = 1


@pytest.mark.parametrize(
  ('storage', 'dtype'),
  [
    ('DoubleStorage', np.float64),
    ('HalfStorage', np.float16),
    ('BFloat16Storage', ml_dtypes.bfloat16),
    ('LongStorage', np.int64),
    ('ByteStorage', np.uint8),
    ('BoolStorage', np.bool_),
  ],
)
def test_dtypes(tmp_path, storage, dtype):
  values = np.array([0, 1, 1, 0]).astype(dtype)
  pickled = torch_zip.mapping({'a': torch_zip.vector('0', 4, storage=storage)})
  path = torch_zip.write(tmp_path / 'a.pt', pickled, {'0': values})
  array = files.read(path)['a']
  assert array.dtype == dtype
  np.testing.assert_array_equal(array, values)


def test_parameters_and_settings_of_a_run(tmp_path):
  parameter = torch_zip.named('torch._utils', '_rebuild_parameter')
  hooks = torch_zip.named('collections', 'OrderedDict') + b')R'
  parameter += b'(' + torch_zip.vector('0', 6) + b'\x88' + hooks + b'tR'
  settings = torch_zip.named('argparse', 'Namespace') + b')\x81'
  settings += torch_zip.mapping({'lr': torch_zip.number(1)}) + b'b'
  saved = {
    'args': settings,
    'model': torch_zip.mapping({'weight': parameter}),
    'epoch': torch_zip.number(3),
  }
  arrays = files.read(_write(tmp_path, torch_zip.mapping(saved)))
  assert list(arrays) == ['weight']
  np.testing.assert_array_equal(arrays['weight'], SIX)


@pytest.mark.parametrize('kind', ['global', 'stack global', 'instance'])
def test_code_is_named_and_never_run(tmp_path, kind):
  victim = tmp_path / 'victim'
  victim.touch()
  argument = torch_zip.text(f'rm {victim}')
  pickled = {
    'global': torch_zip.named('posix', 'system') + argument + b'\x85R',
    'stack global': torch_zip.text('posix')
    + torch_zip.text('system')
    + b'\x93'
    + argument
    + b'\x85R',
    'instance': b'(' + argument + b'iposix\nsystem\n',
  }[kind]
  path = _write(tmp_path, pickled)
  with pytest.raises(
    UserError, match=r"a\.pth refers to 'posix\.system'.*not run"
  ):
    files.read(path)
  assert victim.exists()


@pytest.mark.parametrize(
  ('module', 'name'),
  [
    ('builtins', 'eval'),
    ('builtins', 'getattr'),
    ('torch.nn.modules.linear', 'Linear'),
    ('numpy', 'load'),
    ('torch', 'load'),
    ('torch._utils', '_rebuild_tensor_v3'),
  ],
)
def test_other_names_are_refused(tmp_path, module, name):
  path = _write(tmp_path, torch_zip.named(module, name))
  with pytest.raises(UserError, match=rf"refers to '{module}\.{name}',"):
    files.read(path)


def test_a_pickle_leaves_nothing_behind(tmp_path):
  """Attributes that it sets on a known name are gone with it."""
  rebuild = torch_zip.named('torch._utils', '_rebuild_tensor_v2')
  poison = rebuild + torch_zip.mapping({'func': torch_zip.number(1)}) + b'b'
  path = _write(tmp_path, torch_zip.mapping({'a': poison}))
  with pytest.raises(UserError):
    files.read(path)
  good = torch_zip.mapping({'a': torch_zip.vector('0', 6)})
  np.testing.assert_array_equal(files.read(_write(tmp_path, good))['a'], SIX)


@pytest.mark.parametrize(
  ('view', 'message'),
  [
    (torch_zip.tensor('0', 6, (7,), (1,)), 'larger than its storage'),
    (torch_zip.tensor('0', 6, (2,), (3,), offset=3), 'larger than its storage'),
    (torch_zip.tensor('0', 6, (9, 9), (0, 0)), 'larger than its storage'),
    (b'\x96' + b'\xff' * 7 + b'\x00', 'expected 72057594037927935 bytes'),
    (torch_zip.tensor('0', 6, (2,), (-1,), offset=3), r'strides \(-1,\)'),
    (torch_zip.tensor('0', 6, (-2,), (1,)), r'shape \(-2,\)'),
    (torch_zip.tensor('0', 6, (2,), (1,), offset=-4), 'offset -4'),
    (torch_zip.tensor('0', 6, (2, 3), (1,)), 'zip'),
    (torch_zip.vector('0', 7), 'holds 24 bytes'),
    (torch_zip.vector('1', 6), 'data/1'),
    (torch_zip.text('storage') + b'Q', 'holds no tensors by name'),
  ],
)
def test_views_beyond_the_file(tmp_path, view, message):
  path = _write(tmp_path, torch_zip.mapping({'a': view}))
  with pytest.raises(UserError, match=message) as error:
    files.read(path)
  assert str(path) in str(error.value)


def test_other_ways_of_storing(tmp_path):
  pickled = torch_zip.mapping({'a': torch_zip.vector('0', 6)})
  path = _write(tmp_path, pickled, order='big')
  with pytest.raises(UserError, match='big-endian machine'):
    files.read(path)
  path = _write(tmp_path, pickled, compression=zipfile.ZIP_DEFLATED)
  with pytest.raises(UserError, match='data/0 is compressed'):
    files.read(path)


_FOUR = torch_zip.numbers([4])


def _settings(state):
  """An object whose attributes are set, as a pickle's BUILD does."""
  made = torch_zip.named('argparse', 'Namespace') + b')\x81'
  return made + torch_zip.mapping(state) + b'b'


def _tensor_of(storage, *, offset=b'K\x00', shape=_FOUR):
  rebuild = torch_zip.named('torch._utils', '_rebuild_tensor_v2')
  arguments = storage + offset + shape + torch_zip.numbers([1])
  return rebuild + b'(' + arguments + b'\x89}tR'


_INTERFACE = {
  'data': b'(J\x00\x10\x00\x00\x88t',
  'shape': torch_zip.numbers([4]),
  'typestr': torch_zip.text('|O'),
  'version': torch_zip.number(3),
}
_REFERENCE = (
  torch_zip.text('storage'),
  torch_zip.named('torch', 'FloatStorage'),
  torch_zip.text('0'),
  torch_zip.text('cpu'),
  torch_zip.number(6),
)


def _reference(place, other):
  parts = list(_REFERENCE)
  parts[place] = other
  return b'(' + b''.join(parts) + b'tQ'


@pytest.mark.parametrize(
  'tensor',
  [
    # An object with an address for a storage.
    _tensor_of(
      _settings({'__array_interface__': torch_zip.mapping(_INTERFACE)})
    ),
    _tensor_of(_settings({'size': torch_zip.number(2**30)})),
    # The same by way of the class, whose `[]` makes another such object.
    _tensor_of(
      torch_zip.named('argparse', 'Namespace')
      + torch_zip.mapping(
        {
          'size': torch_zip.number(6),
          'itemsize': torch_zip.number(4),
          '__getitem__': torch_zip.named('argparse', 'Namespace'),
          '__init__': torch_zip.named('collections', 'OrderedDict'),
          '__array_interface__': torch_zip.mapping(_INTERFACE),
        }
      )
      + b'b)R'
    ),
    # Values that only look like the numbers that are checked.
    _tensor_of(_reference(0, _REFERENCE[0]), offset=_settings({})),
    _tensor_of(_reference(0, _REFERENCE[0]), offset=b'\x88'),
    _tensor_of(_reference(0, _REFERENCE[0]), offset=b'G' + b'\x00' * 8),
    _tensor_of(_reference(0, _REFERENCE[0]), shape=_settings({})),
    _tensor_of(_reference(0, _REFERENCE[0]), shape=b'(' + b'\x88t'),
    _tensor_of(_reference(1, torch_zip.text('float32'))),
    _tensor_of(_reference(1, torch_zip.named('argparse', 'Namespace'))),
    _tensor_of(_reference(2, _settings({}))),
    _tensor_of(_reference(2, torch_zip.text('../../secret'))),
    _tensor_of(_reference(4, b'\x88')),
    _tensor_of(_reference(4, b'G' + b'\x40' + b'\x00' * 7)),
    _tensor_of(_reference(4, torch_zip.number(-1))),
    # A function of the reader's own, and a class of it, given attributes.
    torch_zip.named('torch._utils', '_rebuild_tensor_v2')
    + torch_zip.mapping({'func': torch_zip.named('argparse', 'Namespace')})
    + b'b)R',
    torch_zip.named('argparse', 'Namespace')
    + torch_zip.mapping({'__getitem__': torch_zip.number(1)})
    + b'b',
    # A call of itself, by way of the memory.
    torch_zip.named('torch._utils', '_rebuild_parameter') + b'q\x05h\x05\x85R',
  ],
)
def test_what_only_looks_like_a_storage_is_refused(tmp_path, tensor):
  path = _write(tmp_path, torch_zip.mapping({'a': tensor}))
  with pytest.raises(UserError, match=r'a\.pth'):
    files.read(path)


def test_a_message_is_short_whatever_a_file_holds(tmp_path):
  name = 'x' * 10**7
  for pickled in (
    torch_zip.named(name, 'y'),
    torch_zip.mapping({name: torch_zip.number(1)}),
    torch_zip.mapping({'a': torch_zip.tensor('0', 6, (1,) * 10**5, (1,))}),
  ):
    path = _write(tmp_path, pickled, compression=zipfile.ZIP_DEFLATED)
    with pytest.raises(UserError) as error:
      files.read(path)
    assert len(str(error.value)) < 1000 + len(str(path))


def test_a_small_file_asks_for_no_large_pickle(tmp_path):
  pickled = torch_zip.mapping({'a': torch_zip.text('x' * 2**26)})
  path = _write(tmp_path, pickled, compression=zipfile.ZIP_DEFLATED)
  assert path.stat().st_size < 10**6
  with pytest.raises(UserError, match='bytes; expected at most 33,554,432'):
    files.read(path)


def test_damaged_pickles_end_in_an_error_or_in_arrays(tmp_path):
  saved = {'a': torch_zip.vector('0', 6), 'b': torch_zip.number(1)}
  good = torch_zip.mapping(saved)
  rng = np.random.default_rng(0)
  failed = 0
  for _ in range(300):
    damaged = bytearray(good)
    for at in rng.integers(len(damaged), size=rng.integers(1, 4)):
      damaged[at] = rng.integers(256)
    path = _write(tmp_path, bytes(damaged))
    try:
      files.read(path)
    except UserError as error:
      assert str(path) in str(error)
      failed += 1
  assert failed > 200


def test_legacy_files_need_torch(tmp_path, monkeypatch):
  path = tmp_path / 'old.pth'
  path.write_bytes(b'\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.')
  monkeypatch.setitem(sys.modules, 'torch', None)
  with pytest.raises(UserError, match=r'old\.pth .*hier_jax\[torch\]'):
    files.read(path)


class _Touch:
  def __init__(self, path):
    self.path = path

  def __reduce__(self):
    return pathlib.Path.touch, (self.path,)


def test_legacy_files_through_torch(tmp_path):
  torch = pytest.importorskip('torch')
  path = tmp_path / 'old.pth'
  saved = {'model': {'a': torch.arange(3.0), 'b': torch.ones(2).bfloat16()}}
  torch.save(saved, path, _use_new_zipfile_serialization=False)
  arrays = files.read(path)
  np.testing.assert_array_equal(arrays['a'], [0, 1, 2])
  np.testing.assert_array_equal(arrays['b'], [1, 1])
  victim = tmp_path / 'victim'
  torch.save({'a': _Touch(victim)}, path, _use_new_zipfile_serialization=False)
  with pytest.raises(UserError, match=r'old\.pth cannot be read by PyTorch'):
    files.read(path)
  assert not victim.exists()


def _shapes(torch):
  """Tensors of every kind that a network may hold."""
  base = torch.arange(24.0).reshape(4, 6)
  return {
    'transposed': base.T,
    'part': base[1:3, ::2],
    'parameter': torch.nn.Parameter(base),
    'buffer': torch.nn.Parameter(base, requires_grad=False),
    'double': base.double(),
    'half': base.half(),
    'bfloat16': base.bfloat16(),
    'long': torch.tensor(7),
    'int': base.int(),
    'short': base.short(),
    'char': base.char(),
    'byte': base.byte(),
    'bool': base > 3,
    'empty': torch.zeros(0, 2),
    'expanded': base[0].expand(3, 6),
  }


def _whole_run(torch, tensors):
  """What a training loop saves beside its network."""
  network = torch.nn.Linear(3, 2)
  optimizer = torch.optim.AdamW(network.parameters())
  network(torch.ones(1, 3)).sum().backward()
  optimizer.step()
  return {
    'model': tensors,
    'optimizer': optimizer.state_dict(),
    'lr_scheduler': {'milestones': (1, 2), 'last': None},
    'epoch': 3,
    'args': argparse.Namespace(lr=0.1, data=('a', 'b'), device='cuda'),
    'best': float('nan'),
  }


@pytest.mark.parametrize('protocol', [2, 3, 4, 5])
@pytest.mark.parametrize(
  'wrap',
  [
    lambda torch, tensors: tensors,
    lambda torch, tensors: OrderedDict(tensors),
    lambda torch, tensors: {'state_dict': OrderedDict(tensors)},
    lambda torch, tensors: {'teacher': tensors, 'student': {}},
    _whole_run,
    lambda torch, tensors: OrderedDict(model=OrderedDict(tensors)),
  ],
)
def test_what_torch_writes(tmp_path, protocol, wrap):
  """24 ways of saving; what is bitwise the same tensor."""
  torch = pytest.importorskip('torch')
  tensors = _shapes(torch)
  path = tmp_path / 'new.pth'
  torch.save(wrap(torch, tensors), path, pickle_protocol=protocol)
  arrays = files.read(path)
  assert set(arrays) == set(tensors)
  for name, value in tensors.items():
    assert arrays[name].dtype == str(value.dtype).removeprefix('torch.')
    np.testing.assert_array_equal(
      arrays[name].astype(np.float64), value.detach().double().numpy()
    )


def test_a_state_dict_with_its_metadata(tmp_path):
  torch = pytest.importorskip('torch')
  network = torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.BatchNorm1d(2))
  torch.save(network.state_dict(), tmp_path / 'a.pt')
  arrays = files.read(tmp_path / 'a.pt')
  assert set(arrays) == set(network.state_dict())
