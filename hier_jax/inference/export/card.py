"""The model card: what a model is, how good, and how it is run."""

import pathlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from hier_jax.data import builders
from hier_jax.errors import UserError, plain
from hier_jax.evaluation import statistics
from hier_jax.inference.export.portable import Usage
from hier_jax.inference.model import Model
from hier_jax.training.run import from_checkpoint

__all__ = ['text']

_BLANK = '**To be filled in:**'
# Keys of a run's config that a reader asks for, and what they are called.
_RECIPE = {
  'backbone': 'model.backbone',
  'began from': 'pretrained',
  'image size': 'model.image_size',
  'curvature c': 'model.c',
  'clip radius': 'model.clip_radius',
  'metric loss': 'loss.metric',
  'second metric loss': 'loss.second',
  "weight of HIER's loss": 'loss.hier_weight',
  'hierarchical proxies': 'loss.num_proxies',
  'learning rate': 'optim.lr',
  'schedule': 'optim.schedule',
  'weight decay': 'optim.weight_decay',
  'batch size': 'data.batch_size',
  'sampler': 'data.sampler',
  'epochs': 'epochs',
  'dtype': 'model.dtype',
  'seed': 'seed',
}
_DISTANCES = {
  'cosine': """\
def distance(x, y):  # [n, d], [m, d] -> [n, m]
  x, y = (a / np.linalg.norm(a, axis=1, keepdims=True) for a in (x, y))
  return 1 - x @ y.T
""",
  'Euclidean': """\
def distance(x, y):  # [n, d], [m, d] -> [n, m]
  return np.linalg.norm(x[:, None] - y[None], axis=-1)
""",
  'hyperbolic': """\
def distance(x, y, c={c}):  # [n, d], [m, d] -> [n, m]
  gap = np.square(x[:, None] - y[None]).sum(-1)
  room = [1 - c * np.square(a).sum(-1) for a in (x, y)]
  return 2 / c**0.5 * np.arcsinh(np.sqrt(c * gap / np.outer(*room)))
""",
}
_VIEW = """\
import numpy as np
from PIL import Image

{snippet}

def view(path):  # a file -> uint8 [{size}, {size}, 3]
  image = Image.open(path, formats=('JPEG', 'PNG', 'WEBP')).convert('RGBA')
  # Transparency is laid on white.
  image = Image.alpha_composite(Image.new('RGBA', image.size, 'white'), image)
  sides = [{resize} * side // min(image.size) for side in image.size]
  image = image.convert('RGB')
  # The width first: by itself, Pillow 13 takes another order than those before.
  for step in ([sides[0], image.height], sides):
    image = image.resize(step, Image.Resampling.BICUBIC)
  left, top = (round((side - {size}) / 2) for side in image.size)
  return np.asarray(image)[top : top + {size}, left : left + {size}]


{distance}

rows = np.asarray(embed(np.stack([view(path) for path in ['photo.jpg']])))
print(rows.shape, distance(rows, rows))
"""


def text(model: Model, facts: Mapping[str, Any], usage: Usage) -> str:
  """The card, in Markdown."""
  parts = [
    f'# {plain(facts["title"])}: an image embedding',
    _what(facts, usage),
    '## Run it',
    f'    pip install {usage.install}',
    f'```python\n{_code(facts, usage)}```',
    *usage.notes,
    '## How good it is',
    *_metrics(model),
    '## Data',
    _data(model),
    '## Recipe',
    _recipe(model),
    '## Intended use',
    _use(model),
    '## License',
    f'{_BLANK} the license of these weights. It is not recorded; that of the'
    ' data, and of weights that training began from, may bind it.',
  ]
  return '\n\n'.join(parts) + '\n'


def _what(facts: Mapping[str, Any], usage: Usage) -> str:
  rows = {
    'input': f'images, {facts["input"]}, of whatever batch size b; pixels are'
    ' normalized inside',
    'output': f'embeddings, {facts["output"]}: {facts["embedding"]}',
    'distance': facts['distance'],
    'curvature c': 'none' if facts['c'] is None else f'{facts["c"]:g}',
    'backbone': facts['backbone'],
    'files': ', '.join(f'`{name}`' for name in usage.files)
    + f' ({facts["format"]}), `metadata.json`',
    'made by': f'hier_jax {facts["hier_jax"]}, model {facts["digest"]}',
  }
  if usage.max_error is not None:
    rows['checked'] = (
      'largest difference from the model in hier_jax, on random images:'
      f' {usage.max_error:.1e}'
    )
  return _table(('', ''), rows.items())


def _code(facts: Mapping[str, Any], usage: Usage) -> str:
  kind = facts['distance'].partition(',')[0]
  return _VIEW.format(
    snippet=usage.snippet,
    size=facts['image_size'],
    resize=facts['resize'],
    distance=_DISTANCES[kind].format(c=facts['c']),
  )


def _metrics(model: Model) -> list[str]:
  run = model.run
  rows = {} if run is None else from_checkpoint.evaluations(run)
  if not rows:
    return [f'{_BLANK} no record of this model says how good it is.']
  row = next(reversed(rows.values()))
  keys = [key for key in row if key.startswith('recall@')] + ['map@r']
  table = []
  for name, found in rows.items():
    count = found['num_queries'] - found['num_without_positive']
    cells = [_interval(found[key], count) for key in keys]
    table.append((name, cells))
  titles = ['', *(key.upper().replace('RECALL', 'R') for key in keys)]
  which = 'test images'
  if row['kind'] != 'eval':
    which = 'training classes that were kept for validation'
  return [
    _table(titles, ((name, *cells) for name, cells in table)),
    f'*In per cent; {row["num_queries"]:,} queries, {which}; distance:'
    f' {row["distance"]} (raw pixels: cosine); ties {row["ties"]}. In brackets,'
    " Wilson's 95 % confidence intervals, which for MAP@R are at least as wide"
    ' as need be. They take queries for independent, but images of a class are'
    ' alike, and another seed ends elsewhere: the uncertainty is larger.*',
  ]


def _interval(mean: float, count: int) -> str:
  found = statistics.wilson(mean, count)
  return f'{100 * mean:.1f} [{100 * found.low:.1f}, {100 * found.high:.1f}]'


def _data(model: Model) -> str:
  if model.run is None:
    return (
      f'{_BLANK} what it was trained on, and under which license. The weights'
      f' are those of {plain(model.about["title"])}.'
    )
  name = model.run.config.data.name
  try:
    license = builders.license_of(name)
  except UserError:
    license = ''
  return _table(
    ('', ''),
    [
      ('data set', f'`{plain(name)}`'),
      ('license of the data', license or f'{_BLANK} not recorded'),
    ],
  )


def _recipe(model: Model) -> str:
  if model.run is None:
    return 'Pretrained weights, as they were published.'
  flat = _flat(model.run.config.to_dict())
  rows = [
    (title, _shown(title, flat[key]))
    for title, key in _RECIPE.items()
    if key in flat
  ]
  return _table(('', ''), [*rows, ('training steps', f'{model.run.step:,}')])


def _shown(title: str, value: Any) -> str:
  if title == 'began from':
    # Where a file lay is nobody's business.
    name = 'drawn weights' if value is None else str(value)
    return plain(pathlib.PurePath(name).name)
  return 'none' if value is None else plain(str(value))


def _use(model: Model) -> str:
  return (
    'To find images that are like an image, and to group images, of the kind'
    ' that it was trained on: of other kinds its metrics tell nothing. It was'
    ' not made to recognize people, nor tested for bias, and no decision about'
    f' a person should rest on it.\n\n{_BLANK} what you'
    ' mean it to be used for, and what not.'
  )


def _flat(tree: Mapping[str, Any], prefix: str = '') -> dict[str, Any]:
  found: dict[str, Any] = {}
  for key, value in tree.items():
    if isinstance(value, Mapping):
      found |= _flat(value, f'{prefix}{key}.')
    else:
      found[f'{prefix}{key}'] = value
  return found


def _table(titles: Sequence[str], rows: Iterable[Iterable[str]]) -> str:
  lines = [titles, ['---'] * len(titles), *rows]
  return '\n'.join(
    '| ' + ' | '.join(str(cell).replace('|', '\\|') for cell in line) + ' |'
    for line in lines
  )
