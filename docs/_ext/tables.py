"""Tables of the site that the package itself makes, so that they cannot drift.

In a page:

    ```{generated} config
    ```

puts the Markdown of a function of `SOURCES` there.
"""

import configparser
import fnmatch
import inspect
import itertools
import pathlib
import re
from collections.abc import Callable, Iterable, Sequence

ROOT = pathlib.Path(__file__).resolve().parents[2]

# Section of the config -> its heading, in the order of the page.
_SECTIONS = {
  '': 'The run',
  'checkpoint': 'Checkpoints',
  'model': 'Model',
  'loss': 'Loss',
  'optim': 'Optimizer',
  'data': 'Data',
  'eval': 'Evaluation',
}


def table(titles: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
  """A Markdown table."""
  lines = [titles, ['---'] * len(titles), *rows]
  return '\n'.join(
    f'| {" | ".join(str(cell).replace("|", "&#124;") for cell in line)} |'
    for line in lines
  )


def described(function: Callable, name: str) -> str:
  """The text of an argument in a function's docstring, '' without any."""
  doc = inspect.getdoc(function) or ''
  found = re.search(rf'^  {name}: ((?:.|\n(?=    ))*)', doc, flags=re.M)
  return ' '.join(found[1].split()) if found else ''


def meaning(key: str) -> tuple[str, str]:
  """What a key of the config means, and the paper's symbol; '' if unknown."""
  from hier_jax import losses
  from hier_jax.training.config.meanings import MEANINGS

  for pattern, found in MEANINGS.items():
    if fnmatch.fnmatch(key, pattern):
      return found.text, found.symbol
  _, name, option = key.split('.')
  text = described(getattr(losses, name), option)
  if referred := re.fullmatch(r'see `(\w+)`\.', text):
    text = described(getattr(losses, referred[1]), option)
  return text.rstrip('.'), ''


def _kind(key: str, default: object) -> str:
  from ml_collections.config_flags import config_path

  from hier_jax.training.config import default as config_lib

  kind = config_path.get_type(key, config_lib.default_config()).__name__
  or_none = default is not None and config_lib.may_be_none(key)
  return f'{kind} or None' if or_none or default is None else kind


def _value(value: object) -> str:
  if isinstance(value, tuple):
    return f'({", ".join(map(_value, value))})'
  return f'{value:.5g}' if isinstance(value, float) else repr(value)


def _config_rows(keys: Iterable[str], flat: dict) -> str:
  from hier_jax.training.config import values

  rows = []
  for key in keys:
    text, symbol = meaning(key)
    allowed = values.allowed(key)
    # Names of losses have a page of their own.
    allowed = 'see {doc}`losses`' if key == 'loss.metric' else allowed
    default, kind = _value(flat[key]), _kind(key, flat[key])
    text = f'{text} (*{symbol}* in HIER)' if symbol else text
    rows.append([f'`{key}`', kind, f'`{default}`', allowed, text])
  titles = 'key', 'type', 'default', 'allowed', 'meaning'
  return table(titles, rows)


def config() -> str:
  """Every key of the config, a table a section."""
  from hier_jax.training.config import default as config_lib

  flat = config_lib.flatten(config_lib.default_config())
  section = lambda key: key.partition('.')[0] if '.' in key else ''
  text = []
  for name, title in _SECTIONS.items():
    keys = [key for key in flat if section(key) == name]
    of_losses = [k for k in keys if re.match(r'loss\.(?!hier|memory)\w+\.', k)]
    rest = [key for key in keys if key not in of_losses]
    text += [f'## {title}', _config_rows(rest, flat)]
    groups = itertools.groupby(of_losses, key=lambda k: k.split('.')[1])
    if of_losses:
      text.append('## Options of metric losses')
    for loss, options in groups:
      text += [f'### {loss}', _config_rows(options, flat)]
  return '\n\n'.join(text)


def command_line() -> str:
  """Every verb with its flags."""
  from hier_jax import cli

  text = []
  for verb in cli.VERBS.values():
    forms = '\n'.join(f'hier-jax {form}' for form in verb.forms)
    rows = [
      [f'`{f"--{name} {placeholder}".strip()}`', said]
      for name, placeholder, said in verb.shown_flags()
    ]
    text += [
      f'## {verb.name}',
      re.sub(r'\b([A-Z]+(?:/[\w/]+)?[A-Z])\b', r'`\1`', verb.about),
      f'```text\n{forms}\n```',
      table(['flag', 'effect'], rows),
    ]
  return '\n\n'.join(text)


def extras() -> list[tuple[str, str, list[str]]]:
  """Each extra of setup.cfg: its name, what it is for, and its packages.

  What it is for is the comment above it.
  """
  text = (ROOT / 'setup.cfg').read_text()
  parser = configparser.ConfigParser()
  parser.read_string(text)
  section = text.split('[options.extras_require]')[1].split('\n[')[0]
  purposes, comment = {}, []
  for line in section.splitlines():
    if line.startswith('#'):
      comment.append(line[1:].strip())
    elif named := re.match(r'(\w+) =', line):
      purposes[named[1]] = ' '.join(comment)
      comment = []
  found = parser['options.extras_require']
  return [
    (name, purposes[name], [x.strip() for x in found[name].split('\n') if x])
    for name in found
  ]


def _extras_table() -> str:
  rows = []
  for name, purpose, packages in extras():
    names = [re.match(r'[\w.-]+', x)[0] for x in packages if x[0] != '#']
    rows.append([f'`{name}`', purpose, ', '.join(names)])
  return table(['extra', 'for', 'packages'], rows)


def _house() -> str:
  from tests.support import house

  rooms, rows = house.modules(), []
  for room, others in sorted(house.arrows().items()):
    imports = ', '.join(f'`{other}`' for other in sorted(others))
    rows.append([f'`{room}`', len(rooms[room]), imports])
  return table(['room', 'modules', 'imports'], rows)


def _presets() -> str:
  from hier_jax.training.config import presets

  rows = []
  for name, row in presets.DATA.items():
    ranks = ', '.join(map(str, row.recall_at))
    step = row.resnet
    rows.append(
      [
        f'`{name}`',
        row.epochs,
        row.warmup_epochs,
        row.eval_every,
        f'{row.weight_decay:g}',
        f'{row.head_scale:g}',
        f'{step.lr:g}, x {step.factor:g} every {step.epochs} epochs',
        ranks,
      ]
    )
  titles = ['config', 'epochs', 'warm-up', 'evaluated every', 'weight decay']
  titles += ["head's scale (ViT)", 'rate of ResNet-50', 'K of Recall@K']
  return table(titles, rows)


def _notebooks() -> str:
  """The notebooks, as far as there are any."""
  files = (ROOT / 'docs' / 'notebooks').glob('*.*')
  names = sorted(x.stem for x in files if x.suffix in ('.ipynb', '.md'))
  entries = '\n'.join(f'notebooks/{name}' for name in names)
  return f'```{{toctree}}\n:caption: Notebooks\n:hidden:\n\n{entries}\n```'


SOURCES: dict[str, Callable[[], str]] = {
  'command_line': command_line,
  'config': config,
  'extras': _extras_table,
  'house': _house,
  'notebooks': _notebooks,
  'presets': _presets,
}


def setup(app) -> dict[str, bool]:
  """Defines the directive."""
  from sphinx.util.docutils import SphinxDirective

  class Generated(SphinxDirective):
    required_arguments = 1

    def run(self):
      text = SOURCES[self.arguments[0]]()
      return self.parse_text_to_nodes(text, allow_section_headings=True)

  app.add_directive('generated', Generated)
  return {'parallel_read_safe': True}
