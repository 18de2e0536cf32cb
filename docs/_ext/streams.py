"""What a notebook's cell prints, as one text.

A command prints in pieces that end anywhere, and each becomes a block of its
own. MyST-NB can join them, but ends every piece with a new line.
"""

from docutils import nodes


def _prints(node: nodes.Node | None) -> bool:
  classes = node['classes'] if isinstance(node, nodes.literal_block) else []
  return {'output', 'stream'} <= set(classes)


def join(document: nodes.document) -> None:
  """Joins blocks of output that follow one another."""
  for block in list(document.findall(_prints)):
    siblings = block.parent.children if block.parent else []
    last = (
      siblings[siblings.index(block) - 1] if block in siblings[1:] else None
    )
    if not _prints(last):
      continue
    text = last.rawsource + block.rawsource
    last.rawsource = text
    last.children = []
    last += nodes.Text(text)
    block.parent.remove(block)


def setup(app) -> dict[str, bool]:
  """Joins the blocks of every page that is read."""
  app.connect('doctree-read', lambda app, document: join(document))
  return {'parallel_read_safe': True}
