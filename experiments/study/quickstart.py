"""How the quickstart's settings were chosen, and what they reach.

    python -m experiments.study.quickstart search TRIALS.jsonl
    hier-jax train --config quickstart --seeds 0,1,2 --workdir RUNS
    python -m experiments.study.quickstart results RUNS

`search` tries settings on training classes: one in five is held out, and the
test classes are never read. Each line of TRIALS.jsonl is one trial, a JSON
object of config keys with their values, those of the quickstart where it says
nothing, and of 'resnet', fields of `resnet.ResNet` in place of those that the
backbone's name stands for. A trial that the file of results holds already is
left out, so that a search goes on where it stopped. Trials that have a 'sketch'
used code that was not kept, and cannot be run again.

`results` gathers runs of several seeds into the file that README's table is
made from; `rows` makes its lines.
"""

import argparse
import contextlib
import json
import pathlib
import sys
import time
from unittest import mock

import jax

from experiments import command_line
from experiments.benchmarks.common import engine, report
from hier_jax import json_files, paths
from hier_jax.data import transforms
from hier_jax.errors import UserError
from hier_jax.evaluation.retrieval import metrics as retrieval
from hier_jax.models import resnet
from hier_jax.training.distributed import mapping
from hier_jax.training.logs import records
from hier_jax.training.run import embedding, plan, program_cache
from hier_jax.training.step import train_step as step_lib

_FOLDER = report.ROOT / 'experiments' / 'results'
SEARCH = _FOLDER / 'quickstart_search.jsonl'
RESULTS = _FOLDER / 'quickstart.json'
_HOLD_OUT = 5
_METRICS = 'recall@1', 'recall@2', 'recall@4', 'recall@8', 'map@r'


# ---- search -----------------------------------------------------------------


def config_of(trial):
  """The quickstart's config with a trial's values, tuples given as lists."""
  config = engine.config_of('quickstart')
  values = {k: v for k, v in trial.items() if k != 'resnet'}
  config.update_from_flattened_dict(
    {k: tuple(v) if isinstance(v, list) else v for k, v in values.items()}
  )
  config.eval.hold_out = _HOLD_OUT
  return config


@contextlib.contextmanager
def backbone(trial):
  """Lets the backbone's name stand for the stages of a trial."""
  fields = dict(trial.get('resnet', {}))
  if 'stages' in fields:
    fields['stages'] = tuple(map(tuple, fields['stages']))
  name = config_of(trial).model.backbone
  table = {name: {**resnet.VARIANTS.get(name, {}), **fields}}
  with mock.patch.dict(resnet.VARIANTS, table if fields else {}):
    yield


def run(trial, clock=time.process_time):
  """Trains one trial and ranks the classes held out.

  Args:
    trial: config key -> value, and 'resnet'.
    clock: tells the seconds; by default CPU time of all threads of the process,
      which others on the machine hardly change.

  Returns:
    A record: validation metrics in per cent by hyperbolic and by cosine
    distance, the last loss, the number of steps, and the seconds that the
    first step took, with its compilation, and the others.
  """
  with backbone(trial):
    made = plan.make(config_of(trial), None)
    state = made.create_state()
    step = step_lib.make_train_step(made.config, made.model, made.optimizer)
    train = mapping.map_step(made.inputs.with_views(step))
    batches = made.inputs.batches(0, made.total_steps)
    began = clock()
    state, metrics = train(state, next(batches))
    jax.block_until_ready(state)
    compiled = clock()
    for batch in batches:
      state, metrics = train(state, batch)
    jax.block_until_ready(state)
    return {
      'steps': made.total_steps,
      'compile_seconds': round(compiled - began, 1),
      'train_seconds': round(clock() - compiled, 1),
      'loss': float(metrics['loss']),
      **_validate(made, state),
    }


def _validate(made, state):
  embed = mapping.map_embed(step_lib.make_embed(made.model))
  variables, config = state.eval_variables, made.config
  z, labels = embedding.embed_split(
    made.splits['val'],
    lambda images: embed(variables, images),
    transforms.EvalView(config.model.image_size, config.data.eval_resize),
    batch_size=config.eval.batch_size,
    num_threads=config.data.num_threads,
  )
  found = {}
  for name, c in (('hyperbolic', config.model.c), ('cosine', None)):
    ranked = retrieval.retrieval_metrics(z, labels, c=c, recall_at=(1,))
    found[name] = {
      key: round(100 * ranked[key], 2) for key in ('recall@1', 'map@r')
    }
  return found


def search(trials, path=SEARCH):
  """Runs the trials that a file of results does not hold, and adds them."""
  done = []
  if path.exists():
    done = [json.loads(s)['trial'] for s in path.read_text().splitlines()]
  for trial in trials:
    if trial in done:
      continue
    record = {'trial': trial, **run(trial)}
    with path.open('a') as file:
      file.write(json.dumps(record) + '\n')
    print(json.dumps(record), flush=True)
    jax.clear_caches()


# ---- results ----------------------------------------------------------------


def gather(folder):
  """What the runs of several seeds reached, by `hier-jax train --seeds`.

  Args:
    folder: holds `seed0`, `seed1` and so on, each a finished run.

  Raises:
    UserError: for a folder without a finished run.
  """
  runs = sorted(path.parent for path in folder.glob('seed*/results.json'))
  if not runs:
    raise UserError(
      f'{folder} holds no seed*/results.json: expected the workdir of hier-jax'
      ' train --seeds 0,1,2'
    )
  named = {path.name.removeprefix('seed'): path for path in runs}
  timing = {s: records.read(path / 'timing.jsonl') for s, path in named.items()}
  return {
    'config': 'quickstart',
    'command': 'hier-jax train --config quickstart'
    f' --seeds {",".join(named)} --workdir RUNS',
    'machine': report.machine(),
    'versions': report.versions(('hier_jax', 'jax', 'numpy')),
    'seconds': {s: round(_total(timing[s], 1)) for s in named},
    'seconds_waiting_for_data': {
      s: round(_total(timing[s], 'share/data'), 1) for s in named
    },
    'seeds': {
      s: json.loads((path / 'results.json').read_text())
      for s, path in named.items()
    },
  }


def _total(timing, share):
  """Seconds of a run, or of one of its parts."""
  of = lambda record: 1 if share == 1 else record[share]
  return sum(record['seconds'] * of(record) for record in timing)


def rows(found):
  """README's lines of what `gather` found, in per cent."""
  seeds = found['seeds']
  first, *others = seeds
  table = seeds[first]
  named = {
    'raw pixels': table['raw pixels'],
    f'before training (seed {first})': table['before training'],
    f'after training, seed {first}': table['after training'],
    **{f'seed {s}': seeds[s]['after training'] for s in others},
  }
  return [
    f'| {name} | ' + ' | '.join(f'{100 * row[m]:.1f}' for m in _METRICS) + ' |'
    for name, row in named.items()
  ]


def main(arguments: list[str] | None = None) -> int:
  """Runs 'search' or 'results' on a place; returns the exit code."""
  parser = argparse.ArgumentParser(
    prog='python -m experiments.study.quickstart',
    description=__doc__,
    formatter_class=argparse.RawDescriptionHelpFormatter,
  )
  parser.add_argument('verb', choices=['search', 'results'])
  parser.add_argument(
    'place', type=command_line.path, help='TRIALS.jsonl, or RUNS'
  )
  args = parser.parse_args(arguments)
  command = {'search': _search, 'results': _results}[args.verb]
  return command_line.run(lambda: command(args.place))


def _search(place):
  found = trials(place)
  program_cache.keep_programs()
  search(found)


def _results(place):
  found = gather(place)
  paths.write_text(RESULTS, json.dumps(found, indent=2) + '\n')
  print('\n'.join(rows(found)))


def trials(path: pathlib.Path) -> list[dict]:
  """The trials of a file, one a line.

  Raises:
    UserError: it cannot be read, or a line is no JSON object.
  """
  try:
    lines = path.read_text('utf-8').splitlines()
  except (OSError, UnicodeDecodeError) as error:
    raise UserError(f'{path} cannot be read ({error})') from error
  found = []
  for number, line in enumerate(lines, 1):
    if not line.strip():
      continue
    try:
      trial = json_files.parse(line)
    except ValueError as error:
      trial = error
    if not isinstance(trial, dict):
      raise UserError(
        f'line {number} of {path} is {line[:80]!r}; expected a JSON object, the'
        ' settings of a trial'
      )
    found.append(trial)
  return found


if __name__ == '__main__':
  sys.exit(main())
