"""`hier-jax data`."""

from absl import flags

from hier_jax.cli import verbs
from hier_jax.errors import UserError, did_you_mean

__all__ = ['VERB']

_ACTIONS = 'prepare', 'info'
# Flag -> the only action that takes it.
_OF = {'from': 'prepare', 'sheet': 'info'}


def _define(values: flags.FlagValues) -> None:
  verbs.text_flags(
    values,
    data_dir='DIR: The folder of prepared data sets; by default TFDS_DATA_DIR'
    ' if it is set, else ~/tensorflow_datasets.',
    sheet='PNG: Write a contact sheet of some images to this file too (info).',
    **{'from': 'DIR: The folder of the images to read (prepare).'},
  )
  verbs.number_flag(
    values,
    'max_megapixels',
    'N: Refuse images with more megapixels before they are decoded; 64 by'
    ' default.',
  )


def _run(values: flags.FlagValues, arguments: list[str]) -> None:
  action, name = _action_and_name(arguments)
  for flag, only in _OF.items():
    if values[flag].value is not None and action != only:
      raise UserError(
        f'--{flag} is {values[flag].value}, but only data {only} takes it:'
        f' leave it out of data {action}'
      )
  where = {'data_dir': values.data_dir}
  if values.max_megapixels is not None:
    if not values.max_megapixels > 0:
      raise UserError(
        f'--max_megapixels is {values.max_megapixels:g}; expected a number'
        ' above 0, such as 64'
      )
    where['max_megapixels'] = values.max_megapixels
  # Heavy imports wait until the arguments are known to be right.
  from hier_jax.data import info, prepare

  if values.sheet is not None:
    info.check_sheet(values.sheet)
  if action == 'prepare':
    prepare.prepare(name, values['from'].value, **where)
  print(info.as_text(info.describe(name, **where)), flush=True)
  if values.sheet is not None:
    info.contact_sheet(name, values.sheet, **where)
    print(f'contact sheet written to {values.sheet}')


def _action_and_name(arguments: list[str]) -> tuple[str, str]:
  if len(arguments) == 2 and arguments[0] in _ACTIONS:
    action, name = arguments
    return action, name
  found = ' '.join(arguments) or 'nothing'
  hint = ''
  if arguments and arguments[0] not in _ACTIONS:
    hint = did_you_mean(arguments[0], _ACTIONS)
  raise UserError(
    f'data needs prepare or info and the name of a data set, found {found}'
    f'{hint or "; see hier-jax data --help"}'
  )


VERB = verbs.Verb(
  'data',
  (
    'data prepare NAME [--from DIR] [--data_dir DIR] [--max_megapixels N]',
    'data info NAME [--data_dir DIR] [--sheet PNG] [--max_megapixels N]',
  ),
  'Check the images of a data set and store them as records for training'
  ' (prepare; repeat the command to continue after an interruption), or show'
  ' what a prepared data set holds (info).',
  _define,
  _run,
  positional=2,
)
