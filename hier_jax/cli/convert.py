"""`hier-jax convert`."""

from absl import flags

from hier_jax.cli import verbs
from hier_jax.errors import UserError

__all__ = ['VERB']


def _define(values: flags.FlagValues) -> None:
  verbs.text_flags(
    values,
    architecture="NAME: The backbone's name, needed only if SOURCE does not"
    ' determine it.',
  )
  verbs.switch_flag(
    values, 'timm', "Write the arrays under timm's names, for PyTorch."
  )


def _run(values: flags.FlagValues, arguments: list[str]) -> None:
  if len(arguments) < 2:
    raise UserError(
      'convert needs a SOURCE, which is a file or the name of published'
      ' weights, and a TARGET.safetensors, found'
      f' {" ".join(arguments) or "nothing"}; see hier-jax convert --help'
    )
  from hier_jax.models.weights import pretrained

  name, loaded = pretrained.convert(
    *arguments, architecture=values.architecture, timm=values.timm
  )
  print(f'{name}: {loaded.summary()}')


VERB = verbs.Verb(
  'convert',
  ('convert SOURCE TARGET.safetensors [--architecture NAME] [--timm]',),
  'Convert pretrained weights from a file, or published under a name, to the'
  ' format of hier_jax or of timm.',
  _define,
  _run,
  positional=2,
)
