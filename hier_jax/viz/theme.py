"""What all figures share: background, colors, and how they are written."""

from __future__ import annotations

import contextlib
import os
import warnings
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from hier_jax import paths
from hier_jax.errors import UserError, plain

if TYPE_CHECKING:
  from matplotlib.figure import Figure

__all__ = [
  'SUFFIXES',
  'THEMES',
  'Theme',
  'check',
  'columns',
  'drawing',
  'legend',
  'named',
  'write',
]

SUFFIXES = '.png', '.svg'
_DPI = 150


class Theme(NamedTuple):
  """Colors of a figure.

  Attributes:
    ink: of text and lines.
    soft: of lines that matter less.
    paper: of the ground.
    hues: Okabe and Ito's colors and two of Paul Tol's, which color-blind people
      can tell apart; the page of `explore` uses the same.
    other: color of everything without a hue.
  """

  ink: str
  soft: str
  paper: str
  hues: tuple[str, ...]
  other: str

  def axes(self, drawn: Figure, *shape: int) -> Any:
    """Axes of a figure, or an array of them as `Figure.subplots` makes it."""
    found = drawn.subplots(*shape)
    for axes in found.flat if shape else [found]:
      axes.spines[['top', 'right']].set_visible(False)
      # Ticks are made when the figure is drawn, outside of `drawing`.
      axes.tick_params(colors=self.ink)
    return found

  def figure(self, width: float, height: float) -> Figure:
    """An empty figure of this size in inches, not attached to any window."""
    from matplotlib import figure

    return figure.Figure(
      figsize=(width, height), layout='constrained', facecolor=self.paper
    )


THEMES = {
  'light': Theme(
    '#1f2328',
    '#b3bac6',
    '#ffffff',
    (
      '#0072b2', '#e69f00', '#009e73', '#cc79a7', '#56b4e9', '#d55e00',
      '#999933', '#882255', '#44aa99',
    ),
    '#999999',
  ),
  # The same hues, the dark ones lighter.
  'dark': Theme(
    '#e6edf3',
    '#4b5566',
    '#0d1117',
    (
      '#3d9bd8', '#e69f00', '#2bb98f', '#d996bc', '#7cc6f2', '#ee7733',
      '#b5b552', '#bb5588', '#6cc7b8',
    ),
    '#8b929c',
  ),
}  # fmt: skip


def check() -> None:
  """Raises UserError where Matplotlib is not installed."""
  try:
    import matplotlib.figure  # noqa: F401
  except ImportError as error:
    raise UserError(
      "figures need Matplotlib: pip install 'hier_jax[plots]'"
    ) from error


def named(theme: str) -> Theme:
  """A theme by its name; raises UserError where there is none."""
  if theme not in THEMES:
    raise UserError(f'the theme is {theme!r}; expected {" or ".join(THEMES)}')
  return THEMES[theme]


@contextlib.contextmanager
def drawing(theme: str) -> Iterator[Theme]:
  """The colors of a theme, for a block in which all artists are made.

  Strangers' names are text in it: `$` is a dollar.

  Args:
    theme: a key of `THEMES`.

  Raises:
    UserError: an unknown theme, or Matplotlib is not installed.
  """
  look = named(theme)
  check()
  import matplotlib

  settings: Any = {
    'text.parse_math': False,
    'text.usetex': False,
    'text.color': look.ink,
    'axes.facecolor': look.paper,
    'axes.edgecolor': look.ink,
    'axes.labelcolor': look.ink,
    'legend.frameon': False,
  }
  with matplotlib.rc_context(settings):
    yield look


def write(drawn: Figure, path: str | os.PathLike) -> None:
  """Writes a figure as PNG or SVG, by the suffix, atomically.

  The same figure always makes the same file. Text in an SVG stays text.

  Raises:
    UserError: another suffix, or it cannot be written.
  """
  import matplotlib

  path = paths.check_output(path, suffixes=SUFFIXES)
  kind = path.suffix[1:]
  about = {'Date': None} if kind == 'svg' else {'Software': None}
  settings: Any = {'svg.fonttype': 'none', 'svg.hashsalt': 'hier_jax'}
  with (
    paths.replacing(path) as temporary,
    matplotlib.rc_context(settings),
    warnings.catch_warnings(),
  ):
    # Fonts lack emoji and much else: a box stands in their place.
    warnings.filterwarnings('ignore', 'Glyph', UserWarning)
    drawn.savefig(temporary, format=kind, dpi=_DPI, metadata=about)


def legend(
  drawn: Figure,
  names: Sequence[str],
  handles: Sequence[Any],
  *,
  loc: Any = 'outside lower center',
) -> None:
  """A legend below all else, with as many columns as the names leave room."""
  drawn.legend(
    handles,
    # A label that begins with _ would be left out.
    [f' {plain(name)}' for name in names],
    loc=loc,
    ncols=columns(names, drawn.get_figwidth()),
    fontsize=8,
    handletextpad=0.2,
    columnspacing=1.2,
  )


def columns(names: Sequence[str], width: float) -> int:
  """Columns of a legend in a figure of a width in inches."""
  # Characters of a line.
  room = int(12 * width / (max(map(len, names)) + 6))
  return min(max(1, room), len(names))
