"""Verbs of the command line as data: their flags, their help, their errors.

The text of a flag that takes a value begins with what stands for that value:
'FILE: what it is for'.
"""

import dataclasses
import textwrap
from collections.abc import Callable, Iterable, Sequence

from absl import flags

from hier_jax.errors import UserError, did_you_mean

__all__ = ['VERBS', 'Verb', 'usage']


@dataclasses.dataclass(frozen=True)
class Verb:
  """One verb.

  Attributes:
    name: as it is typed.
    forms: its command lines, from the name on.
    about: what it does, in sentences.
    define: defines its flags in the `FlagValues` that it is given.
    positional: how many other arguments there may be; None for any number.
    define_more: defines flags that are too many for the help.
  """

  name: str
  forms: Sequence[str]
  about: str
  define: Callable[[flags.FlagValues], None]
  positional: int | None = 0
  define_more: Callable[[flags.FlagValues], None] | None = None

  def parse(self, args: Sequence[str]) -> tuple[flags.FlagValues, list[str]]:
    """The values of the flags behind a verb, and the other arguments.

    Raises:
      UserError: for flags and arguments that are unknown or cannot be.
    """
    values = self._flags()
    if self.define_more is not None:
      self.define_more(values)
    see = f'see hier-jax {self.name} --help'
    try:
      extra = values([self.name, *args])[1:]
    except flags.UnrecognizedFlagError as error:
      hint = _like(error.flagname, values) or f'; {see}'
      raise UserError(f'unknown flag --{error.flagname}{hint}') from error
    except (flags.Error, ValueError) as error:
      raise UserError(f'{" ".join(str(error).split())}; {see}') from error
    for name in values:
      value = values[name].value
      if isinstance(value, str) and value.startswith('--'):
        raise UserError(f'--{name} has no value, but is followed by {value}')
      if values[name].present and value in ('', []):
        raise UserError(f'--{name} is empty; {see}')
    if self.positional is not None and len(extra) > self.positional:
      raise UserError(f'unexpected argument {extra[self.positional]!r}; {see}')
    return values, extra

  def help(self) -> str:
    """The text of `hier-jax VERB --help`."""
    values = self._flags()
    lines = ['usage:', usage([self]), '', 'flags:']
    for name in values:
      flag = values[name]
      value, text = ('', flag.help)
      if not flag.boolean:
        value, _, text = flag.help.partition(': ')
      lines += [f'  --{name} {value}'.rstrip(), _wrapped(text)]
    return '\n'.join(lines)

  def _flags(self):
    values = flags.FlagValues()
    values.set_gnu_getopt()
    self.define(values)
    flags.DEFINE_bool(
      'traceback', False, 'show where an error arose', flag_values=values
    )
    return values


def _like(name, values):
  """A hint at flags like one that is unknown, if there are any."""
  keys = 'config.'
  if not name.startswith(keys):
    return did_you_mean(name, [other for other in values if '.' not in other])
  every = [k.removeprefix(keys) for k in values if k.startswith(keys)]
  hint = did_you_mean(name.removeprefix(keys), every)
  return hint or '; hier_jax/training/config/default.py has all keys'


def usage(verbs: Iterable[Verb]) -> str:
  """The command lines of verbs, and what each does."""
  return '\n\n'.join(
    '\n'.join(
      [*(f'  hier-jax {form}' for form in verb.forms), _wrapped(verb.about)]
    )
    for verb in verbs
  )


def _wrapped(text):
  return textwrap.fill(
    text, 80, initial_indent=' ' * 6, subsequent_indent=' ' * 6
  )


def _strings(values, **texts):
  """Defines flags that take a value: name -> 'VALUE: what it is for'."""
  for name, text in texts.items():
    flags.DEFINE_string(name, None, text, flag_values=values)


def _train_flags(values):
  _strings(
    values,
    config='FILE[:PRESET]: a Python file whose get_config(PRESET) makes the'
    ' config; --config.KEY=VALUE sets any key, of which'
    ' hier_jax/training/config/default.py has the list',
    workdir='DIR: the folder of this run alone, made if need be',
  )
  flags.DEFINE_bool(
    'dry_run',
    False,
    'only check all that is checked before training, and print the config,'
    ' parameters and their rates, batches and memory',
    flag_values=values,
  )
  flags.DEFINE_list(
    'seeds',
    None,
    '0,1,2: one run after the other, in DIR/seed0 and so on, and a table',
    flag_values=values,
  )


def _train_keys(values):
  from hier_jax.training.config import files

  files.define_keys(values)


def _evaluate_flags(values):
  _strings(
    values,
    query="SPLIT: of a run's data set; test by default, query of In-Shop",
    gallery='SPLIT|NPZ: what is ranked, as SPLIT of a run or a file like'
    ' EMBEDDINGS.npz; by default the queries, each but itself',
  )
  flags.DEFINE_float(
    'curvature',
    None,
    'C: of the ball, 0 for cosine; by default what the run or the file says',
    flag_values=values,
  )
  _strings(
    values,
    data_dir='DIR: where the prepared data of a run lies; by default where it'
    ' was trained with',
    taxonomy='CSV: a row a class, its ancestors from coarse to fine; or edges'
    ' child,parent; by default the tree of the data set',
  )
  flags.DEFINE_list(
    'recall_at', None, '1,2,4,8: the K of Recall@K', flag_values=values
  )
  flags.DEFINE_enum(
    'ties',
    'pessimistic',
    ['pessimistic', 'optimistic', 'mean', 'expected'],
    'where a positive and a negative are at the same distance: pessimistic'
    ' ranks the negative first, optimistic the positive, mean half way between'
    ' these two ranks; expected gives the mean over all orders',
    flag_values=values,
  )
  _strings(values, out='JSON: also writes the metrics to this file')
  flags.DEFINE_enum(
    'export',
    None,
    ['faiss'],
    'also writes an index of the gallery, beside it',
    flag_values=values,
  )


def _report_flags(values):
  _strings(
    values,
    out='FOLDER: also writes report.md, report.json and curves.png there',
  )


def _data_flags(values):
  _strings(
    values,
    data_dir='DIR: where prepared data sets lie; by default TFDS_DATA_DIR, else'
    ' ~/tensorflow_datasets',
    sheet='PNG: info also writes a contact sheet to this file',
    **{'from': 'DIR: the images that prepare reads'},
  )
  flags.DEFINE_float(
    'max_megapixels',
    None,
    'N: images with more are refused before they are decoded; 64 by default',
    flag_values=values,
  )


def _convert_flags(values):
  _strings(
    values,
    architecture='NAME: the backbone, where SOURCE does not tell',
  )
  flags.DEFINE_bool(
    'timm', False, "write under timm's names, for PyTorch", flag_values=values
  )


VERBS = {
  verb.name: verb
  for verb in (
    Verb(
      'train',
      (
        'train --config FILE[:PRESET] --workdir DIR [--config.KEY=VALUE ...]',
        'train --config FILE[:PRESET] --dry_run [--workdir DIR]'
        ' [--config.KEY=VALUE ...]',
      ),
      'trains, or goes on with the run that DIR holds',
      _train_flags,
      define_more=_train_keys,
    ),
    Verb(
      'evaluate',
      (
        'evaluate WORKDIR[/checkpoints/STEP] [--query SPLIT] [--data_dir DIR]',
        'evaluate EMBEDDINGS.npz [--gallery NPZ] [--curvature C] ...',
      ),
      "retrieval metrics of a run's checkpoint on its data set, or of the"
      " arrays 'embeddings' and 'labels' of any framework",
      _evaluate_flags,
      positional=1,
    ),
    Verb(
      'report',
      ('report DIR... [--out FOLDER]',),
      'runs side by side, over seeds; DIR is a workdir or holds some',
      _report_flags,
      positional=None,
    ),
    Verb(
      'data',
      (
        'data prepare NAME [--from DIR] [--data_dir DIR] [--max_megapixels N]',
        'data info NAME [--data_dir DIR] [--sheet PNG] [--max_megapixels N]',
      ),
      'turns images into checked records, or goes on with that; says what a'
      ' prepared data set holds',
      _data_flags,
      positional=2,
    ),
    Verb(
      'convert',
      ('convert SOURCE TARGET.safetensors [--architecture NAME] [--timm]',),
      'pretrained weights of a file, or published under a name, in our format',
      _convert_flags,
      positional=2,
    ),
  )
}
