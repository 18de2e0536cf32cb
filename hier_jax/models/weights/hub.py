"""Weights from the Hugging Face hub, or from its cache without network."""

import importlib.util
import pathlib
import socket
import urllib.parse
import urllib.request

from hier_jax.errors import UserError

__all__ = ['FILES', 'check_installed', 'download']

# What repositories of models call their weights, the one to prefer first.
FILES = 'model.safetensors', 'pytorch_model.bin'


def check_installed(repository: str) -> None:
  """Raises UserError where huggingface_hub is missing."""
  if importlib.util.find_spec('huggingface_hub') is None:
    raise UserError(
      f'{repository} lies on the Hugging Face hub, which needs huggingface_hub:'
      " pip install 'hier_jax[hub]', or give the path of a file"
    )


def download(
  repository: str, *, cache_dir: str | pathlib.Path | None = None
) -> pathlib.Path:
  """Downloads the weights of a repository unless the cache has them.

  Args:
    repository: `<owner>/<name>`: 'timm/vit_small_patch16_224.dino'.
    cache_dir: the cache; None for huggingface_hub's own, which the environment
      variables HF_HOME and HF_HUB_CACHE set.

  Returns:
    The path of the file in the cache.

  Raises:
    UserError: huggingface_hub is not installed, there is no such repository or
      it has no weights, or neither cache nor network has them.
  """
  check_installed(repository)
  import huggingface_hub
  from huggingface_hub import errors

  # The cache first: without network, a look at the hub takes half a minute of
  # retries, and published weights do not change.
  for local in (True, False):
    if not local:
      _check_reachable(repository)
    for name in FILES:
      try:
        return pathlib.Path(
          huggingface_hub.hf_hub_download(
            repository, name, cache_dir=cache_dir, local_files_only=local
          )
        )
      except errors.LocalEntryNotFoundError as error:
        if not local:
          raise _unreachable(repository) from error
      except errors.EntryNotFoundError:
        continue
      except (errors.RepositoryNotFoundError, ValueError) as error:
        raise UserError(
          f'there is no public repository {repository!r} on the Hugging Face'
          ' hub: check its name, or give the path of a file'
        ) from error
      except OSError as error:
        reason = str(error).splitlines()[0]
        raise UserError(
          f'{repository} cannot be fetched ({reason}): try again, or give the'
          ' path of a file'
        ) from error
  raise UserError(
    f'{repository} has none of {", ".join(FILES)}: fetch its weights elsewhere'
    ' and give the path of the file'
  )


def _check_reachable(repository: str) -> None:
  """Raises UserError where the hub has no address: its client tries for long.

  Behind a proxy only the proxy needs to know it.
  """
  from huggingface_hub import constants

  address = urllib.parse.urlsplit(constants.ENDPOINT)
  if constants.HF_HUB_OFFLINE or urllib.request.getproxies():
    return
  try:
    socket.getaddrinfo(address.hostname, address.port or address.scheme)
  except OSError as error:
    raise _unreachable(repository) from error


def _unreachable(repository: str) -> UserError:
  return UserError(
    f'{repository} is not in the cache and the hub cannot be reached: if a file'
    ' is meant, check its path; else connect to a network once, or fetch'
    f' {FILES[0]} elsewhere and give its path'
  )
