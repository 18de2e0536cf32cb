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
def test_page_says_what_distillation_gains(page):
  text = ' '.join((places.ROOT / page).read_text('utf-8').split())
  points, ends = re.search(
    rf'gains {INTERVAL}.{{,6}} with SupCon', text
  ).groups()
  row = 'B, a128: sup_con+distillation less sup_con+alone | MAP@R | 5'
  assert f'| {row} | {points} | {ends} |' in RESULTS
