"""Whole runs that are interrupted."""

import os
import signal

from hier_jax.training.distributed import mapping
from hier_jax.training.run import loop


def terminated(monkeypatch, config, workdir, call):
  """What a run returns that gets SIGTERM in so manyth batch it embeds."""
  mapped, calls = mapping.map_embed, []

  def map_embed(*args, **kwargs):
    embed = mapped(*args, **kwargs)

    def called(variables, images):
      calls.append(None)
      if len(calls) == call:
        os.kill(os.getpid(), signal.SIGTERM)
      return embed(variables, images)

    return called

  with monkeypatch.context() as patch:
    patch.setattr(mapping, 'map_embed', map_embed)
    found = loop.train(config, workdir)
  assert len(calls) == call
  return found
