"""What is read of figures, and names that should be text in them."""

import xml.etree.ElementTree

# Markup, math, control characters, marks of direction, names that a legend
# leaves out, bytes that are no UTF-8, and a long one.
HOSTILE = (
  '</text><script>alert(1)</script>',
  '$\\frac{1}{$ \\undefined',
  '_hidden',
  '\u202eevil\x00\x1b[31m\nline',
  b'caf\xe9'.decode(errors='surrogateescape'),
  '😀' * 10_000,
)


def svg_texts(path):
  """The texts of an SVG; fails where it has elements that could run."""
  tree = xml.etree.ElementTree.parse(path)
  tags = {element.tag.rpartition('}')[2] for element in tree.iter()}
  assert not tags & {'script', 'foreignObject', 'a'}, tags
  return [
    ''.join(element.itertext())
    for element in tree.iter()
    if element.tag.endswith('}text')
  ]
