"""Bytes that devices exchange in a step, beside a formula."""

import jax

from experiments.benchmarks.common import engine, report
from experiments.benchmarks.scaling import cases, collectives, compiling
from hier_jax.training.step import optim


def formula(made, devices):
  """Kind -> bytes exchanged in a step of Proxy-Anchor and HIER.

  Gathered: embeddings, labels and k neighbors of each of the B rows, and k
  neighbors of the P proxies. Scattered: the gradient by the embeddings.
  Reduced: the gradient by all T trained parameters; for Proxy-Anchor seven
  numbers a class; for HIER two a proxy; and scalars.
  """
  config = made.config
  rows, dim = config.data.batch_size, config.model.embedding_dim
  proxies, k = config.loss.num_proxies, config.loss.hier.k
  trained, _ = optim.split(made.state.params, config.optim.freeze)
  count = sum(leaf.size for leaf in jax.tree.leaves(trained))
  padded = -(-proxies // devices) * devices
  return {
    'all-gather': 4 * (rows * (dim + 1 + k) + padded * k),
    'all-reduce': 4 * (count + 7 * cases.CLASSES + 2 * proxies),
    'reduce-scatter': 4 * rows * dim,
  }


def exchanged(sizes):
  """Bytes from the compiled step, beside the formula."""
  rows = []
  for name, config, counts in (
    ('ViT-Ti/16, 32 px', cases.small_config, sizes.devices),
    ('ViT-S/16, 224 px', cases.vits_config, sizes.whole),
  ):
    for n in counts:
      found = compiling.in_new_process(
        'step', n, sizes, small=config is cases.small_config
      )
      expected = formula(engine.Engine(config(sizes, n), cases.CLASSES), n)
      rows.append(_bytes_row(name, n, found, expected))
  heading = ['step', 'devices', *(f'{k}, MB' for k in expected), 'scalars']
  heading += ['exchanges', 'sent by a device, MB']
  return [
    report.table(heading, rows),
    f'{sizes.few} images a device for ViT-Ti and {sizes.images} for ViT-S, P ='
    f' 512, D = 128, {cases.CLASSES} classes, k = 20. Bytes are those of the'
    ' whole array that is gathered, reduced or scattered, as the compiled'
    ' program has them. They are those of the formula'
    ' ([`formula`](../scaling/exchange.py):'
    f' {_one_line(formula.__doc__)}), asserted'
    ' here; what is left of it is in the column of scalars, 4 bytes each. A'
    ' device sends (n - 1) / n of what is gathered or scattered, and twice'
    ' that of what is reduced, in a ring.',
    _vits_by_formula(sizes),
  ]


def _one_line(doc):
  return ' '.join(doc.split('\n\n')[1].split()).rstrip('.')


def _bytes_row(name, n, found, expected):
  kinds = found['kinds']
  rest = kinds['all-reduce'] - expected['all-reduce']
  scalars, odd = divmod(rest, 4)
  same = all(kinds[k] == expected[k] for k in ('all-gather', 'reduce-scatter'))
  if not same or odd or not 0 <= scalars < 100:
    raise AssertionError(f'{name} at {n}: {kinds}, by formula {expected}')
  return [
    f'{name}, compiled',
    str(n),
    *(f'{kinds[k] / cases.MB:.3f}' for k in expected),
    str(scalars),
    str(found['exchanges']),
    f'{found["sent"] / cases.MB:.2f}',
  ]


def sent(kinds, n):
  """Bytes that a device of n sends, of what is exchanged by kind."""
  return sum(collectives.Collective(*kind).sent(n) for kind in kinds.items())


def _vits_by_formula(sizes):
  rows = []
  for n in sizes.devices:
    kinds = formula(
      engine.Engine(cases.vits_config(sizes, n), cases.CLASSES), n
    )
    gradient = kinds['all-reduce']
    others = {k: v for k, v in kinds.items() if k != 'all-reduce'}
    rows.append(
      [
        str(n),
        f'{sizes.images * n:,}',
        *(f'{kinds[k] / cases.MB:.2f}' for k in kinds),
        f'{sent({"all-reduce": gradient}, n) / cases.MB:.1f}',
        f'{sent(others, n) / cases.MB:.1f}',
      ]
    )
  heading = ['devices', 'B', *(f'{k}, MB' for k in kinds)]
  heading += ['sent: gradients, MB', 'sent: embeddings, MB']
  return 'ViT-S/16, by the formula:\n\n' + report.table(heading, rows)
