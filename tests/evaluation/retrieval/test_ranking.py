"""The counting of ranks: tiles, devices, bfloat16, large classes, memory."""

import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh

from hier_jax.evaluation import per_query
from hier_jax.evaluation.retrieval import _ranking, _tiles, lift
from hier_jax.evaluation.retrieval import per_query as per_query_lib
from hier_jax.evaluation.retrieval._layout import Layout
from tests.support import ports
from tests.support.cases import slowly
from tests.support.numpy_rankings import assert_matches, cosine, in_ball, oracle

pytestmark = pytest.mark.optimized


def clustered(n, d, classes, noise, seed=0):
  """Points about random centers, and their classes."""
  rng = np.random.default_rng(seed)
  y = rng.integers(0, classes, n)
  x = rng.normal(size=(classes, d))[y] + noise * rng.normal(size=(n, d))
  return np.float32(x / np.linalg.norm(x, axis=1, keepdims=True)), y


def assert_same(result, expected):
  """The same to the bit, but for how it came about."""
  for name in result._fields[:-1]:
    np.testing.assert_array_equal(
      getattr(result, name), getattr(expected, name), err_msg=name
    )


def test_blocks_and_tiles_do_not_matter():
  # So many ties that an order of queries or of tiles would show.
  x, y = clustered(503, 12, 40, 1.0)
  x = np.round(4 * x) / 4
  given = {'distance': 'euclidean', 'ties': 'mean'}
  expected = per_query(x, y, **given)
  assert np.any(expected.rank % 1)
  for tile, block in ((64, 33), (64, 503), (100_000, 1)):
    result = per_query(x, y, **given, tile=tile, block=block)
    assert_same(result, expected)


def test_scores_of_a_tile_fill_the_cores_caches(monkeypatch):
  monkeypatch.setattr(_ranking, 'cores', lambda: 3)
  monkeypatch.setattr(_ranking, '_core_cache', lambda: 1 << 20)
  block, tile = _ranking._cpu_sizes()
  assert 3 / 2 < 4 * block * tile / 2**20 <= 3


@pytest.mark.parametrize('told', [-1, 0, ValueError('unrecognized')])
def test_cache_that_the_system_does_not_tell(monkeypatch, told):
  def sysconf(name):
    if isinstance(told, Exception):
      raise told
    return told

  monkeypatch.setattr(_ranking.os, 'sysconf', sysconf, raising=False)
  assert _ranking._core_cache() == 1 << 20


@pytest.mark.parametrize(
  ('count', 'best_only'), [(1, True), (2, False), (3, False)]
)
def test_devices_do_not_matter(count, best_only):
  x, y = clustered(701, 9, 50, 0.8)
  devices = jax.local_devices()
  assert len(devices) == 4
  result, expected = (
    per_query(x, y, c=0.3, tile=64, best_only=best_only, devices=some)
    for some in (devices[:count], None)
  )
  assert_same(result, expected)


_PROCESS = """
import sys
import jax
import numpy as np
from hier_jax.evaluation import per_query
address, index, path = sys.argv[1:]
jax.distributed.initialize(address, 2, int(index))
assert len(jax.devices()) == 2 and len(jax.local_devices()) == 1
given = np.load(path)
result = per_query(given['x'], given['y'], devices=jax.devices(), tile=64)
for name in ('rank', 'full_ap'):
  np.testing.assert_array_equal(getattr(result, name), given[name])
"""


@pytest.mark.slow
def test_processes_do_not_matter(tmp_path):
  x, y = clustered(300, 5, 40, 0.8)
  expected = per_query(x, y)
  path = tmp_path / 'given.npz'
  np.savez(path, x=x, y=y, rank=expected.rank, full_ap=expected.full_ap)
  with ports.reserved() as port:
    address = f'localhost:{port}'
    processes = [
      subprocess.Popen([sys.executable, '-c', _PROCESS, address, str(i), path])
      for i in range(2)
    ]
    assert [process.wait(600) for process in processes] == [0, 0]


def test_more_devices_than_rows():
  x, y = clustered(3, 2, 1, 1.0)
  result = per_query(x, y)
  np.testing.assert_array_equal(result.rank, [1, 1, 1])
  np.testing.assert_array_equal(result.full_ap, [1, 1, 1])


@pytest.mark.parametrize('on_cpu', [False, True])
@pytest.mark.parametrize('ties', ['pessimistic', 'optimistic', 'mean'])
def test_large_classes(ties, on_cpu, monkeypatch):
  monkeypatch.setattr(_ranking.Ranker, 'on_cpu', on_cpu)
  # One of 600, which is more than `_tiles.MANY`, and a few small ones.
  rng = np.random.default_rng(0)
  x = rng.normal(size=(90, 5))[rng.integers(0, 90, 700)]
  y = np.concatenate([np.zeros(600, int), rng.integers(1, 30, 100)])
  order = rng.permutation(700)
  x, y = x[order], y[order]
  assert _tiles.MANY < 599
  expected = oracle(cosine(x, x), y, y, np.arange(700), ties, (10, 600))
  result = per_query(
    x, y, ties=ties, precision_at=(10, 600), tile=128, block=96
  )
  assert_matches(result, expected)


def test_a_cpu_looks_no_score_up(monkeypatch):
  # In XLA's loop over single scores a class of 5,000 took two minutes.
  asked = []
  count_ahead = _tiles.count_ahead

  def noted(*args, slots, **others):
    asked.append(slots)
    return count_ahead(*args, slots=slots, **others)

  monkeypatch.setattr(_tiles, 'count_ahead', noted)
  x, _ = clustered(700, 4, 1, 1.0)
  per_query(x, np.maximum(np.arange(700), 400) // 4 * (np.arange(700) > 400))
  assert max(asked) <= _tiles.MANY


def test_a_bar_counts_queries_where_asked(monkeypatch):
  bars = []

  class Bar(per_query_lib.tqdm.tqdm):
    def close(self):
      bars.append((self.disable, self.n, self.total))
      super().close()

  monkeypatch.setattr(per_query_lib.tqdm, 'tqdm', Bar)
  x, y = clustered(90, 4, 9, 1.0)
  x[::9] = x[0]
  per_query(x, y, progress=True)
  per_query(x, y)
  assert bars[0] == (False, 90, 90)
  assert bars[1][0]


def test_a_class_over_all_and_no_positive_at_all():
  x, _ = clustered(333, 4, 1, 1.0)
  result = per_query(x, np.zeros(333), tile=64)
  np.testing.assert_array_equal(result.rank, 1)
  np.testing.assert_array_equal(result.full_ap, 1)
  for options in ({}, {'best_only': True}, {'product': 'bfloat16'}):
    result = per_query(x, np.arange(333), tile=64, **options)
    np.testing.assert_array_equal(result.rank, 0)
    np.testing.assert_array_equal(result.num_positives, 0)
    assert not np.any(result.reciprocal_rank)


@pytest.mark.parametrize(
  ('noise', 'c', 'ties'),
  [
    (0.05, None, 'pessimistic'),
    (0.3, 0.5, 'mean'),
    (2.0, None, 'mean'),
    (2.0, 0.5, 'pessimistic'),
  ],
)
def test_bfloat16_is_exact(noise, c, ties):
  x, y = clustered(600, 24, 60, noise)
  x[::7] = x[3]
  options = {'c': c, 'ties': ties, 'tile': 64, 'block': 128}
  narrow, expected = (
    per_query(x, y, product=product, **options)
    for product in ('bfloat16', 'float32')
  )
  assert_same(narrow, expected)
  assert 86 <= narrow.num_repeated <= 600


def test_bfloat16_is_enough_where_classes_are_apart():
  x, y = clustered(600, 24, 60, 0.05)
  assert per_query(x, y, product='bfloat16', tile=64).num_repeated == 0
  best = per_query(x, y, product='bfloat16', tile=64, best_only=True)
  assert_same(best, per_query(x, y, tile=64, best_only=True))
  assert best.num_repeated == 0


def test_bounds_of_products():
  rng = np.random.default_rng(0)
  q = np.float32(rng.normal(size=(64, 200)))
  g = np.float32(rng.uniform(0, 3, size=(256, 200)))
  made = lift.Lift.about(g)
  order = np.arange(256)
  runs = np.zeros((3, 256), np.int32)
  ranker = _ranking.Ranker(
    made,
    g,
    Layout(order, order, runs),
    best_only=True,
    block=64,
    tile=256,
    narrow=True,
    devices=jax.local_devices()[:1],
  )
  narrow = ranker._narrow.narrow
  rows = made.gallery(g, np.float64)
  queries = made.queries(q)
  exact = made.queries(q, np.float64) @ rows.T
  block = _tiles.Block(ranker._tiles, jnp.asarray(queries), None, None, None)
  for some, slack in ((ranker._tiles, 2e3), (narrow, 30)):
    found = jax.jit(lambda some: block.scores(0, some))(some)
    error = np.abs(np.float64(found.value) - exact).max(1)
    assert np.all(error < found.error)
    assert np.all(np.asarray(found.error) < slack * error)


@pytest.mark.parametrize('slots', [0, 1024])
def test_memory_is_of_a_tile_not_of_all_rows(slots):
  d, block, tile = 16, 64, 256
  mesh = Mesh(np.array(jax.local_devices()[:1]), (_tiles.AXIS,))

  def temporaries(rows):
    shape = lambda dims, dtype: jax.ShapeDtypeStruct(dims, dtype)
    lowered = _tiles.count_ahead.lower(
      _tiles.Tiles(
        shape((rows // tile, tile, d), jnp.float32),
        *2 * [shape((rows // tile,), jnp.float32)],
      ),
      shape((block, d), jnp.float32),
      shape((3, block), jnp.int32),
      shape((), jnp.int32),
      slots=slots,
      mesh=mesh,
    )
    return lowered.compile().memory_analysis().temp_size_in_bytes

  few, many = temporaries(1024), temporaries(1 << 20)
  assert few == many
  assert 0 < many < 8 * block * (tile + 2 * slots) * 4


@pytest.mark.parametrize('d', [2, 33, 64, 257, slowly(7), slowly(514)])
def test_identical_rows_tie_wherever_they_stand(d):
  rng = np.random.default_rng(d)
  x = in_ball(rng, 300, d, 1.0)
  x[::2] = x[0]
  # Every other row is the same, with labels of their own pairs: each query
  # there has its positive tied with the 148 others.
  y = np.arange(300) // 4
  result = per_query(x, y, distance='euclidean', ties='mean', tile=64, block=50)
  np.testing.assert_array_equal(result.rank[::2], (149 + 1) / 2)
