"""Formulas as MathML, which browsers draw without scripts or a network."""

from docutils import nodes
from latex2mathml import converter


def markup(tex: str, *, display: bool) -> str:
  """The MathML of a formula in TeX, in a line or on lines of its own."""
  return converter.convert(tex, display='block' if display else 'inline')


def _inline(translator, node) -> None:
  translator.body.append(markup(node.astext(), display=False))
  raise nodes.SkipNode


def _block(translator, node) -> None:
  formula = markup(node.astext(), display=True)
  translator.body.append(f'<div class="math">{formula}</div>')
  raise nodes.SkipNode


def setup(app) -> dict[str, bool]:
  """Defines the renderer, `html_math_renderer = 'mathml'`."""
  app.add_html_math_renderer('mathml', (_inline, None), (_block, None))
  return {'parallel_read_safe': True}
