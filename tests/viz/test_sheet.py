"""Contact sheets: whole, and safe with a stranger's names."""

import html.parser

import pytest
from PIL import Image

from hier_jax.errors import UserError
from hier_jax.viz import sheet

HOSTILE = [
  '</script><script>alert(1)</script>',
  '"><img src=x onerror=alert(1)>',
  '\u202eevil \x00\x1b',
  b'caf\xe9'.decode(errors='surrogateescape'),
  '😀' * 10_000,
]


def rows():
  blue = Image.new('RGB', (300, 20), 'blue')
  tiles = [
    sheet.Tile(blue if right else None, [name, '0.5'], right)
    for name, right in zip(
      HOSTILE, [True, False, None, True, False], strict=True
    )
  ]
  return [sheet.Row(sheet.Tile(blue, [name]), tiles) for name in HOSTILE]


class Page(html.parser.HTMLParser):
  def __init__(self, text):
    super().__init__()
    self.tags, self.sources, self.names, self.text = [], [], set(), ''
    self.feed(text)

  def handle_starttag(self, tag, attrs):
    self.tags.append(tag)
    self.names |= {name for name, _ in attrs}
    self.sources += [value for name, value in attrs if name == 'src']

  def handle_data(self, data):
    self.text += data


def test_page_holds_its_pictures_and_no_html_of_strangers(tmp_path):
  path = tmp_path / 'a' / 'sheet.html'
  sheet.write_sheet(rows(), path, title=HOSTILE[0], subtitle=HOSTILE[1])
  text = path.read_text()
  page = Page(text)
  assert not {'script', 'iframe', 'link'} & set(page.tags)
  assert not {name for name in page.names if name.startswith('on')}
  assert page.tags.count('img') == len(page.sources) == 5 + 5 * 2
  assert all(s.startswith('data:image/jpeg;base64,') for s in page.sources)
  assert HOSTILE[0] in page.text and 'caf\\udce9' in page.text
  assert page.text.count('✓ right') == 10 and page.text.count('✗ wrong') == 10
  assert "default-src 'none'" in text and len(text) < 100_000
  assert not {'\x00', '\x1b'} & set(text)


def test_picture(tmp_path):
  path = tmp_path / 'sheet.png'
  sheet.write_sheet(rows(), path, title='a', subtitle=HOSTILE[3])
  with Image.open(path) as image:
    colors = {color for _, color in image.convert('RGB').getcolors(1 << 20)}
    assert image.info['Title'].startswith('a. ')
    assert image.width > 6 * 128 and image.height > 5 * 128
  # Right, wrong, unknown, and the picture itself.
  assert {(0, 114, 178), (213, 94, 0), (136, 136, 136), (0, 0, 255)} <= colors


def test_other_suffixes(tmp_path):
  with pytest.raises(UserError, match=r'expected \.html or \.png'):
    sheet.write_sheet(rows(), tmp_path / 'a.jpg', title='a')
