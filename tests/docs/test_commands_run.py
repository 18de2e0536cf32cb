"""Commands on the pages run, page by page, on a tiny run and tiny images."""

import importlib.util
import pathlib
import shutil

import numpy as np
import pytest
from PIL import Image

from hier_jax.data import datasets
from hier_jax.training.config import files
from tests.support import (
  finished_runs,
  pages,
  shared_programs,
  training_data,
)
from tests.support.command_line import run

# Beginnings of what is not run, with the reason.
LEFT_OUT = {
  'hier-jax data prepare cub200': 'the data set has to be downloaded',
  'hier-jax train --config cub': 'the data set has to be downloaded',
  'hier-jax report runs/cub': 'it compares runs on that data set',
  'hier-jax convert dino_deitsmall16_pretrain.pth': 'DINO publishes the file',
  'hier-jax embed dinov2_vits14': 'the weights come from the hub',
  'hier-jax embed --out': 'it lacks its model and source',
}
# Extras of the formats that a package here may not be there for.
NEEDED = {'--format onnx': 'jax2onnx', '--format stablehlo': 'flatbuffers'}


def to_run(page):
  """The commands of a page that are whole and whose data are here."""
  return [
    words
    for words in dict.fromkeys(map(tuple, pages.commands(page.read_text())))
    if words[0] == 'hier-jax' and (len(words) > 2 or words[1] == '--version')
    if not any(' '.join(words).startswith(start) for start in LEFT_OUT)
  ]


def installed(words):
  """Whether the extra that a command needs is there."""
  needed = [name for flag, name in NEEDED.items() if flag in ' '.join(words)]
  return all(importlib.util.find_spec(name) for name in needed)


def picture(path, color, rng):
  path.parent.mkdir(parents=True, exist_ok=True)
  noise = rng.integers(-40, 40, (16, 16, 3))
  Image.fromarray(np.clip(color + noise, 0, 255).astype(np.uint8)).save(path)


def photos(folder):
  """Two dozen classes of three images."""
  rng = np.random.default_rng(0)
  names = ['goose', *(f'class{k}' for k in range(23))]
  for name in names:
    color = rng.integers(0, 256, 3)
    for file in ('noto.webp', '1.png', '2.jpg'):
      picture(folder / name / file, color, rng)


@pytest.fixture(autouse=True)
def _forget_large_programs():
  """Leaves out what tests/conftest.py does: here programs are shared."""


@pytest.fixture(scope='module')
def place(tmp_path_factory):
  """A folder with all that the pages take for granted."""
  folder = tmp_path_factory.mktemp('reader')
  load, made = datasets.load, training_data.splits()
  tiny = lambda text: training_data.config(epochs=1)
  here = lambda name, **options: (
    load(name, **options) if name.startswith('folder/') else made
  )
  with pytest.MonkeyPatch.context() as patch:
    patch.chdir(folder)
    patch.setattr(datasets, 'load', here)
    patch.setattr(files, 'load', tiny)
    shared_programs.use(patch)
    photos(pathlib.Path('photos'))
    shutil.copy('photos/class0/2.jpg', 'cat.jpg')
    rows = np.random.default_rng(0).normal(size=(8, 4))
    for name in ('x', 'plain'):
      np.savez(f'{name}.npz', embeddings=rows, labels=np.arange(8) // 2)
    for name, weight in ('with', 0.5), ('alone', 0.0):
      finished_runs.make(
        folder / 'runs' / name, 0.5, **{'loss.hier_weight': weight}
      )
    trained = 'train', '--config', 'quickstart', '--workdir', 'runs/quickstart'
    assert run(*trained) == 0
    for name in ('photos.npz', 'photos.faiss'):
      assert run('embed', 'runs/quickstart', 'photos/', '--out', name) == 0
    yield folder


@pytest.mark.parametrize(
  'page', [p for p in pages.pages() if to_run(p)], ids=lambda page: page.name
)
@pytest.mark.slow
def test_commands_of_a_page_run(page, place, capsys):
  for package in ('faiss', 'matplotlib'):
    pytest.importorskip(package)
  for words in filter(installed, to_run(page)):
    # Each section of a page exports into the same folder.
    if words[1] == 'export':
      shutil.rmtree('exported', ignore_errors=True)
    assert run(*words[1:]) == 0, (words, capsys.readouterr().err)


def test_what_is_left_out_is_on_a_page():
  said = [
    ' '.join(words)
    for page in pages.pages()
    for words in pages.commands(page.read_text())
  ]
  for start in LEFT_OUT:
    assert any(words.startswith(start) for words in said), start


def test_most_commands_run():
  assert sum(len(to_run(page)) for page in pages.pages()) > 30
