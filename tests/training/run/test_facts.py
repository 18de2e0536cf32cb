"""Facts that all processes of a run must share."""

import re

import jax

from hier_jax.training.run import facts
from tests.support import training_data


def test_fingerprints_tell_what_differs():
  splits = training_data.splits()
  ours = facts.data_fingerprints(splits)
  assert ours == facts.data_fingerprints(training_data.splits())
  assert ours['split train'].startswith('48 records ')
  splits['train'].labels[3] += 1
  theirs = facts.data_fingerprints(splits)
  assert ours['split train'] != theirs['split train']
  assert ours['split test'] == theirs['split test']
  code = facts.code_fingerprint()
  assert code == facts.code_fingerprint()
  assert re.fullmatch('[0-9a-f]{16}', code)


def test_facts_of_a_run_name_code_jax_config_and_data():
  config = training_data.config()
  found = facts.of_run(config, training_data.splits())
  assert found['hier_jax code'] == facts.code_fingerprint()
  assert found['jax'] == jax.__version__
  assert found['config.seed'] == str(config.seed)
  assert {'split train', 'split test'} <= set(found)
