"""`hier-jax report`."""

from absl import flags

from hier_jax import paths
from hier_jax.cli import verbs
from hier_jax.errors import UserError

__all__ = ['VERB']


def _define(values: flags.FlagValues) -> None:
  verbs.text_flags(
    values,
    out='FOLDER: Write report.md, report.json and curves.png to this folder'
    ' too.',
  )
  verbs.theme_flag(values, 'the curves')


def _run(values: flags.FlagValues, folders: list[str]) -> None:
  if not folders:
    raise UserError(
      'report needs at least one DIR, a workdir or a folder of workdirs; see'
      ' hier-jax report --help'
    )
  if values.out is not None:
    paths.check_output(values.out, folder=True)
  from hier_jax.training.report import output, runs, summary

  found = runs.load(folders)
  print(output.as_markdown(summary.summarize(found)), flush=True)
  if values.out is not None:
    output.write(found, values.out, theme=values.theme)
    print(f'report written to {values.out}')


VERB = verbs.Verb(
  'report',
  ('report DIR... [--out FOLDER [--theme dark]]',),
  'Compare finished runs over their seeds. DIR is a workdir or a folder of'
  ' workdirs.',
  _define,
  _run,
  positional=None,
)
