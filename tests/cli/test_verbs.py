"""Flags of verbs, and their help."""

import re

import pytest
from absl import flags as absl_flags

from hier_jax import cli
from hier_jax.cli import verbs
from hier_jax.errors import UserError
from tests.support.command_line import run


def define(values):
  verbs.text_flags(values, out='JSON: The file to write.')
  verbs.number_flag(values, 'c', 'C: The curvature.')
  verbs.number_flag(values, 'radius', 'R: The radius.', or_none=True)
  verbs.integers_flag(values, 'seeds', '0,1: The seeds.')
  verbs.choice_flag(
    values, 'ties', ('mean', 'expected'), 'RULE: The rule.', default='mean'
  )
  verbs.switch_flag(values, 'quick', 'Whether to hurry.')


def collect(values, others):
  collected.append((values, others))


collected: list[tuple[absl_flags.FlagValues, list[str]]] = []
VERB = verbs.Verb('try', ('try A',), 'Tries.', define, collect, positional=1)


def test_flags_have_their_types_and_defaults():
  values, others = VERB.parse([])
  assert (values.out, values.c, values.seeds) == (None, None, None)
  assert (values.ties, values.quick, others) == ('mean', False, [])
  args = ['--c', '-1e-1', 'a', '--seeds=3, 1', '--ties', 'expected', '--quick']
  values, others = VERB.parse(args)
  assert (values.c, values.seeds, values.ties) == (-0.1, [3, 1], 'expected')
  assert (values.quick, others) == (True, ['a'])


def test_none_is_not_the_same_as_no_flag():
  values, _ = VERB.parse(['--radius', 'none'])
  assert values.radius is None and values['radius'].present
  values, _ = VERB.parse([])
  assert values.radius is None and not values['radius'].present
  values, _ = VERB.parse(['--radius=2'])
  assert values.radius == 2


def test_a_verb_runs_with_what_it_was_given():
  collected.clear()
  VERB(['a', '--c=0.5'])
  ((values, others),) = collected
  assert (values.c, others) == (0.5, ['a'])


@pytest.mark.parametrize(
  ('args', 'message'),
  [
    (['--c=x'], '--c=x: expected a number; see hier-jax try --help'),
    (
      ['--radius=x'],
      '--radius=x: expected a number or none; see hier-jax try --help',
    ),
    (['--c='], '--c=: expected a number; see hier-jax try --help'),
    (
      ['--seeds=1;2'],
      '--seeds=1;2: expected integers separated by commas, such as 1,10; see'
      ' hier-jax try --help',
    ),
    (['--seeds='], '--seeds is empty: expected 0,1; see hier-jax try --help'),
    (
      ['--ties=expectd'],
      '--ties=expectd: expected mean or expected; see hier-jax try --help',
    ),
    (
      ['--out', '--quick'],
      '--out has no value: expected JSON, but --quick follows; see hier-jax try'
      ' --help',
    ),
    (['--c'], '--c has no value: expected C; see hier-jax try --help'),
    (['--ot=x'], "unknown flag --ot; did you mean '--out'?"),
    (['--xyz'], 'unknown flag --xyz; see hier-jax try --help'),
    (
      ['a', 'b'],
      "unexpected argument 'b': try takes at most 1 besides its flags; see"
      ' hier-jax try --help',
    ),
  ],
)
def test_a_wrong_flag_is_named_with_what_was_expected(args, message):
  with pytest.raises(UserError) as error:
    VERB.parse(args)
  assert str(error.value) == message


def test_help_fits_a_terminal(capsys):
  for verb in ('--help', *cli.VERBS):
    assert run(*dict.fromkeys([verb, '--help'])) == 0
  lines = capsys.readouterr().out.splitlines()
  assert max(map(len, lines)) <= 80
  # A flag's name is never cut in two.
  assert not any(line.rstrip().endswith(('-', '[')) for line in lines)


@pytest.mark.parametrize('verb', cli.VERBS)
def test_help_of_a_verb_has_its_flags_with_their_meaning(verb, capsys):
  assert run(verb, '--help') == 0
  usage, flags = capsys.readouterr().out.split('flags:\n')
  assert f'  hier-jax {verb} ' in usage
  lines = flags.splitlines()
  at = [i for i, line in enumerate(lines) if line.startswith('  --')]
  assert '  --traceback' in lines and len(at) > 1
  assert all(lines[i + 1].startswith(' ' * 6) for i in at)
  # What may follow a verb in its usage is explained.
  named = set(re.findall(r'--(\w+)', usage)) - {'config'}
  assert named <= {lines[i].split()[0].removeprefix('--') for i in at}
  capsys.readouterr()
  assert run('--help') == 0
  assert usage.removeprefix('usage:\n').strip() in capsys.readouterr().out
