"""What is trained, and for how long."""

import dataclasses

from hier_jax.errors import UserError

__all__ = ['REGIMES', 'Regime', 'regime']


@dataclasses.dataclass(frozen=True)
class Regime:
  """A linear head on frozen features.

  Attributes:
    dim: size of the embeddings.
    epochs: the budget of a run.
    images: images of each training class; None for all.
  """

  dim: int
  epochs: int = 30
  images: int | None = None


REGIMES = {
  'a128': Regime(128),
  'a12': Regime(12),
  'd': Regime(128, epochs=100, images=3),
}


def regime(name: str) -> Regime:
  """The regime of a name.

  Raises:
    UserError: there is no such regime.
  """
  if name not in REGIMES:
    raise UserError(
      f'regime {name!r} is unknown; expected one of {", ".join(REGIMES)}'
    )
  return REGIMES[name]
