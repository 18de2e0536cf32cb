"""What is said of wrong values of a config."""

import pytest

from hier_jax.errors import UserError
from hier_jax.training.config import checks
from hier_jax.training.config import default as config_lib
from tests.support import training_data


def test_default_is_valid():
  checks.validate(config_lib.default_config())
  checks.validate(training_data.config())


def test_unknown_key_is_named_with_the_nearest():
  config = config_lib.default_config().unlock()
  config.optim.weigth_decay = 0.1
  with pytest.raises(UserError, match=r"'optim.weigth_decay'.*'optim.weight_d"):
    checks.validate(config)


def test_missing_key_is_named():
  config = config_lib.default_config().unlock()
  del config.loss.hier.temperature
  with pytest.raises(UserError, match=r"'loss.hier.temperature' is missing"):
    checks.validate(config)


def test_images_that_are_too_small_for_the_pixels_are_named():
  config = training_data.config(**{'eval.pixels': True})
  with pytest.raises(UserError, match=r'pixels is True, .*image_size is 8: '):
    checks.validate(config)


@pytest.mark.parametrize(
  ('key', 'value', 'message'),
  [
    ('optim.lr', -1.0, 'optim.lr is -1.0, must be at least 0'),
    ('loss.hier.temperature', 0.0, 'temperature is 0.0, must be above 0'),
    ('loss.metric', 'arcface', "'arcface', must be one of 'proxy_anchor'"),
    ('optim.schedule', 'linear', "'linear', must be one of 'constant'"),
    ('data.sampler', 'random', "'random', must be one of 'class', 'official'"),
    ('data.groups', 0, 'data.groups is 0, must be above 0'),
    ('data.device_views', True, 'data.short_side is None: set the latter'),
    ('model.dtype', 'float8', "'float8', must be one of 'float32'"),
    ('data.batch_size', 183, '183 is not a multiple of .*images_per_class 2'),
    ('data.batch_size', 182, '182 does not divide among 4 devices'),
    ('eval.batch_size', 5, 'eval.batch_size 5 does not divide among 4'),
    ('loss.hier.estimator', 'rao', "'rao', must be one of 'gumbel'"),
    ('loss.sup_con.temperature', 0.0, 'temperature is 0.0, must be above 0'),
    ('loss.memory.size', 9, 'memory.size is 9, but proxy_anchor has no use'),
    ('loss.second', 'proxy_anchor', "'proxy_anchor', must be one of None, "),
    ('loss.second', 'supap', "'supap', must be one of None, 'contrastive'"),
    ('loss.second_weight', -1.0, 'second_weight is -1.0, must be at least 0'),
    ('loss.hier.k', 500, 'k 500 neighbors .*180'),
    ('eval.recall_at', (0, 1), r'recall_at is \(0, 1\)'),
    ('eval.hold_out', 1, 'eval.hold_out is 1, must be at least 2'),
    (
      'eval.select',
      'recall@3',
      "'recall@3', must be one of 'map@r'",
    ),
    ('model.radial_scale', 0.0, 'radial_scale is 0.0, must be above 0'),
    ('model.backbone', 'vit', "config.model: there is no backbone 'vit'"),
    ('model.image_size', 30, 'config.model: images of 30x30 .* of 4,'),
    ('model.pool', 'max', "config.model: pool is 'max'"),
    ('model.drop_path', 1.5, 'config.model: drop_path is 1.5'),
    ('model.deit_token', 'mean', "config.model: deit_token is 'mean', but"),
    ('model.frozen_stats', True, "has no option 'frozen_stats'"),
    ('model.std', (1.0, 1.0), r'config.model: mean is .* std \(1.0, 1.0\)'),
    ('nonfinite', 'ignore', "nonfinite is 'ignore', must be .* 'stop', 'skip'"),
    ('optim.lr', float('inf'), 'config.optim.lr is inf, must be finite'),
    (
      'data.train_view.scale',
      (0.2, float('nan')),
      r'scale is .*nan\), must be',
    ),
    ('data.train_view.flip', 1.5, 'train_view.flip is 1.5, must be at most 1'),
    ('data.train_view.scale', (0.5, 1.5), r'\(0.5, 1.5\), must .* high <= 1'),
    (
      'data.train_view.ratio',
      (2.0, 1.0),
      r'ratio is \(2.0, 1.0\), must be two',
    ),
    ('data.eval_resize', 16, 'config.data.eval_resize: '),
    ('seed', 2**32, 'config.seed is 4294967296, must be at most 4294967295'),
    ('optim.ema_decay', 1.0, 'optim.ema_decay is 1.0, must be below 1'),
    ('optim.ema_decay', -0.1, 'optim.ema_decay is -0.1, must be at least 0'),
    ('optim.b2', 1.0, 'optim.b2 is 1.0, must be below 1'),
    ('optim.step_factor', 0.0, 'step_factor is 0.0, must be above 0'),
    ('optim.freeze', ('(',), r"freeze holds '\(', which is no regular expr"),
    ('optim.freeze', ('patch_embed', 'blocks'), "'blocks', which finds no par"),
    ('data.micro_batch', 0, 'micro_batch is 0, must be above 0'),
    ('data.eval_crop', 1.5, 'data.eval_crop is 1.5, must be at most 1'),
    ('data.short_side', 16, 'short_side is 16, but .*image_size is 32: images'),
    ('data.level', 'group', "level is 'group', but .*sampler is 'class'"),
    ('data.groups', 2, "groups is 2, but config.data.sampler is 'class'"),
    ('epochs', 1, 'warmup_epochs is 1, but config.epochs is 1: the backbone'),
    ('data.micro_batch', 7, 'micro_batch 7 does not divide the 45 rows of a d'),
  ],
)
def test_wrong_values_are_named(key, value, message):
  config = config_lib.default_config()
  config.update_from_flattened_dict({key: value})
  with pytest.raises(UserError, match=message):
    checks.validate(config)


@pytest.mark.parametrize(
  ('settings', 'message'),
  [
    (
      {'loss.metric': 'sup_con', 'loss.memory.size': 9},
      'size 9 is less than config.data.batch_size 180',
    ),
    (
      {'model.backbone': 'resnet_thin', 'data.micro_batch': 9},
      'micro_batch is 9, but the BatchNorm of resnet_thin .*frozen_stats',
    ),
    (
      {'loss.second': 'triplet', 'loss.triplet.mining': 'easy'},
      'config.loss.proxy_anchor or config.loss.triplet: .*easy',
    ),
    (
      {'loss.second': 'hyp', 'data.images_per_class': 1},
      'config.loss.second hyp pairs the images of a class: 1 images per',
    ),
    (
      {'loss.second': 'sup_ap', 'data.images_per_class': 1},
      'config.loss.second sup_ap pairs the images of a class: 1 images per',
    ),
    (
      {'loss.metric': 'circle', 'data.images_per_class': 1},
      'config.loss.metric circle pairs the images of a class: 1 images per',
    ),
    (
      {'loss.metric': 'sup_con', 'loss.second': 'sup_con'},
      "config.loss.second is 'sup_con', as config.loss.metric is",
    ),
    (
      {'loss.second_weight': 2.0},
      'second_weight is 2.0, but config.loss.second is None: name',
    ),
    (
      {'loss.second': 'sup_con', 'loss.second_weight': 0.0}
      | {'loss.memory.size': 512},
      'memory.size is 512, but proxy_anchor has no use',
    ),
    (
      {'loss.metric': 'hyp', 'data.images_per_class': 0},
      '0 images per class .* at least 2',
    ),
    (
      {'loss.metric': 'triplet', 'loss.triplet.mining': 'easy'},
      "config.loss.triplet: mining is 'easy'",
    ),
    (
      {'loss.hier.exclude_self_lca': True, 'loss.num_proxies': 3}
      | {'loss.hier.k': 2},
      'among 3 proxies',
    ),
  ],
)
def test_losses_that_cannot_be_are_named(settings, message):
  config = config_lib.default_config()
  config.update_from_flattened_dict(settings)
  with pytest.raises(UserError, match=message):
    checks.validate(config)


@pytest.mark.parametrize(
  ('settings', 'message'),
  [
    (
      {'eval.recall_at': (1, 48)},
      'recall_at holds 48, but colors:test has only 47 images',
    ),
    (
      {'loss.metric': 'sup_con'}
      | {'loss.memory.size': 32, 'loss.memory.start_step': 12},
      'start_step is 12, but the run has 12 steps',
    ),
  ],
)
def test_contradictions_with_the_data_are_named(settings, message):
  config = checks.validate(training_data.config(**settings))
  settings, memory = config.eval, config.loss.memory
  splits = training_data.splits()
  with pytest.raises(UserError, match=message):
    checks.check_data(settings, memory, splits, total_steps=12)
  config.eval.recall_at, config.loss.memory.start_step = (1, 47), 11
  checks.check_data(settings, memory, splits, total_steps=12)


def test_a_query_must_have_something_to_find():
  config = checks.validate(training_data.config())
  config.eval.recall_at = (1,)

  def check(**others):
    splits = {**training_data.splits(), **others}
    checks.check_data(config.eval, config.loss.memory, splits, total_steps=12)

  found = training_data.splits()
  train, test = found['train'], found['test']
  single = training_data.splits(per_class=1)['test']
  check(val=test)
  check(query=single, gallery=test)
  with pytest.raises(
    UserError, match=r'of colors:test has another .*: prepare'
  ):
    check(test=single)
  with pytest.raises(UserError, match=r'none of the 16 .*: set .*hold_out'):
    check(val=single)
  with pytest.raises(
    UserError, match=r'in colors:train, .* in each of the two'
  ):
    check(query=test, gallery=train)


def test_one_image_a_class_is_enough_with_a_memory():
  config = config_lib.default_config()
  config.update_from_flattened_dict(
    {'loss.metric': 'sup_con', 'loss.memory.size': 512}
    | {'data.images_per_class': 1}
  )
  checks.validate(config)
