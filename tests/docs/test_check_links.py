"""Broken links of a site are found."""

import check_links


def test_missing_pages_files_and_anchors_are_found(tmp_path):
  (tmp_path / 'a').mkdir()
  (tmp_path / 'a' / 'b.html').write_text('<h1 id="top">B</h1>')
  (tmp_path / 'index.html').write_text(
    '<a href="a/b.html#top">1</a><a href="a/b.html#no">2</a>'
    '<a href="gone.html">3</a><img src="gone.png"><a href="#here">4</a>'
    '<p id="here"><a href="https://example.org/#x">5</a>'
  )
  assert check_links.broken(tmp_path) == [
    ('index.html', 'a/b.html#no'),
    ('index.html', 'gone.html'),
    ('index.html', 'gone.png'),
  ]
  assert check_links.main(str(tmp_path)) == 1


def test_site_without_broken_links_passes(tmp_path, capsys):
  (tmp_path / 'index.html').write_text('<a href="index.html">1</a>')
  assert check_links.main(str(tmp_path)) == 0
  assert capsys.readouterr().out == '1 pages, 0 broken links\n'
