"""What the pages say of the study's results."""

import re

import pytest

from tests.support import places

RESULTS = (places.ROOT / 'experiments/study/RESULTS.md').read_text('utf-8')
INTERVAL = r'([+-][.\d]+)(?: points)? \(([^()]+ to [^()]+)\)'
ARMS = {'Proxy-Anchor': 'proxy_anchor', 'SupCon': 'sup_con'}


@pytest.mark.parametrize('page', ['README.md', 'docs/hier.md'])
@pytest.mark.parametrize('base', ARMS)
def test_page_says_what_was_tested(page, base):
  text = ' '.join((places.ROOT / page).read_text('utf-8').split())
  points, ends = re.search(rf'by {INTERVAL} with {base}', text).groups()
  arm = ARMS[base]
  row = f'B, a128: {arm}+hier_star less {arm}+alone | MAP@R | 5'
  assert f'| {row} | {points} | {ends} |' in RESULTS


@pytest.mark.parametrize('page', ['README.md', 'docs/hier.md'])
def test_page_says_what_few_images_change(page):
  text = ' '.join((places.ROOT / page).read_text('utf-8').split())
  pattern = rf'From 3 images of each class, it \S+ (?:by )?{INTERVAL}'
  points, ends = re.search(pattern, text).groups()
  row = 'B, d: proxy_anchor+hier_star less proxy_anchor+alone | MAP@R | 5'
  assert f'| {row} | {points} | {ends} |' in RESULTS


@pytest.mark.parametrize(
  ('page', 'arm', 'base'),
  [
    ('README.md', 'second_happier', 'Proxy-Anchor'),
    ('docs/hier.md', 'second_happier', 'Proxy-Anchor'),
    ('docs/hier.md', 'distillation', 'SupCon'),
  ],
)
def test_page_says_what_else_gains(page, arm, base):
  text = ' '.join((places.ROOT / page).read_text('utf-8').split())
  pattern = rf'gains? (?:up to )?{INTERVAL}.{{0,7}}with {base}'
  points, ends = re.search(pattern, text).groups()
  base = ARMS[base]
  row = f'B, a128: {base}+{arm} less {base}+alone | MAP@R | 5'
  assert f'| {row} | {points} | {ends} |' in RESULTS


@pytest.mark.parametrize(
  ('loss', 'places_of'),
  [
    ('level_sup_con', slice(0, 4, 2)),
    ('happier', slice(1, 4, 2)),
    ('level_sup_con_own', slice(4, None)),
  ],
)
def test_page_says_what_levels_change(loss, places_of):
  text = ' '.join((places.ROOT / 'docs/hier.md').read_text('utf-8').split())
  text = text[text.index('The levels change') : text.index('The annotated')]
  found = re.findall(r'([+-][.\d]+) \(([^()]+ to [^()]+)\)', text)
  control = 'second_happier' if loss == 'happier' else 'second_sup_con'
  changes = zip(('mAP-sub', 'MAP@R'), found[places_of], strict=True)
  for metric, (points, ends) in changes:
    row = f'proxy_anchor+{loss} less proxy_anchor+{control} | {metric} | 5'
    assert f'| B, a128: {row} | {points} | {ends} |' in RESULTS


@pytest.mark.parametrize('page', ['README.md', 'docs/hier.md'])
def test_page_says_what_icons_show(page):
  text = ' '.join((places.ROOT / page).read_text('utf-8').split())
  change = re.search(rf'by {INTERVAL}', text[text.index('51,917') :]).groups()
  gain = re.findall(rf'and {INTERVAL} on icons', text)[-1]
  for arm, (points, ends) in (('hier_star', change), ('second_happier', gain)):
    row = f'icons, a128: proxy_anchor+{arm} less proxy_anchor+alone | MAP@R | 5'
    assert f'| {row} | {points} | {ends} |' in RESULTS


@pytest.mark.parametrize('page', ['README.md', 'docs/hier.md'])
def test_page_says_what_a_memory_gains(page):
  text = ' '.join((places.ROOT / page).read_text('utf-8').split())
  text = text[re.search('the last two batches( as nodes)?', text).end() :]
  change = r'([+-][.\d]+) \(([^()]+ to [^()]+)\)'
  rows = ['hier_memory less proxy_anchor+alone | MAP@R']
  if page != 'README.md':
    rows += ['hier_memory less proxy_anchor+alone | mAP-sub']
    rows += ['triplet_memory less proxy_anchor+alone | MAP@R']
    rows += ['triplet_memory less proxy_anchor+alone | mAP-sub']
    rows += ['hier_memory less proxy_anchor+triplet_memory | MAP@R']
  found = re.findall(change, text)[: len(rows)]
  for row, (points, ends) in zip(rows, found, strict=True):
    assert f'| B, a128: proxy_anchor+{row} | 5 | {points} | {ends} |' in RESULTS
