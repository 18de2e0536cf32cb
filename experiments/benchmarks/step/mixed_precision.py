"""What a backbone in bfloat16 changes in training.

The quickstart with both types and the same seeds: how far the curves of a seed
are apart, beside how far those of two seeds in float32 are; and which parts of
the step compute in which type.
"""

import collections
import dataclasses
import itertools
import pathlib
import statistics
import tempfile

import jax
import jax.numpy as jnp
import numpy as np

from experiments import command_line
from experiments.benchmarks.common import engine, report
from hier_jax.training.distributed import mapping
from hier_jax.training.logs import records
from hier_jax.training.run import loop

_SCRIPT = 'experiments/benchmarks/step/mixed_precision.py'
_PACKAGES = 'hier_jax', 'jax', 'jaxlib', 'flax', 'optax', 'numpy'
_DTYPES = 'float32', 'bfloat16'
_CURVES = 'loss', 'metric', 'hier'
_METRICS = 'recall@1', 'map@r'
_WINDOW = 26
# Okabe and Ito's, as the curves of `hier-jax report` have them.
_COLORS = {'float32': '#0072B2', 'bfloat16': '#D55E00'}


@dataclasses.dataclass(frozen=True)
class Run:
  """One run.

  Attributes:
    curves: name -> its value at every step.
    metrics: name -> its value on the test split, after the last step.
  """

  curves: dict[str, np.ndarray]
  metrics: dict[str, float]


def _trained(dtype, seed, sizes, folder):
  config = engine.config_of('quickstart')
  config.seed, config.model.dtype = seed, dtype
  config.epochs, config.log_every = sizes.epochs, 1
  config.eval.update(every_epochs=sizes.epochs, pixels=False)
  config.checkpoint.every_epochs = sizes.epochs
  folder = pathlib.Path(folder) / f'{dtype}-{seed}'
  results = loop.train(config, folder)
  found = records.read(folder / 'metrics.jsonl')
  steps = [r for r in found if r['kind'] == 'train']
  return Run(
    {name: np.array([r[name] for r in steps]) for name in _CURVES},
    {name: 100 * results['after training'][name] for name in _METRICS},
  )


# ---- both types -------------------------------------------------------------


def both_types(sizes):
  """Runs of each seed in both types, and how far apart they are."""
  with tempfile.TemporaryDirectory() as folder:
    runs = {
      (dtype, seed): _trained(dtype, seed, sizes, sizes.runs or folder)
      for seed in sizes.seeds
      for dtype in _DTYPES
    }
  steps = len(runs[_DTYPES[0], sizes.seeds[0]].curves['loss'])
  _draw(runs, sizes.figure)
  heading = ['mean difference of two runs', *map(_seed, sizes.seeds)]
  heading += ['mean', 'of seeds, float32', 'ratio']
  return [
    _at_the_end(runs, sizes.seeds),
    report.table(heading, _differences(runs, sizes.seeds)),
    f'`quickstart.py` with `epochs={sizes.epochs}`, {steps} steps over which'
    ' its schedule goes up and down; batches and initial parameters are the'
    " same for both types of a seed. A seed's column is the difference between"
    f' its bfloat16 and float32 runs, of curves the mean over {_WINDOW} steps'
    ' at a time, absolute, then the mean over the run. The last two columns'
    ' are the same between two seeds in float32, mean of all pairs, and the'
    ' ratio of the means: up to 1 the type changes no more than the seed does.',
    f'![Curves of both types]({sizes.figure.name})',
  ]


def _seed(seed):
  return f'seed {seed}'


def _at_the_end(runs, seeds):
  """A row a run type and metric; the bias beside the seeds' noise."""
  rows = []
  for name in _METRICS:
    for dtype in _DTYPES:
      values = [runs[dtype, seed].metrics[name] for seed in seeds]
      rows.append(_row(f'{_title(name)}, {dtype}', values, '.1f'))
    paired = [
      runs['bfloat16', seed].metrics[name] - runs['float32', seed].metrics[name]
      for seed in seeds
    ]
    rows.append(_row(f'{_title(name)}, bfloat16 - float32', paired, '+.1f'))
  heading = ['on the test split, %', *map(_seed, seeds), 'mean', 'std']
  return report.table(heading, rows)


def _row(name, values, form):
  mean, std = statistics.mean(values), statistics.stdev(values)
  return [
    name,
    *(f'{v:{form}}' for v in values),
    f'{mean:{form}}',
    f'{std:.1f}',
  ]


def _title(name):
  return {'recall@1': 'Recall@1', 'map@r': 'MAP@R'}[name]


def _differences(runs, seeds):
  for name in (*_CURVES, *_METRICS):
    apart = [
      _apart(runs['bfloat16', s], runs['float32', s], name) for s in seeds
    ]
    between = statistics.mean(
      _apart(runs['float32', a], runs['float32', b], name)
      for a, b in itertools.combinations(seeds, 2)
    )
    mean = statistics.mean(apart)
    shown = [f'{value:.2g}' for value in (*apart, mean, between)]
    label = _title(name) if name in _METRICS else f'`{name}`'
    yield [label, *shown, f'{mean / between:.2f}']


def _apart(a, b, name):
  """Mean distance of two runs' curves, or distance of their metrics."""
  if name in _METRICS:
    return abs(a.metrics[name] - b.metrics[name])
  smooth = [_smooth(run.curves[name]) for run in (a, b)]
  return float(np.mean(np.abs(smooth[0] - smooth[1])))


def _smooth(curve):
  whole = len(curve) // _WINDOW * _WINDOW
  return curve[:whole].reshape(-1, _WINDOW).mean(1)


def _draw(runs, path):
  from matplotlib import figure as figures

  drawn = figures.Figure(figsize=(9, 3), layout='constrained')
  for axes, name in zip(drawn.subplots(1, 3), _CURVES, strict=True):
    for (dtype, seed), run in runs.items():
      curve = run.curves[name]
      # Means of a few steps, centered: a single batch is loud.
      mean = np.convolve(curve, np.ones(9) / 9, 'valid')
      label = dtype if seed == next(iter(runs))[1] else None
      axes.plot(
        5 + np.arange(len(mean)),
        mean,
        linewidth=0.7,
        color=_COLORS[dtype],
        label=label,
      )
    axes.set_xlabel('step')
    axes.set_title(name, fontsize=10)
    axes.spines[['top', 'right']].set_visible(False)
  drawn.axes[0].legend(frameon=False)
  drawn.savefig(path, dpi=80)


# ---- audit ------------------------------------------------------------------


def audit(sizes):
  """Types of what the step keeps and of what it computes, by part."""
  del sizes
  config = engine.config_of('quickstart')
  config.model.dtype = 'bfloat16'
  made = engine.Engine(config)
  rows = [[what, _types(tree)] for what, tree in _kept(made).items()]
  counts = _by_part(made)
  types = sorted({t for found in counts.values() for t in found})
  parts = [
    [part, *(str(found.get(t, 0)) for t in types)]
    for part, found in counts.items()
  ]
  return [
    report.table(['with `model.dtype=bfloat16`', 'types'], rows),
    report.table(['operations of the step that give floats', *types], parts),
    'The second table counts the equations of the traced step, forward,'
    ' backward and update, by the scope that they stand in.',
  ]


def _kept(made):
  """What -> the arrays it consists of, as shapes and types."""
  state, batch = made.state, made.batch
  # One device is an axis of its own.
  by_axis = lambda function: (
    lambda *args: jax.eval_shape(
      jax.vmap(function, in_axes=(None, 0), axis_name=mapping.AXIS),
      *args,
    )
  )
  rows = jax.tree.map(
    lambda a: jax.ShapeDtypeStruct((1, *a.shape), a.dtype), batch
  )

  def embed(params, batch_stats, batch):
    return made.model.apply(
      {'params': params['model'], 'batch_stats': batch_stats},
      batch['image'],
      train=True,
      mutable=['batch_stats', 'intermediates'],
      capture_intermediates=lambda module, method: (
        (module.name, method) == ('backbone', '__call__')
      ),
    )

  def loss(params, batch_stats, batch):
    z, _ = embed(params, batch_stats, batch)
    return engine.loss(
      made.config,
      jax.random.key(0),
      z,
      batch['label'],
      params['loss'],
      axis_name=mapping.AXIS,
    )

  def gradient(given, batch):
    return jax.grad(loss, has_aux=True)(*given, batch)[0]

  given = state.params, state.batch_stats
  z, found = by_axis(lambda given, batch: embed(*given, batch))(given, rows)
  after, metrics = by_axis(made.step)(state, rows)
  return {
    'parameters': after.params,
    'gradients': by_axis(gradient)(given, rows),
    "AdamW's moments": after.opt_state,
    "BatchNorm's running statistics": after.batch_stats,
    'features, out of the backbone': found['intermediates'],
    'embeddings': z,
    'loss and the other metrics': metrics,
  }


def _types(tree):
  found = {
    str(leaf.dtype)
    for leaf in jax.tree.leaves(tree)
    if jnp.issubdtype(leaf.dtype, jnp.floating)
  }
  return ', '.join(sorted(found))


def _by_part(made):
  """Part of the step -> type -> operations that give it."""
  traced = jax.make_jaxpr(
    jax.vmap(made.step, in_axes=(None, 0), axis_name=mapping.AXIS)
  )(
    made.state,
    jax.tree.map(
      lambda a: jax.ShapeDtypeStruct((1, *a.shape), a.dtype), made.batch
    ),
  )
  parts: dict[str, collections.Counter] = {
    part: collections.Counter()
    for part in (
      'backbone',
      "its BatchNorms' reductions to statistics",
      'head and ball',
      'losses, norms of gradients, AdamW',
    )
  }
  for scope, equation in _equations(traced.jaxpr):
    for variable in equation.outvars:
      dtype = getattr(variable.aval, 'dtype', None)
      if dtype is not None and jnp.issubdtype(dtype, jnp.floating):
        parts[_part(scope, equation, parts)][str(dtype)] += 1
  return parts


def _part(scope, equation, parts):
  backbone, statistics_, head, rest = parts
  if 'backbone' in scope:
    in_norm = any(word in scope for word in ('bn', '_norm'))
    forward = 'transpose' not in scope
    reduces = equation.primitive.name in ('reduce_sum', 'reduce_max', 'psum')
    return statistics_ if in_norm and forward and reduces else backbone
  return head if '/head' in scope else rest


def _equations(jaxpr, scope=''):
  """(scope, equation) of all, those inside others too."""
  for equation in jaxpr.eqns:
    inside = f'{scope}/{equation.source_info.name_stack}'
    inner = [
      getattr(p, 'jaxpr', p)
      for value in equation.params.values()
      for p in (value if isinstance(value, (tuple, list)) else (value,))
      if hasattr(getattr(p, 'jaxpr', p), 'eqns')
    ]
    if not inner:
      yield inside, equation
    for each in inner:
      yield from _equations(each, inside)


# ---- all --------------------------------------------------------------------

_SECTIONS = {
  'runs': ('Both types', both_types),
  'audit': ('Which part computes in what', audit),
}


def main():
  """Reads the command line."""
  parser = report.parser(__doc__, 'mixed_precision.md', _SECTIONS)
  parser.add_argument('--seeds', type=int, nargs='+', default=[0, 1, 2])
  parser.add_argument('--epochs', type=int, default=2, help='of a run')
  parser.add_argument(
    '--runs', type=command_line.path, help='keeps the runs there, or goes on'
  )
  args = parser.parse_args()
  if args.quick:
    args.seeds, args.epochs = args.seeds[:2], 1
  args.figure = args.out.with_suffix('.png')
  report.emit_sections(args, _SCRIPT, _SECTIONS, _PACKAGES, args)


if __name__ == '__main__':
  main()
