"""`hier-jax figures`."""

import numpy as np
import pytest
from PIL import Image

from hier_jax import cli
from tests.support import collections, figures


def run(*arguments):
  return cli.main(['hier-jax', 'figures', *map(str, arguments)])


@pytest.fixture
def file(tmp_path):
  made = collections.planted(images=3)
  names = [*figures.HOSTILE[:3], *(f'class {i}' for i in range(14))]
  labels = np.array(names)[made.labels]
  path = tmp_path / 'found.npz'
  rows = {'embeddings': made.embeddings, 'proxies': made.proxies, 'c': 1.0}
  np.savez(path, labels=labels, **rows)
  return path


def written(folder):
  return sorted(path.name for path in folder.iterdir())


def test_all_lie_beside_the_file(file, capsys):
  assert run(file, '--theme', 'dark') == 0
  folder = file.parent / 'found-figures'
  names = ['disk.png', 'histograms.png', 'icicle.png', 'worst.png']
  assert written(folder) == names
  assert f'disk written to {folder / "disk.png"}' in capsys.readouterr().out
  for name in names:
    with Image.open(folder / name) as image:
      corner = image.convert('RGB').getpixel((0, 0))
    assert corner == (13, 17, 23), name


def test_some_as_svg(file, tmp_path):
  out = tmp_path / 'new' / 'folder'
  args = ['--format=svg', '--layout=pca', '--level=class', '--from=linkage']
  assert run(file, '--out', out, '--only=disk,worst', *args) == 0
  assert written(out) == ['disk.svg', 'worst.html']
  text = ' '.join(figures.svg_texts(out / 'disk.svg'))
  assert 'Tangent PCA' in text and 'omplete linkage' in text
  assert '</text><script>' in text


def test_without_labels_the_others_are_drawn(file, capsys):
  np.savez(file, embeddings=np.eye(5))
  assert run(file) == 0
  told = capsys.readouterr()
  assert 'no histograms: the images have no labels' in told.err
  assert 'no worst: the images have no labels' in told.err
  assert written(file.parent / 'found-figures') == ['disk.png', 'icicle.png']


@pytest.mark.parametrize(
  ('arguments', 'message'),
  [
    ((), 'figures needs the workdir'),
    (('--only', 'disc'), '--only=disc: expected disk, icicle, histograms or'),
    (('--theme', 'sepia'), '--theme=sepia: expected light or dark'),
    (('--format', 'pdf'), '--format=pdf: expected png or svg'),
    (('--level', 'clas'), "did you mean 'class'?"),
    (('--out', 'found.npz'), 'found.npz is an input'),
    (('--split', 'test'), 'no run'),
  ],
)
def test_mistakes_write_nothing(file, monkeypatch, arguments, message, capsys):
  monkeypatch.chdir(file.parent)
  assert run(*((file, *arguments) if arguments else ())) == 2
  error = capsys.readouterr().err
  assert message in error and error.count('\n') == 1
  assert written(file.parent) == ['found.npz']


@pytest.mark.parametrize('only', ['histograms', 'worst'])
def test_what_is_asked_for_and_cannot_be_drawn_is_a_mistake(file, only, capsys):
  np.savez(file, embeddings=np.eye(5))
  assert run(file, '--only', only) == 2
  assert 'have no labels' in capsys.readouterr().err
  np.savez(file, embeddings=np.full((3, 2), np.nan), labels=['a', 'b', 'a'])
  assert run(file, '--only', only) == 2
  assert 'NaN' in capsys.readouterr().err
  assert written(file.parent) == ['found.npz']
