"""Embeddings in files, through the command line and back."""

import json
import math

import numpy as np
import pytest

from hier_jax import cli
from hier_jax.errors import UserError
from hier_jax.evaluation import files
from hier_jax.evaluation.hierarchy import _processes, graded
from hier_jax.evaluation.hierarchy.metrics import hierarchy_metrics
from hier_jax.evaluation.retrieval import metrics as retrieval
from hier_jax.evaluation.taxonomy import Taxonomy
from hier_jax.evaluation.tree.metrics import tree_metrics
from hier_jax.evaluation.tree.proxies import proxy_tree
from hier_jax.evaluation.tree.purity import node_purity

CSV = 'class,family,kind\n' + '\n'.join(
  f'{name},{family},{kind}'
  for name, family, kind in (
    ('cat', 'animal', 'pet'),
    ('dog', 'animal', 'pet'),
    ('cow', 'animal', 'farm'),
    ('car', 'thing', 'wheels'),
    ('bus', 'thing', 'wheels'),
  )
)


@pytest.fixture
def data(tmp_path):
  """Query and gallery files, a taxonomy, and the arrays of the query."""
  rng = np.random.default_rng(0)
  names = np.array(['cat', 'dog', 'cow', 'car', 'bus'])
  centers = rng.standard_normal((5, 6))
  arrays = {}
  for name, each in (('query', 4), ('gallery', 3)):
    labels = np.arange(5).repeat(each)
    x = centers[labels] + rng.standard_normal((len(labels), 6))
    x = (0.3 * x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float32)
    arrays[name] = x, names[labels]
    np.savez(tmp_path / f'{name}.npz', embeddings=x, labels=names[labels])
  (tmp_path / 'tree.csv').write_text(CSV)
  return tmp_path, arrays


def test_metrics_are_those_of_the_arrays(data):
  folder, arrays = data
  task = files.read_task(folder / 'query.npz')
  got = files.metrics(task._replace(recall_at=(1, 3)).with_c(1.0))
  want = retrieval.retrieval_metrics(
    *arrays['query'], c=1.0, recall_at=(1, 3), metrics=files.METRICS
  )
  # All rows are of one length: there is but one ranking.
  means = ('recall@1', 'recall@3', *files.METRICS)
  cosine = {f'cosine/{key}': pytest.approx(want[key]) for key in means}
  assert got == {'c': 1.0} | want | cosine
  assert 'better ranking' not in files.as_lines(got)
  x, labels = arrays['gallery']
  task = files.read_task(folder / 'query.npz', folder / 'gallery.npz')
  got = files.metrics(task)
  want = retrieval.retrieval_metrics(
    *arrays['query'], gallery=x, gallery_labels=labels, metrics=files.METRICS
  )
  assert got == {'c': None, 'num_in_gallery': 0} | want


def test_taxonomy_adds_the_metrics_of_hierarchy(data):
  folder, arrays = data
  tree = Taxonomy.from_csv(folder / 'tree.csv')
  task = files.read_task(folder / 'query.npz')._replace(taxonomy=tree)
  got = files.metrics(task)
  want = hierarchy_metrics(*arrays['query'], tree)
  found = {
    key.removeprefix('hierarchy/'): value
    for key, value in got.items()
    if key.startswith('hierarchy/')
  }
  np.testing.assert_equal(found, want | {'ties': 'pessimistic'})


@pytest.mark.parametrize('gallery', [False, True])
def test_taxonomy_changes_no_metric_of_retrieval(data, gallery, monkeypatch):
  folder, _ = data
  task = files.read_task(
    folder / 'query.npz', folder / 'gallery.npz' if gallery else None
  )._replace(ties='mean')
  taxonomy = Taxonomy.from_csv(folder / 'tree.csv')
  for c in (None, 1.0):
    alone = files.metrics(task.with_c(c))
    found = files.metrics(task.with_c(c)._replace(taxonomy=taxonomy))
    assert alone == {key: found[key] for key in alone}
  # Where few are ranked by levels, all are ranked for retrieval.
  monkeypatch.setattr(files, 'some_are_ranked', lambda *_: True)
  again = files.metrics(task.with_c(1.0)._replace(taxonomy=taxonomy))
  np.testing.assert_equal(again, found)


@pytest.mark.parametrize('gallery', [False, True])
def test_processes_change_no_metric(data, gallery, monkeypatch):
  folder, _ = data
  task = files.read_task(
    folder / 'query.npz', folder / 'gallery.npz' if gallery else None
  )._replace(taxonomy=Taxonomy.from_csv(folder / 'tree.csv'))
  alone = files.metrics(task)
  sizes, shares = [], []

  def number(*given):
    sizes.append(given)
    return 2

  def found(given):
    shares.extend(given)
    return [graded.ranked(**one) for one in given]

  monkeypatch.setattr(_processes, 'number', number)
  monkeypatch.setattr(_processes, '_found', found)
  assert files.metrics(task) == pytest.approx(alone, nan_ok=True)
  assert not shares
  together = files.metrics(task, in_processes=True)
  assert together == pytest.approx(alone, nan_ok=True)
  assert sizes == [(20, 15 if gallery else 20)]
  assert len(shares) == 2


def test_proxies_add_the_metrics_of_their_tree(data):
  folder, arrays = data
  x, labels = arrays['query']
  # Each class has its proxy, a little nearer to the origin.
  center = np.stack(
    [x[labels == name].mean(0) for name in dict.fromkeys(labels)]
  )
  np.savez(folder / 'p.npz', embeddings=x, labels=labels, c=1.0, proxies=center)
  tree = Taxonomy.from_csv(folder / 'tree.csv')
  task = files.read_task(folder / 'p.npz')._replace(taxonomy=tree)
  got = files.metrics(task)
  want = proxy_tree(x, center, c=1.0)
  assert got['proxies/used'] == len(set(want.parent[: len(x)]))
  below = node_purity(want, labels, tree)
  assert got['hierarchy/proxies/class/purity'] == below.mean_purity[-1]
  of_tree = tree_metrics(want, labels, tree)
  assert got['hierarchy/tree/kind/purity'] == of_tree['kind/purity']
  assert 'proxies/used' not in files.metrics(task.with_c(None))


def test_curvature_of_the_file_holds_unless_another_is_given(data):
  folder, arrays = data
  x, labels = arrays['query']
  np.savez(folder / 'ball.npz', embeddings=x, labels=labels, c=0.5)
  task = files.read_task(folder / 'ball.npz')
  assert files.metrics(task)['c'] == 0.5
  assert files.metrics(task.with_c(0.1))['c'] == 0.1


def test_command_may_start_processes(data, monkeypatch):
  folder, _ = data
  asked = []

  def metrics(task, found=files.metrics, **options):
    asked.append(options['in_processes'])
    return found(task)

  monkeypatch.setattr(files, 'metrics', metrics)
  assert cli.main(['hier-jax', 'evaluate', str(folder / 'query.npz')]) == 0
  assert asked == [True]


def test_command_prints_and_writes(data, capsys):
  folder, _ = data
  out = folder / 'metrics.json'
  args = [
    'hier-jax',
    'evaluate',
    str(folder / 'query.npz'),
    '--gallery',
    str(folder / 'gallery.npz'),
    '--c',
    '1',
    '--taxonomy',
    str(folder / 'tree.csv'),
    '--recall_at',
    '1,2',
    '--out',
    str(out),
  ]
  assert cli.main(args) == 0
  written = json.loads(out.read_text())
  assert {'recall@1', 'recall@2', 'map@r', 'hierarchy/h_ap'} < set(written)
  lead, numbers = capsys.readouterr().out.split('\n\n')
  assert lead.startswith('20 queries, by hyperbolic, c = 1; ties pessimistic')
  *lines, last = numbers.splitlines()
  assert last == f'metrics written to {out}'
  printed = dict(line.split() for line in lines)
  assert printed['recall@1'] == f'{written["recall@1"]:.4f}'
  assert not list(folder.glob('*.tmp'))


def test_command_takes_any_curvature(data, capsys):
  folder, arrays = data
  path = str(folder / 'ball.npz')
  x, labels = arrays['query']
  np.savez(path, embeddings=x, labels=labels, c=1.0)
  for flags, lead in (
    ([], '20 queries, by hyperbolic, c = 1;'),
    (['--c', '0.5'], '20 queries, by hyperbolic, c = 0.5;'),
    (['--c', '0'], '20 queries, by euclidean, c = 0;'),
    (['--c', 'none'], '20 queries, by cosine;'),
  ):
    assert cli.main(['hier-jax', 'evaluate', path, *flags]) == 0
    assert capsys.readouterr().out.startswith(lead)


@pytest.mark.parametrize(
  ('args', 'message'),
  [
    ([], 'evaluate needs the workdir of a run, WORKDIR/checkpoints/STEP or'),
    (['query.npz', '--query', 'test'], '--query is test, which is for the wor'),
    (['query.npz', '--recall_at', '1,x'], '--recall_at=1,x: expected integ'),
    (['query.npz', '--export', 'annoy'], '--export=annoy: expected faiss'),
    (['.'], 'holds no config.json'),
    (['nowhere.npz'], 'nowhere.npz does not exist'),
    (['broken.npz'], r'broken.npz is no .npz'),
    (['other.npz'], r"lacks the array 'embeddings', it holds x"),
    (['query.npz', '--c', '-1'], 'expected None (cosine), 0'),
    (['query.npz', '--recall_at', '0'], 'K of recall_at'),
    (['runs/mistyped'], 'runs/mistyped does not exist: expected the workdir'),
    (['mistyped', '--query', 'test'], 'mistyped does not exist: expected the'),
    (['array.npy'], 'array.npy holds one array without a name, as .npy does'),
    (['auto.npz'], "`c of auto.npz` is 'auto'; expected None (cosine), 0"),
    (['null.npz'], '`c` holds Python objects, which are not unpickled'),
    (['objects.npz'], '`labels` holds Python objects, which are not unpickled'),
    (['latin.npz'], 'latin.npz: `labels` are bytes and no UTF-8'),
    (['query.npz', '--gallery', 'query.npz'], 'same 20 rows as the queries'),
    (
      ['query.npz', '--gallery', 'ball.npz'],
      'c = None and the gallery c = 0.5',
    ),
    (
      ['ball.npz', '--gallery', 'query.npz'],
      'c = 0.5 and the gallery c = None',
    ),
    (['query.npz', 'stray'], "unexpected argument 'stray'"),
  ],
)
def test_mistakes_are_one_line_and_code_2(
  data, monkeypatch, capsys, args, message
):
  folder, _ = data
  monkeypatch.chdir(folder)
  (folder / 'broken.npz').write_text('hello')
  np.savez(folder / 'other.npz', x=np.ones(3))
  np.save(folder / 'array.npy', np.ones((3, 2)))
  x = np.ones((2, 3))
  for name, others in {
    'auto': {'labels': [1, 2], 'c': 'auto'},
    'null': {'labels': [1, 2], 'c': np.array(None)},
    'objects': {'labels': np.array(['a', 'b'], object)},
    'latin': {'labels': np.array([b'\xe9', b'b'])},
    'ball': {'labels': ['cat', 'dog'], 'c': 0.5},
  }.items():
    np.savez(folder / f'{name}.npz', embeddings=0.1 * x, **others)
  assert cli.main(['hier-jax', 'evaluate', *args]) == 2
  error = capsys.readouterr().err
  assert error.count('\n') == 1
  assert message in error


def test_metrics_that_are_not_defined_are_null(tmp_path):
  files.write_json({'a': float('nan'), 'b': 1}, tmp_path / 'x.json')
  assert json.loads((tmp_path / 'x.json').read_text()) == {'a': None, 'b': 1}


def test_curvature_must_be_a_number(data):
  folder, arrays = data
  x, labels = arrays['query']
  np.savez(folder / 'two.npz', embeddings=x, labels=labels, c=[1.0, 2.0])
  with pytest.raises(UserError, match=r'`c` has shape \(2,\)'):
    files.read(folder / 'two.npz')


def test_what_is_not_read_does_not_matter(data):
  folder, arrays = data
  x, labels = arrays['query']
  junk = np.array([{'a': 1}], object)
  np.savez(folder / 'more.npz', embeddings=x, labels=labels, junk=junk)
  assert files.read(folder / 'more.npz').c is None


def test_bytes_and_text_are_the_same_labels(data):
  folder, arrays = data
  x, labels = arrays['query']
  np.savez(folder / 'bytes.npz', embeddings=x, labels=labels.astype('S'))
  task = files.read_task(folder / 'bytes.npz', folder / 'gallery.npz')
  plain = files.read_task(folder / 'query.npz', folder / 'gallery.npz')
  tree = Taxonomy.from_csv(folder / 'tree.csv')
  got, want = (
    files.metrics(some._replace(taxonomy=tree)) for some in (task, plain)
  )
  np.testing.assert_equal(got, want)


def test_c_of_a_file_says_what_its_rows_are_ranked_by(data):
  folder, arrays = data
  x, labels = arrays['query']
  distances = {}
  for name, c in {'cosine': {}, 'flat': {'c': 0}, 'ball': {'c': 0.5}}.items():
    np.savez(folder / f'{name}.npz', embeddings=x, labels=labels, **c)
    found = files.metrics(files.read_task(folder / f'{name}.npz'))
    distances[name] = found['distance'], found['c']
    assert f'by {found["distance"]};' in files.as_lines(found)
  assert distances == {
    'cosine': ('cosine', None),
    'flat': ('euclidean, c = 0', 0.0),
    'ball': ('hyperbolic, c = 0.5', 0.5),
  }
  both = [folder / 'flat.npz', folder / 'cosine.npz']
  with pytest.raises(UserError, match=r'c = 0\.0 and the gallery c = None'):
    files.metrics(files.read_task(*both))


def test_curvatures_that_differ_need_one_that_is_given(data):
  folder, arrays = data
  for name, c in (('query', 0.5), ('gallery', 0.1)):
    x, labels = arrays[name]
    np.savez(folder / f'{name}_c.npz', embeddings=x, labels=labels, c=c)
  task = files.read_task(folder / 'query_c.npz', folder / 'gallery_c.npz')
  with pytest.raises(UserError, match='the gallery c = '):
    files.metrics(task)
  assert files.metrics(task.with_c(0.1))['c'] == 0.1


def test_a_star_is_said_first(data):
  folder, arrays = data
  x, labels = arrays['query']
  # All items are nearer to the first proxy than to any other.
  proxies = np.array([[0.0] * 6, [0.99] + [0.0] * 5, [-0.99] + [0.0] * 5])
  np.savez(
    folder / 's.npz', embeddings=x, labels=labels, c=1.0, proxies=proxies
  )
  found = files.metrics(files.read_task(folder / 's.npz'))
  keys = ('num', 'used', 'perplexity', 'at_root')
  assert [found[f'proxies/{key}'] for key in keys] == [3, 1, 1, 1]
  first = files.as_lines(found).splitlines()[0]
  assert first.startswith(
    'The learned tree is a star: all items hang under one'
  )


def test_ties_are_those_asked_for(data):
  folder, _ = data
  task = files.read_task(folder / 'query.npz')._replace(ties='expected')
  found = files.metrics(task)
  assert (found['ties'], found['distance']) == ('expected', 'cosine')
  lead = files.as_lines(found | {'num_unresolved': 3}).splitlines()
  assert lead[:2] == [
    '20 queries, by cosine; ties expected, on which 0 queries depend.',
    '3 queries hold items that float32 cannot tell apart; these count as ties.',
  ]


def test_the_better_ranking_of_points_of_the_ball_is_said(tmp_path):
  # Each class lies in one direction, and near the other one at each radius.
  directions = np.array([[1, 0], [math.cos(0.2), math.sin(0.2)]])
  x = np.repeat(directions, 2, axis=0) * [[0.1], [0.9], [0.1], [0.9]]
  np.savez(tmp_path / 'x.npz', embeddings=x, labels=[0, 0, 1, 1], c=1.0)
  found = files.metrics(files.read_task(tmp_path / 'x.npz'))
  assert (found['map@r'], found['cosine/map@r']) == (0, 1)
  assert (
    'The better ranking is by cosine: MAP@R is 0.0000 by hyperbolic distance'
    ' and 1.0000 by cosine (--c none).'
  ) in files.as_lines(found)
  alone = files.metrics(files.read_task(tmp_path / 'x.npz').with_c(None))
  assert alone['map@r'] == 1 and 'cosine/map@r' not in alone


def test_a_dictionary_is_no_taxonomy(data):
  _, arrays = data
  with pytest.raises(UserError, match='`taxonomy` is a dict; expected a Taxon'):
    hierarchy_metrics(*arrays['query'], {'cat': 'animal'})


def test_queries_in_their_gallery_are_refused_or_counted(tmp_path):
  rng = np.random.default_rng(0)
  x, y = rng.normal(size=(12, 3)), np.arange(12) % 4
  order = rng.permutation(12)
  save = lambda name, rows: np.savez(
    tmp_path / name, embeddings=x[rows].astype(np.float32), labels=y[rows]
  )
  ranked = lambda gallery: files.metrics(
    files.read_task(tmp_path / 'q.npz', tmp_path / gallery)
  )
  save('q.npz', np.arange(12))
  save('shuffled.npz', order)
  save('part.npz', order[:7])
  with pytest.raises(UserError, match='holds the same 12 rows as the queries'):
    ranked('shuffled.npz')
  found = ranked('part.npz')
  assert found['num_in_gallery'] == 7
  text = files.as_lines(found)
  assert '7 queries are rows of the gallery too, and find themselves' in text


def test_hierarchy_says_where_its_ties_are_others():
  x = np.array([[1.0, 0], [1, 0], [0, 1], [0, 1]])
  embedded = files.Embedded(x, np.array(['a', 'a', 'b', 'b']))
  taxonomy = Taxonomy.from_levels([['g'], ['g']], ['a', 'b'])
  task = files.Task(embedded, None, taxonomy=taxonomy, ties='expected')
  found = files.metrics(task)
  assert found['ties'] == 'expected'
  assert found['hierarchy/ties'] == 'pessimistic'
  assert 'hierarchy have ties pessimistic' in files.as_lines(found)


@pytest.mark.parametrize('content', [b'a,b\n', b'\x89PNG\r\n', b'{"a": 1}'])
def test_other_files_are_no_npz(tmp_path, content):
  (tmp_path / 'a.csv').write_bytes(content)
  with pytest.raises(UserError, match=r'a\.csv is no \.npz: write it'):
    files.read(tmp_path / 'a.csv')
