"""What a cell prints is one block on the page."""

import pytest

nodes = pytest.importorskip('docutils.nodes')


def printed(text, name='stream'):
  return nodes.literal_block(text, text, classes=['output', name])


def test_pieces_of_output_are_joined_as_they_were():
  import streams
  from docutils import utils

  document = utils.new_document('page')
  cell = nodes.container()
  pieces = [printed('a ta'), printed('xonomy\n'), printed('b\n')]
  cell += [*pieces, nodes.image(), printed('c\n'), printed('d\n', 'stderr')]
  other = nodes.container()
  other += printed('e\n')
  document += [cell, other]
  streams.join(document)
  blocks = [block.astext() for block in document.findall(nodes.literal_block)]
  assert blocks == ['a taxonomy\nb\n', 'c\n', 'd\n', 'e\n']
  assert cell[0].rawsource == cell[0].astext()
