"""Workdirs of runs as the loop leaves them."""

import json

from hier_jax.training.config.default import default_config
from hier_jax.training.logs import names


def row(recall, map_at_r, name='x', step=0):
  found = {'recall@1': recall, 'recall@2': recall, 'map@r': map_at_r}
  counts = {'num_queries': 9, 'num_without_positive': 0}
  return {'kind': 'eval', 'step': step, 'name': name} | found | counts


def make(folder, recall, *, finished=True, timing=(), **settings):
  """A run of two epochs of two steps, as the loop leaves it."""
  folder.mkdir(parents=True)
  config = default_config()
  config.update_from_flattened_dict(settings)
  (folder / 'config.json').write_text(config.to_json())
  before = [row(0.1, 0.1, 'raw pixels'), row(0.2, 0.2, 'before training')]
  after = row(recall, recall / 2, 'step 4', 4)
  records = [
    *before,
    *(
      {'kind': 'train', 'step': s, 'epoch': s / 2, 'loss': 10 * recall - s}
      for s in (1, 2, 3)
    ),
    {'kind': 'train', 'step': 4, 'epoch': 2.0, 'loss': None},  # was skipped
    after,
  ]
  write = lambda rs: ''.join(json.dumps(r) + '\n' for r in rs)
  (folder / 'metrics.jsonl').write_text(write(records))
  if timing:
    (folder / 'timing.jsonl').write_text(write(timing))
  if finished:
    rows = {r['name']: r for r in before} | {names.TRAINED: after}
    (folder / 'results.json').write_text(json.dumps(rows))
  return folder


def three(folder):
  """Three seeds of a config, in no order."""
  for seed, recall in ((2, 0.7), (0, 0.5), (1, 0.6)):
    make(folder / f'run{2 - seed}', recall, seed=seed)
  return folder
