"""What the pages say of the study's results."""

import re

import pytest

from tests.support import places

ARMS = {'Proxy-Anchor': 'proxy_anchor', 'SupCon': 'sup_con'}


@pytest.mark.parametrize('page', ['README.md', 'docs/hier.md'])
@pytest.mark.parametrize('base', ARMS)
def test_page_says_what_was_tested(page, base):
  text = ' '.join((places.ROOT / page).read_text('utf-8').split())
  interval = r'([+-][.\d]+)(?: points)? \(([^()]+ to [^()]+)\)'
  points, ends = re.search(rf'by {interval} with {base}', text).groups()
  results = (places.ROOT / 'experiments/study/RESULTS.md').read_text('utf-8')
  arm = ARMS[base]
  row = f'B, a128: {arm}+hier_star less {arm}+alone | MAP@R | 5'
  assert f'| {row} | {points} | {ends} |' in results
