"""Queries and gallery sorted by class."""

import numpy as np
import pytest

from hier_jax.evaluation.retrieval import _layout
from hier_jax.evaluation.retrieval._layout import by_class


def test_layout_by_hand():
  # Classes 0, 1, 2 have 3, 0 and 2 rows: first comes 1, then 2, then 0.
  found = by_class(
    np.array([0, 1, 2, 0]), np.array([0, 2, 0, 2, 0]), np.array([4, -1, 1, -1])
  )
  np.testing.assert_array_equal(found.queries, [1, 2, 0, 3])
  np.testing.assert_array_equal(found.gallery, [1, 3, 0, 2, 4])
  np.testing.assert_array_equal(
    found.runs, [[0, 0, 2, 2], [0, 2, 5, 5], [5, 0, 4, 5]]
  )
  np.testing.assert_array_equal(found.num_positives, [0, 1, 2, 3])


def test_more_gallery_rows_than_int32_counts_are_refused():
  gallery = np.broadcast_to(np.int8(0), 2**31)
  with pytest.raises(ValueError, match=r'2,147,483,648 rows; .* than 2\^31'):
    _layout.by_class(np.zeros(1, int), gallery, np.array([-1]))
