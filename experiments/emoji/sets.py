"""The drawings: Iconify sets and fonts, each drawing as an SVG document."""

import json
import pathlib

from fontTools.pens.boundsPen import BoundsPen
from fontTools.pens.svgPathPen import SVGPathPen
from fontTools.ttLib import TTFont

from hier_jax.errors import UserError

__all__ = ['Font', 'IconSet']


def _document(body: str, left, top, width, height) -> str:
  return (
    '<svg xmlns="http://www.w3.org/2000/svg"'
    ' xmlns:xlink="http://www.w3.org/1999/xlink"'
    f' viewBox="{left} {top} {width} {height}">{body}</svg>'
  )


class IconSet:
  """An Iconify package: named SVG icons and aliases of them.

  Attributes:
    names: icons first, then aliases, each in the package's order.
    chars: code points as the package writes them -> icon. Complete in some
      packages, all but empty in others.
  """

  def __init__(self, folder: pathlib.Path):
    data = json.loads((folder / 'icons.json').read_text('utf-8'))
    self._icons = data['icons']
    self._aliases = data.get('aliases', {})
    self._page = {k: data[k] for k in ('width', 'height')}
    self.names = [*self._icons, *self._aliases]
    self.chars = json.loads((folder / 'chars.json').read_text('utf-8'))

  def svg(self, name: str) -> str:
    """Returns the SVG document of an icon or alias.

    Raises:
      UserError: an alias has a transformation other than `hFlip`, the only
        one in the pinned packages.
    """
    alias = dict(self._aliases.get(name, {'parent': name}))
    icon = {'left': 0, 'top': 0, **self._page}
    icon |= self._icons[alias.pop('parent')]
    body, left, width = icon['body'], icon['left'], icon['width']
    if alias.pop('hFlip', False):
      body = f'<g transform="matrix(-1 0 0 1 {2 * left + width} 0)">{body}</g>'
    if alias:
      raise UserError(
        f'icon {name!r} is an alias with {sorted(alias)}; expected hFlip at '
        'most. Install the versions that package.json pins.'
      )
    return _document(body, left, icon['top'], width, icon['height'])


class Font:
  """A font's outlines, drawn in black."""

  def __init__(self, path: pathlib.Path):
    self._font = TTFont(path)
    self._glyphs = self._font.getGlyphSet()
    self._cmap = self._font.getBestCmap()

  def __contains__(self, char: str) -> bool:
    return len(char) == 1 and ord(char) in self._cmap

  def svg(self, char: str) -> str:
    """Returns the SVG document of a character the font has."""
    glyph = self._glyphs[self._cmap[ord(char)]]
    bounds, path = BoundsPen(self._glyphs), SVGPathPen(self._glyphs)
    glyph.draw(bounds)
    glyph.draw(path)
    left, bottom, right, top = bounds.bounds
    # A font's y axis points up, SVG's down.
    body = f'<path transform="scale(1 -1)" d="{path.getCommands()}"/>'
    return _document(body, left, -top, right - left, top - bottom)
