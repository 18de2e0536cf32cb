"""What programs of experiments/ share on the command line."""

import argparse
import pathlib
import sys

import pytest

from experiments import command_line
from hier_jax.errors import UserError


def test_paths_begin_with_a_home_and_are_local(monkeypatch):
  monkeypatch.setenv('HOME', '/home/me')
  assert command_line.path('~/a') == pathlib.Path('/home/me/a')
  with pytest.raises(argparse.ArgumentTypeError, match='gs://b/a is remote'):
    command_line.path('gs://b/a')
  with pytest.raises(argparse.ArgumentTypeError, match='a path is empty'):
    command_line.path('')


@pytest.mark.parametrize('text', ['nan', '-1', 'soon', ''])
def test_what_is_no_time_is_refused(text):
  with pytest.raises(argparse.ArgumentTypeError, match='expected minutes'):
    command_line.minutes(text)
  assert command_line.minutes('1.5') == 1.5


def test_errors_are_one_line_and_faults_keep_their_traceback(capsys):
  def stopped(error):
    raise error

  assert command_line.run(lambda: print('done')) == 0
  assert command_line.run(lambda: stopped(UserError('mend it'))) == 2
  assert capsys.readouterr() == ('done\n', 'error: mend it\n')
  assert command_line.run(lambda: stopped(KeyboardInterrupt())) == 130
  assert capsys.readouterr().err == 'interrupted\n'
  with pytest.raises(ZeroDivisionError):
    command_line.run(lambda: 1 / 0)


@pytest.mark.parametrize('name', ['published', 'study', 'icons'])
def test_unknown_arguments_run_nothing(name, monkeypatch, capsys):
  module = pytest.importorskip(
    f'experiments.{name}' + ('.__main__' if name != 'published' else '')
  )
  monkeypatch.setattr(command_line, 'run', lambda command: 1 / 0)
  monkeypatch.setattr(sys, 'argv', ['x', '--dry_run'])
  with pytest.raises(SystemExit) as stopped:
    module.main()
  assert stopped.value.code == 2 and 'usage:' in capsys.readouterr().err
