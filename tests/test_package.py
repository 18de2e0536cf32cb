"""What is installed and released: archives, extras, image, workflows."""

import configparser
import pathlib
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile

import pytest

import hier_jax
from hier_jax.configs import quickstart
from hier_jax.training.config import files
from tests.support import places

ROOT = places.ROOT
ASSETS = 'hier_jax/data/builders/emoji_assets'
NAME = f'hier_jax-{hier_jax.__version__}'


def settings():
  parser = configparser.ConfigParser()
  parser.read(ROOT / 'setup.cfg')
  return parser


def build(kind, source, out):
  code = f"from setuptools import build_meta as b; b.build_{kind}('{out}')"
  subprocess.run(
    [sys.executable, '-c', code], cwd=source, check=True, capture_output=True
  )


@pytest.fixture(scope='module')
def archives(tmp_path_factory):
  """The source archive, and the wheel that is built from it alone."""
  pytest.importorskip('setuptools', '77', 'the wheel is built by setuptools')
  folder = tmp_path_factory.mktemp('package')
  source = folder / 'source'
  # What the image is built from, too.
  needed = re.findall(r'^!(.+)$', (ROOT / '.dockerignore').read_text(), re.M)
  source.mkdir()
  for name in (*needed, 'CHANGELOG.md', 'CITATION.cff'):
    if (ROOT / name).is_dir():
      ignored = shutil.ignore_patterns('node_modules', '__pycache__')
      shutil.copytree(ROOT / name, source / name, ignore=ignored)
    else:
      shutil.copy(ROOT / name, source)
  build('sdist', source, folder)
  with tarfile.open(folder / f'{NAME}.tar.gz') as archive:
    archive.extractall(folder, filter='data')
  build('wheel', folder / NAME, folder)
  return folder / NAME, zipfile.ZipFile(folder / f'{NAME}-py3-none-any.whl')


@pytest.mark.slow
def test_source_archive_holds_what_builds_and_no_tests(archives):
  source, _ = archives
  found = {path.name for path in source.iterdir()}
  assert found >= {'CHANGELOG.md', 'CITATION.cff', 'LICENSE', 'pyproject.toml'}
  assert 'tests' not in found


@pytest.mark.slow
def test_wheel_holds_every_module_and_config(archives):
  names = set(archives[1].namelist())
  modules = (ROOT / 'hier_jax').rglob('*.py')
  assert {path.relative_to(ROOT).as_posix() for path in modules} <= names
  assert {f'hier_jax/configs/{name}.py' for name in files.names()} <= names
  data = f'{ASSETS}/images.zip', 'hier_jax/viz/page/built/page.html'
  assert {*data, 'hier_jax/py.typed'} <= names
  tops = {pathlib.PurePath(name).parts[0] for name in names}
  assert tops == {'hier_jax', f'{NAME}.dist-info'}
  assert not [name for name in names if '/page/src/' in name]


@pytest.mark.slow
def test_wheel_holds_the_licenses_of_code_and_images(archives):
  _, wheel = archives
  licenses = (ROOT / ASSETS / 'licenses').iterdir()
  expected = [path.relative_to(ROOT).as_posix() for path in licenses]
  expected += ['LICENSE', f'{ASSETS}/ATTRIBUTION.md']
  for name in expected:
    kept = wheel.read(f'{NAME}.dist-info/licenses/{name}')
    assert kept == (ROOT / name).read_bytes()


@pytest.mark.slow
def test_installed_wheel_knows_configs_by_name(archives, tmp_path):
  archives[1].extractall(tmp_path)
  code = 'from hier_jax.training.config import files; print(files.__file__)'
  code += ";print(files.load('quickstart').epochs, *files.names())"
  ran = subprocess.run(
    [sys.executable, '-c', code],
    cwd=tmp_path,
    env={'PYTHONPATH': str(tmp_path), 'JAX_PLATFORMS': 'cpu'},
    capture_output=True,
    text=True,
    check=True,
  )
  file, loaded = ran.stdout.splitlines()
  assert pathlib.Path(file).is_relative_to(tmp_path)
  epochs = quickstart.get_config().epochs
  assert loaded == ' '.join([str(epochs), *files.names()])


def test_the_help_of_train_names_the_configs():
  from hier_jax import cli

  *others, last = files.names()
  text = ' '.join(cli.VERBS['train'].help().split())
  assert f'({", ".join(others)} or {last})' in text


def test_every_extra_says_what_it_is_for():
  section = (ROOT / 'setup.cfg').read_text().split('extras_require]\n')[1]
  lines = section.split('\n[')[0].splitlines()
  before = dict(zip(lines[1:], lines, strict=False))
  for extra in settings()['options.extras_require']:
    assert before.get(f'{extra} =', lines[0]).startswith('# '), extra


def test_packages_of_an_extra_have_the_bounds_of_the_others():
  """The same package is asked for in the same words wherever it is."""
  bounds = {}
  for extra, lines in settings()['options.extras_require'].items():
    for line in lines.strip().splitlines():
      name = re.match(r'[\w-]+', line)[0]
      assert bounds.setdefault(name, line) == line, (extra, line)


def test_the_image_is_built_by_what_the_cluster_file_says():
  image = (ROOT / 'Dockerfile').read_text()
  jobset = (ROOT / 'experiments' / 'cluster' / 'jobset.yaml').read_text()
  for text in (image, jobset):
    arguments = re.findall(r'--build-arg (\w+)=', text)
    assert arguments and {f'ARG {a}' for a in arguments} <= {
      line.partition('=')[0] for line in image.splitlines()
    }
  extras = re.search(r'^ARG EXTRAS=(.*)$', image, re.M)[1].split(',')
  assert set(extras) <= set(settings()['options.extras_require'])
  # The source is not in it.
  assert 'experiments/configs' not in jobset and '/app' not in jobset


def test_workflows_run_on_the_supported_versions():
  yaml = pytest.importorskip('yaml')
  folder = ROOT / '.github' / 'workflows'
  flows = {p.stem: yaml.safe_load(p.read_text()) for p in folder.glob('*.yml')}
  assert set(flows) == {'docs', 'release', 'tests'}
  tested = flows['tests']['jobs']['pytest']['strategy']['matrix']['python']
  claimed = re.findall(
    r':: (3\.\d+)$', settings()['metadata']['classifiers'], re.M
  )
  assert set(claimed) <= set(tested)
  least = settings()['options']['python_requires'].removeprefix('>=')
  assert tested[0] == claimed[0] == least
  for flow in flows.values():
    assert flow['permissions'] == {'contents': 'read'}
    for job in flow['jobs'].values():
      assert 'uses' in job or job['timeout-minutes'] <= 120


def test_release_checklist_is_commands():
  text = (ROOT / 'CONTRIBUTING.md').read_text().split('## Release\n')[1]
  lines = re.findall(r'^    (.+)$', text, re.M)
  assert lines[-1] == 'git push origin "v$version"'
  subprocess.run(['bash', '-n'], input='\n'.join(lines), text=True, check=True)
