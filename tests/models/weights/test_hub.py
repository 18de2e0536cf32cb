"""Weights from the hub's cache, and what is said without a network."""

import socket
import sys
import urllib.request

import pytest

from hier_jax.errors import UserError
from hier_jax.models import vit
from hier_jax.models.weights import hub, pretrained
from tests.support import places

DATA = places.FIXTURES
REPOSITORY = 'timm/vit_small_patch16_224.dino'


@pytest.fixture
def offline(monkeypatch):
  """The hub's client, without a network."""
  package = pytest.importorskip('huggingface_hub')
  from huggingface_hub import constants

  monkeypatch.setattr(constants, 'HF_HUB_OFFLINE', True)
  return package


def _cache(folder, name, content=b'weights'):
  """A cache of one file, laid out as the hub's client does."""
  commit = '0123456789' * 4
  repository = folder / f'models--{REPOSITORY.replace("/", "--")}'
  snapshot = repository / 'snapshots' / commit
  snapshot.mkdir(parents=True)
  (snapshot / name).write_bytes(content)
  (repository / 'refs').mkdir()
  (repository / 'refs' / 'main').write_text(commit)
  return snapshot / name


@pytest.mark.parametrize('name', hub.FILES)
def test_cached_files_need_no_network(tmp_path, offline, name):
  path = _cache(tmp_path, name)
  assert hub.download(REPOSITORY, cache_dir=tmp_path) == path


def test_names_load_from_the_cache(tmp_path, offline):
  weights = (DATA / 'parity_timm_vit.safetensors').read_bytes()
  _cache(tmp_path, hub.FILES[0], weights)
  model = vit.ViT(patch_size=4, width=16, depth=2, num_heads=2, image_size=16)
  for source in (REPOSITORY, 'dino_vits16'):
    loaded = pretrained.load(source, model, cache_dir=tmp_path)
    assert loaded.dropped == ('head.bias', 'head.weight')


def test_neither_cached_nor_reachable(tmp_path, offline):
  with pytest.raises(
    UserError,
    match=rf'{REPOSITORY} is not in the cache and the hub cannot be reached',
  ):
    hub.download(REPOSITORY, cache_dir=tmp_path)


def test_a_hub_without_an_address_is_not_tried(tmp_path, monkeypatch):
  """Its client would try again for half a minute."""
  package = pytest.importorskip('huggingface_hub')
  from huggingface_hub import constants, errors

  def download(*_, local_files_only, **__):
    assert local_files_only
    raise errors.LocalEntryNotFoundError('not cached')

  def unknown(*_):
    raise socket.gaierror(-2, 'Name or service not known')

  monkeypatch.setattr(package, 'hf_hub_download', download)
  monkeypatch.setattr(constants, 'HF_HUB_OFFLINE', False)
  monkeypatch.setattr(urllib.request, 'getproxies', dict)
  monkeypatch.setattr(socket, 'getaddrinfo', unknown)
  with pytest.raises(UserError, match='check its path'):
    hub.download(REPOSITORY)


def test_a_misspelled_file_of_a_folder_is_no_repository(tmp_path, monkeypatch):
  monkeypatch.setattr(hub, 'download', lambda *_, **__: pytest.fail('asked'))
  monkeypatch.chdir(tmp_path)
  (tmp_path / 'weights').mkdir()
  for source in ('weights/dinno', './dinno'):
    with pytest.raises(UserError, match=f'no file {source}: check its name'):
      pretrained.convert(source, tmp_path / 'a.safetensors')


def test_names_that_the_hub_does_not_allow(tmp_path, offline):
  with pytest.raises(UserError, match="no public repository 'a/b/c'"):
    hub.download('a/b/c', cache_dir=tmp_path)


def _remote(monkeypatch, package, failure):
  """Lets the hub answer as `failure(repository, file)` does."""
  from huggingface_hub import errors

  def download(repository, name, *, cache_dir, local_files_only):
    if local_files_only:
      raise errors.LocalEntryNotFoundError('not cached')
    return failure(repository, name)

  monkeypatch.setattr(package, 'hf_hub_download', download)


def test_the_older_format_where_there_is_no_other(monkeypatch, offline):
  from huggingface_hub import errors

  def answer(repository, name):
    if name == hub.FILES[0]:
      raise errors.EntryNotFoundError(name)
    return f'/{repository}/{name}'

  _remote(monkeypatch, offline, answer)
  assert str(hub.download(REPOSITORY)) == f'/{REPOSITORY}/pytorch_model.bin'


def test_repositories_without_weights(monkeypatch, offline):
  from huggingface_hub import errors

  def answer(repository, name):
    raise errors.EntryNotFoundError(name)

  _remote(monkeypatch, offline, answer)
  with pytest.raises(UserError, match=f'has none of {hub.FILES[0]}'):
    hub.download(REPOSITORY)


def test_repositories_that_do_not_exist(monkeypatch, offline):
  from huggingface_hub import errors

  def answer(repository, name):
    # Its constructor differs among versions.
    raise errors.RepositoryNotFoundError.__new__(errors.RepositoryNotFoundError)

  _remote(monkeypatch, offline, answer)
  with pytest.raises(UserError, match=f"no public repository '{REPOSITORY}'"):
    hub.download(REPOSITORY)


def test_other_failures_of_the_network(monkeypatch, offline):
  def answer(repository, name):
    raise ConnectionError('reset by peer')

  _remote(monkeypatch, offline, answer)
  with pytest.raises(UserError, match=r'cannot be fetched \(reset by peer\)'):
    hub.download(REPOSITORY)


def test_without_the_hubs_client(monkeypatch):
  monkeypatch.setitem(sys.modules, 'huggingface_hub', None)
  with pytest.raises(UserError, match=r"pip install 'hier_jax\[hub\]'"):
    hub.download(REPOSITORY)
