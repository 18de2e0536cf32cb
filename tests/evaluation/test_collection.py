"""What a collection takes, and what it refuses."""

import numpy as np
import pytest

from hier_jax.errors import UserError
from hier_jax.evaluation import Collection, Taxonomy

X = np.array([[0.1, 0.0], [0.2, 0.0], [0.0, 0.3]], np.float32)
IDS = ('a.png', 'b.png', 'c.png')


def make(**changes):
  return Collection(**{'embeddings': X, 'c': 1.0, 'ids': IDS} | changes)


def test_labels_are_rows_of_classes():
  made = make(labels=np.array([1, 0, 1], np.int32), classes=('cat', 'dog'))
  assert [made.label(i) for i in range(len(made))] == ['dog', 'cat', 'dog']
  assert make().label(0) is None


def test_taxonomy_is_put_in_the_order_of_the_classes():
  tree = Taxonomy.from_levels(
    [['bird'], ['pet'], ['pet']], ['owl', 'cat', 'dog'], ['kind', 'class']
  )
  made = make(labels=np.array([1, 0, 1]), classes=('dog', 'cat'), taxonomy=tree)
  assert made.taxonomy.classes == ('dog', 'cat')
  assert [made.taxonomy.node_names[n] for n in made.taxonomy.path[:, 1]] == [
    'dog',
    'cat',
  ]


@pytest.mark.parametrize(
  ('changes', 'message'),
  [
    ({'embeddings': X * np.nan}, 'NaN or Inf in 3 of 3 rows'),
    ({'embeddings': X * 10}, 'outside the ball'),
    ({'ids': ('a', 'b')}, '2 ids for 3 rows'),
    ({'ids': ('a', 'b', 'a')}, '1 ids stand twice: a'),
    ({'labels': np.zeros(3, int)}, 'only one of `labels` and `classes`'),
    (
      {'labels': np.array([0, 1, 2]), 'classes': ('a', 'b')},
      'expected 0 to 1, rows of `classes`',
    ),
    (
      {'labels': np.array(['a'] * 3), 'classes': ('a',)},
      'expected integers, rows',
    ),
    ({'proxies': np.full((1, 2), 0.9)}, '`proxies` lies outside the ball'),
    ({'proxies': np.zeros((1, 3))}, '3 dimensions and `embeddings` 2'),
    (
      {'taxonomy': Taxonomy.from_levels([['g']], ['a'])},
      'the items have no classes',
    ),
    (
      {
        'labels': np.zeros(3, int),
        'classes': ('b',),
        'taxonomy': Taxonomy.from_levels([['g']], ['a']),
      },
      'that the taxonomy lacks',
    ),
  ],
)
def test_what_does_not_fit_is_refused(changes, message):
  with pytest.raises(UserError, match=message):
    make(**changes)
