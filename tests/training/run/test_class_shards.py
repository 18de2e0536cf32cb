"""A whole run whose class proxies are spread over devices."""

import json

import numpy as np
import pytest

from hier_jax.errors import UserError
from hier_jax.training.config import checks
from hier_jax.training.run import from_checkpoint, loop
from tests.support import training_data

# 13 of 16 classes are trained, which do not divide among 4 devices.
RUN = {
  'loss.hier_weight': 0.0,
  'eval.hold_out': 5,
  'eval.every_epochs': 1,
  'optim.ema_decay': 0.5,
  'data.batch_size': 12,
  'optim.lr': 1e-3,
}
SPREAD = {'loss.shard_classes': True, 'parallel': 'shard_map'}


def losses(workdir):
  records = map(
    json.loads, (workdir / 'metrics.jsonl').read_text().splitlines()
  )
  return [r['loss'] for r in records if 'loss' in r]


@pytest.mark.slow
@pytest.mark.usefixtures('colors', 'programs')
def test_a_run_goes_on_with_and_without_shares(tmp_path):
  whole, cut = tmp_path / 'whole', tmp_path / 'cut'
  loop.train(training_data.config(**RUN), whole)
  for epochs, more in ((1, SPREAD), (2, {}), (4, SPREAD)):
    loop.train(training_data.config(**RUN, **more, epochs=epochs), cut)
  want = losses(whole)
  assert len(want) > 8
  np.testing.assert_allclose(losses(cut), want, rtol=1e-4)
  results = [json.loads((d / 'results.json').read_text()) for d in (whole, cut)]
  assert results[0].keys() == results[1].keys()
  run = from_checkpoint.open_run(cut)
  images = np.zeros((4, 8, 8, 3), np.uint8)
  assert np.all(np.isfinite(run.embed(images)))


@pytest.mark.parametrize(
  ('changed', 'match'),
  [
    ({'parallel': 'pmap'}, "config.parallel is 'pmap'.*'shard_map'"),
    ({'loss.metric': 'sup_con'}, 'sup_con has no class proxies.*arc_face'),
  ],
)
def test_what_cannot_be_spread_is_refused(changed, match):
  config = training_data.config(**SPREAD | {'loss.hier_weight': 0.0} | changed)
  with pytest.raises(UserError, match=match):
    checks.validate(config)
