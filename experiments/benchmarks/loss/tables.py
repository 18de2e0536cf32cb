"""Cells and captions that the tables share."""


def ms(contender):
  """Its median milliseconds, for a table."""
  median = contender.median
  return f'{median:.0f}' if median >= 100 else f'{median:.3g}'


def rounds(found):
  """In words: how often the rows of a table ran."""
  runs = min(len(c.milliseconds) for c in found)
  return f'Medians of {runs} rounds in which every row runs once.'
