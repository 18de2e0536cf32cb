"""`hier-jax data`: prepares and describes."""

from tests.support import archives
from tests.support.command_line import run


def test_data_prepares_and_describes(tmp_path, capsys):
  folder = tmp_path / 'images'
  for i, name in enumerate(('red', 'green', 'blue', 'grey')):
    for k in range(2):
      archives.write_image(folder / name / f'{k}.png', 40 * i + k)
  args = ['folder/mine', '--data_dir', tmp_path / 'data']
  assert run('data', 'info', *args) == 2
  assert 'data prepare' in capsys.readouterr().err
  assert run('data', 'prepare', *args, '--from', folder) == 0
  prepared = capsys.readouterr().out
  assert 'train: ' in prepared
  sheet = tmp_path / 'sheet.png'
  assert run('data', 'info', *args, '--sheet', sheet) == 0
  said = f'contact sheet written to {sheet}\n'
  assert capsys.readouterr().out == prepared + said
  assert sheet.read_bytes().startswith(b'\x89PNG')
  for wrong, message in (
    (
      ['info', *args, '--from', folder],
      f'--from is {folder}, but only data prepare takes it: leave',
    ),
    (['prepare'], 'found prepare; see hier-jax data --help'),
    (['show', 'emoji'], 'found show emoji'),
    (['prepair', 'emoji'], "found prepair emoji; did you mean 'prepare'?"),
    (['info', *args, '--max_megapixels', '0'], '0; expected a number above 0'),
    (['prepare', 'cub', '--from', folder], "unknown data set 'cub'"),
  ):
    assert run('data', *wrong) == 2
    assert message in capsys.readouterr().err


def test_data_takes_images_up_to_the_limit_of_the_user(tmp_path, capsys):
  for name in 'abcd':
    archives.write_image(tmp_path / 'images' / name / '1.png')
  limit = ['--max_megapixels', '9e-5']
  args = ['folder/mine', '--data_dir', tmp_path / 'data']
  prepare = ['prepare', *args, '--from', tmp_path / 'images']
  assert run('data', *prepare, *limit) == 2
  message = '12 x 8 pixels, more than max_megapixels, 9e-05, allows'
  assert message in capsys.readouterr().err
  assert run('data', *prepare) == 0
  assert run('data', 'info', *args, *limit) == 2
  assert message in capsys.readouterr().err
