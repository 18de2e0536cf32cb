"""The drawings of the site can be made anew."""

import figures


def test_each_drawing_is_written(tmp_path):
  figures.write(tmp_path)
  for name in figures.DRAWINGS:
    assert (figures.IMAGES / name).exists()
    assert '</svg>' in (tmp_path / name).read_text()
