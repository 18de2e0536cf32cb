import collections

from experiments.icons import tree


def paths(**number):
  """Classes below nodes, `a_b` being `b` below `a`."""
  return {
    f'{node}{i}': ('root', *node.split('_'), f'{node}{i}')
    for node, count in number.items()
    for i in range(count)
  }


def test_deepest_node_that_is_large_enough_takes_its_classes():
  found = tree.cut(
    paths(a_x=3, a_y=2, a=1, b=1), collections.defaultdict(lambda: 1), 3
  )
  assert collections.Counter(found.values()) == {'x': 3, 'a': 3, 'root': 1}
  assert found['a_y0'] == found['a0'] == 'a'


def test_a_class_may_be_above_others():
  found = tree.cut(
    {'dog': ['root', 'dog'], 'pug': ['root', 'dog', 'pug']},
    {'dog': 1, 'pug': 1},
    2,
  )
  assert found == {'dog': 'dog', 'pug': 'dog'}


def test_groups_are_made_of_whole_subgroups(monkeypatch):
  monkeypatch.setattr(tree, 'SUBGROUP', 3)
  monkeypatch.setattr(tree, 'GROUP', 6)
  found = tree.levels(paths(a_x=3, a_y=4, b_z=5, b=2))
  assert found['a_x0'] == ('a', 'x') and found['a_y3'] == ('a', 'y')
  # `b` keeps two classes that are no subgroup, which go to the root.
  assert found['b_z0'] == ('root', 'z') and found['b1'] == ('root', 'root')
  of = dict.fromkeys(subgroup for _, subgroup in found.values())
  for subgroup in of:
    groups = {group for group, below in found.values() if below == subgroup}
    assert len(groups) == 1


def test_sides_share_no_subgroup_and_are_even():
  found = {
    f'{group}{sub}{i}': (group, f'{group}{sub}')
    for group, sizes in {'a': [9, 5, 4], 'b': [3, 3, 3, 2]}.items()
    for sub, size in enumerate(sizes)
    for i in range(size)
  }
  side = tree.sides(found)
  assert side == tree.sides(dict(reversed(found.items())))
  for group in 'ab':
    total = collections.Counter(
      side[subgroup] for of, subgroup in found.values() if of == group
    )
    assert abs(total['train'] - total['test']) <= 1
