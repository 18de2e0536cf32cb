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


@pytest.mark.parametrize(
  ('page', 'arm', 'base'),
  [
    ('README.md', 'distillation', 'SupCon'),
    ('docs/hier.md', 'distillation', 'SupCon'),
    ('docs/hier.md', 'level_sup_con_own', 'Proxy-Anchor'),
  ],
)
def test_page_says_what_else_gains(page, arm, base):
  text = ' '.join((places.ROOT / page).read_text('utf-8').split())
  pattern = rf'gains? (?:up to )?{INTERVAL}.{{0,7}}with {base}'
  points, ends = re.search(pattern, text).groups()
  base = ARMS[base]
  row = f'B, a128: {base}+{arm} less {base}+alone | MAP@R | 5'
  assert f'| {row} | {points} | {ends} |' in RESULTS
