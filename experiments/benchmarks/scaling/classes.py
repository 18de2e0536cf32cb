"""Class proxies that every device has, beside such that are spread."""

from experiments.benchmarks.common import report
from experiments.benchmarks.scaling import cases, class_steps, compiling


def by_classes(sizes):
  """Memory and exchange by number of classes; and steps that are taken."""
  rows, figures = [], []
  for found in compiling.in_new_process('classes', sizes.spread, sizes):
    held = found['state'], found['temporaries'], found['sent']
    number = f'{found["classes"]:,}'
    way = 'spread' if found['spread'] else 'on each device'
    rows.append([number, way, *(f'{n / cases.MB:,.0f}' for n in held)])
    figures.append(
      report.Figure(
        f'a step of {number} classes x {sizes.dim} on {sizes.spread} devices,'
        f' proxies {way}',
        f'{(held[0] + held[1]) / 1e9:.2f} GB a device,'
        f' {held[2] / cases.MB:,.0f} MB sent',
      )
    )
  heading = ['classes', 'class proxies', 'state and batch, MB']
  heading += ['temporaries, MB', 'sent by a device, MB']
  return [
    report.table(heading, rows),
    f'A device of {sizes.spread}, by the compiled step (`memory_analysis`, and'
    f' the collectives of its text): {sizes.few} images a device, D ='
    f' {sizes.dim}, Proxy-Anchor, AdamW, without HIER, and a backbone of a few'
    ' thousand parameters, so that all is that of the class proxies. Nothing'
    ' was allocated. The temporaries are B x C matrices and gradients.'
    ' With `shard_classes` devices exchange the gradient of the backbone, the'
    ' embeddings, and for Proxy-Anchor a few numbers.',
    _taken(sizes),
    *figures,
  ]


def _taken(sizes):
  rows = []
  for shard_classes in (False, True):
    found = compiling.in_new_process(
      'trained', sizes.fake, sizes, shard_classes=shard_classes
    )
    first, *_, last = found['losses']
    rows.append(
      [
        'spread' if shard_classes else 'on each device',
        f'{found["rows"]:,}',
        f'{found["seconds"]:.1f}',
        f'{found["peak"] / 1e9:.1f}',
        f'{first:.6f}',
        f'{last:.6f}',
      ]
    )
  heading = ['class proxies', 'of a device', 's a step', 'peak, GB']
  heading += ['first loss', 'last loss']
  number, dim = sizes.trained
  return '\n\n'.join(
    [
      report.table(heading, rows),
      f'{number:,} classes, D = {dim}, {class_steps.STEPS} steps of one batch'
      f' on {sizes.fake} pretended devices, {sizes.few} images each; the peak'
      ' is that of the process, which holds all of them.',
    ]
  )
