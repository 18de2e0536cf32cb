"""Contact sheets of searches: a query and its neighbors in each row."""

import base64
import html
import io
import os
import re
from collections.abc import Sequence
from typing import NamedTuple

from PIL import Image, ImageDraw, ImageOps, PngImagePlugin

from hier_jax import paths
from hier_jax.viz import theme as themes

__all__ = ['SUFFIXES', 'Row', 'Tile', 'write_sheet']

SUFFIXES = '.html', '.png'
_THUMB = 128
_MARGIN = 8
_LINE = 14
# Characters of a line in a picture.
_SHORT = 20
# In a page, which wraps lines.
_LONG = 300
_CONTROL = re.compile(r'[\x00-\x1f\x7f-\x9f]')
# Right, wrong, not known: told apart by the color-blind, and by their words.
_MARKS = {
  True: ('right', '✓ right', '#0072b2'),
  False: ('wrong', '✗ wrong', '#d55e00'),
  None: ('', '', '#888888'),
}
_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy"
 content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">
<meta name="viewport" content="width=device-width">
<title>{title}</title>
<style>
:root {{ color-scheme: light dark; }}
body {{ font: 14px/1.35 system-ui, sans-serif; margin: 1.5em; }}
section {{ display: flex; flex-wrap: wrap; gap: .75em; padding: 1em 0;
  border-top: 1px solid #8888; }}
figure {{ margin: 0; width: 8.6em; overflow-wrap: anywhere; }}
figure.query {{ margin-right: 1.5em; }}
.thumb {{ display: grid; place-items: center; height: 8.6em;
  border: .25em solid; background: #8882; }}
img {{ max-width: 100%; max-height: 100%; }}
figcaption div {{ display: -webkit-box; -webkit-box-orient: vertical;
  -webkit-line-clamp: 3; overflow: hidden; }}
</style>
</head>
<body>
<h1><bdi>{title}</bdi></h1>
<p><bdi>{subtitle}</bdi></p>
{rows}
</body>
</html>
"""


class Tile(NamedTuple):
  """One image of a sheet.

  Attributes:
    image: RGB, or None where there is no picture.
    lines: what is written below it.
    right: whether it has the query's class; None if that is not known.
  """

  image: Image.Image | None
  lines: Sequence[str]
  right: bool | None = None


class Row(NamedTuple):
  """A query and what was found, the nearest first."""

  query: Tile
  found: Sequence[Tile]


def write_sheet(
  rows: Sequence[Row],
  path: str | os.PathLike,
  *,
  title: str,
  subtitle: str = '',
  theme: str = 'light',
) -> None:
  """Writes a contact sheet, atomically.

  Args:
    rows: one a query.
    path: an .html, which contains all its images, or a .png.
    title: what it is called.
    subtitle: a line below that.
    theme: 'light' or 'dark' for a .png; an .html follows its reader's setting.

  Raises:
    UserError: another suffix or theme, or it cannot be written.
  """
  look = themes.named(theme)
  path = paths.check_output(path, suffixes=SUFFIXES)
  if path.suffix == '.html':
    paths.write_text(path, _page(rows, title, subtitle))
    return
  sheet = _picture(rows, look)
  about = PngImagePlugin.PngInfo()
  about.add_itxt('Title', _clean(f'{title}. {subtitle}'))
  with paths.replacing(path) as temporary:
    sheet.save(temporary, 'PNG', pnginfo=about)


def _clean(text: str) -> str:
  """A stranger's text as UTF-8 can hold it, in one line."""
  text = text.encode(errors='backslashreplace').decode()
  return _CONTROL.sub('\N{REPLACEMENT CHARACTER}', text)


def _escaped(text: str) -> str:
  text = _clean(text)
  if len(text) > _LONG:
    text = f'{text[:_LONG]}...'
  return html.escape(text, quote=True)


def _page(rows, title, subtitle):
  sections = [
    '\n'.join(
      [
        '<section>',
        _figure(row.query, ' class="query"'),
        *(_figure(tile) for tile in row.found),
        '</section>',
      ]
    )
    for row in rows
  ]
  return _PAGE.format(
    title=_escaped(title),
    subtitle=_escaped(subtitle),
    rows='\n'.join(sections),
  )


def _figure(tile, of=''):
  _, mark, color = _MARKS[tile.right]
  lines = [_escaped(line) for line in tile.lines]
  picture = 'no picture'
  if tile.image is not None:
    alt = ', '.join(lines)
    picture = f'<img alt="{alt}" src="{_data(tile.image)}">'
  shown = [f'<div><bdi>{line}</bdi></div>' for line in lines]
  if mark:
    shown.append(f'<div style="color:{color}">{mark}</div>')
  return (
    f'<figure{of}><div class="thumb" style="border-color:{color}">{picture}'
    f'</div><figcaption>{"".join(shown)}</figcaption></figure>'
  )


def _data(image):
  file = io.BytesIO()
  thumb = ImageOps.contain(image.convert('RGB'), (2 * _THUMB, 2 * _THUMB))
  thumb.save(file, 'JPEG', quality=85)
  return f'data:image/jpeg;base64,{base64.b64encode(file.getvalue()).decode()}'


def _picture(rows, look):
  lines = 1 + max(
    len(tile.lines) for row in rows for tile in (row.query, *row.found)
  )
  width, height = _THUMB + _MARGIN, _THUMB + _MARGIN + lines * _LINE
  columns = 1 + max(len(row.found) for row in rows)
  size = columns * width + 2 * _MARGIN, len(rows) * height + _MARGIN
  sheet = Image.new('RGB', size, look.paper)
  draw = ImageDraw.Draw(sheet)
  for y, row in enumerate(rows):
    for x, tile in enumerate((row.query, *row.found)):
      # The query stands apart.
      corner = _MARGIN + x * width + (x > 0) * _MARGIN, _MARGIN + y * height
      _draw_tile(sheet, draw, tile, corner, look.ink)
  return sheet


def _draw_tile(sheet, draw, tile, corner, ink):
  left, top = corner
  word, _, color = _MARKS[tile.right]
  box = left, top, left + _THUMB - 1, top + _THUMB - 1
  if tile.image is not None:
    inner = _THUMB - 8
    thumb = ImageOps.contain(tile.image.convert('RGB'), (inner, inner))
    at = left + (_THUMB - thumb.width) // 2, top + (_THUMB - thumb.height) // 2
    sheet.paste(thumb, at)
  draw.rectangle(box, outline=color, width=3)
  for i, line in enumerate((*tile.lines, *([word] if word else []))):
    text = _clean(line)
    if len(text) > _SHORT:
      text = f'{text[: _SHORT - 3]}...'
    # The font that Pillow brings knows no emoji.
    text = text.encode('latin-1', 'replace').decode('latin-1')
    fill = color if i == len(tile.lines) else ink
    draw.text((left, top + _THUMB + 2 + i * _LINE), text, fill=fill)
