"""A disk without room."""

import errno


def full_disk(*args, **kwargs):
  raise OSError(errno.ENOSPC, 'No space left on device')
