"""The config's keys: which are derived, free, or told apart."""

import pytest

from hier_jax.training.config import default as config_lib
from tests.support import training_data


def resolved(settings, devices=4):
  config = config_lib.default_config()
  config.update_from_flattened_dict(settings)
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(config_lib.jax, 'device_count', lambda: devices)
    return config_lib.flatten(config_lib.resolve(config))


@pytest.mark.parametrize(
  ('settings', 'key', 'value'),
  [
    # As it was: no border is cut off.
    ({'model.image_size': 40}, 'data.eval_resize', 40),
    # 56 * 256 / 224.
    (
      {'model.image_size': 56, 'data.eval_crop': 224 / 256},
      'data.eval_resize',
      64,
    ),
    ({'model.image_size': 56, 'data.eval_resize': 60}, 'data.eval_resize', 60),
    ({'model.backbone': 'dino_vits16'}, 'model.mean', (0.485, 0.456, 0.406)),
    ({'model.mean': (1.0, 1.0, 1.0)}, 'model.mean', (1.0, 1.0, 1.0)),
    ({'model.mean': (1.0, 1.0, 1.0)}, 'model.std', (0.5, 0.5, 0.5)),
    ({'eval.batch_size': 60}, 'eval.batch_size', 60),
    ({'data.data_dir': '/data'}, 'data.data_dir', '/data'),
    ({}, 'data.data_dir', None),
  ],
)
def test_what_is_not_given_is_derived(settings, key, value):
  assert resolved(settings)[key] == value


@pytest.mark.parametrize(('devices', 'rows'), [(1, 500), (8, 504), (256, 512)])
def test_rows_of_evaluation_divide_among_any_devices(devices, rows):
  assert resolved({}, devices)['eval.batch_size'] == rows


def test_a_relative_data_dir_is_found_from_every_folder(tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  found = resolved({'data.data_dir': 'data'})['data.data_dir']
  assert found == str(tmp_path / 'data')


def test_what_is_derived_is_no_setting():
  config = training_data.config(**{'model.image_size': 16, 'seed': 3})
  found = config_lib.settings(config_lib.resolve(config))
  assert found['model.image_size'] == (32, 16)
  assert not {'data.eval_resize', 'model.mean', 'seed'} & set(found)
  config.data.eval_resize = 20
  found = config_lib.settings(config_lib.resolve(config))
  assert found['data.eval_resize'] == (None, 20)


@pytest.mark.parametrize(
  ('theirs', 'ours', 'found'),
  [
    ({}, {'data.data_dir': '/moved', 'log_every': 7}, []),
    ({}, {'checkpoint.keep': 9, 'eval.batch_size': 8}, []),
    ({}, {'optim.lr': 1.0}, ['optim.lr']),
    ({}, {'epochs': 5}, []),
    ({}, {'epochs': 3}, ['epochs']),
    ({'optim.schedule': 'step'}, {'optim.schedule': 'step', 'epochs': 5}, []),
    (
      {'optim.schedule': 'cosine'},
      {'optim.schedule': 'cosine', 'epochs': 5},
      ['epochs'],
    ),
    (
      {'optim.schedule': 'one_cycle'},
      {'optim.schedule': 'one_cycle', 'epochs': 5},
      ['epochs'],
    ),
  ],
)
def test_what_a_run_may_go_on_with(theirs, ours, found):
  theirs, ours = (
    config_lib.resolve(training_data.config(**of)) for of in (theirs, ours)
  )
  assert list(config_lib.conflicts(theirs, ours, validated=True)) == found


def test_how_often_a_run_is_evaluated_is_free_where_it_decides_nothing():
  theirs, ours = (
    config_lib.resolve(training_data.config(**{'eval.every_epochs': every}))
    for every in (1, 2)
  )
  assert not config_lib.conflicts(theirs, ours, validated=False)
  found = config_lib.conflicts(theirs, ours, validated=True)
  assert found == {'eval.every_epochs': (1, 2)}


def test_differences_open_nested_dicts():
  ours, theirs = {'a': {'b': 1, 'c': 2}}, {'a': {'b': 1, 'd': 3}}
  assert config_lib.differences(theirs, ours) == {
    'a.c': (None, 2),
    'a.d': (3, None),
  }
