"""CUB, Cars, SOP and In-Shop from tiny archives in their real layouts."""

import csv
import shutil

import pytest
from PIL import Image

from hier_jax.data import datasets, prepare
from hier_jax.data.builders import cars196, cub200, inshop, sop
from hier_jax.errors import UserError
from hier_jax.evaluation.taxonomy import Taxonomy
from tests.support import archives


@pytest.fixture(autouse=True)
def _small(monkeypatch):
  archives.shrink(monkeypatch)


def load(name, source, data_dir):
  prepare.prepare(name, source, data_dir=data_dir)
  return datasets.load(name, data_dir=data_dir)


def layout(name, data_dir):
  return datasets.open_prepared(name, data_dir).info.metadata['about']['layout']


def refuse(name, source, message):
  """The error, which must come before anything is written."""
  data_dir = source.parent / 'prepared'
  with pytest.raises(UserError, match=message) as error:
    prepare.prepare(name, source, data_dir=data_dir)
  assert not list(data_dir.rglob('*.array_record'))
  return str(error.value)


def paths(split):
  return [split.source[i]['path'] for i in range(len(split))]


def classes(split):
  return [split.names['label'][label] for label in split.labels]


def taxonomy(split):
  return Taxonomy.from_levels(
    split.ancestors(), split.names['label'], [*split.levels, 'class']
  )


# CUB


@pytest.mark.parametrize('above', [False, True])
def test_cub(tmp_path, above):
  root = tmp_path / 'CUB_200_2011'
  listed = archives.write_cub(root)
  splits = load('cub200', tmp_path if above else root, tmp_path / 'prepared')
  assert list(splits) == ['train', 'test']
  assert paths(splits['train']) == listed[:5]
  assert paths(splits['test']) == listed[5:]
  assert classes(splits['test']) == ['Sooty_Albatross'] * 2 + ['Cardinal'] * 2
  tree = taxonomy(splits['test'])
  assert tree.level_names == ('order', 'family', 'class')
  assert tree.lca_depth(0, 1) == 0


def test_cub_birds_are_known_each_in_one_family():
  with cub200._BIRDS.open(newline='') as file:
    rows = list(csv.DictReader(file))
  assert len({row['class'] for row in rows}) == len(rows) == 200
  assert len({row['order'] for row in rows}) == 13
  families = {row['family']: row['order'] for row in rows}
  assert len(families) == 37
  # Each family is of one order.
  assert all(families[row['family']] == row['order'] for row in rows)
  # Names that many families share, and what they are here.
  family = {row['class']: row['family'] for row in rows}
  for name, expected in {
    'Gray_Catbird': 'Mimidae',
    'Spotted_Catbird': 'Ptilonorhynchidae',
    'Blue_Grosbeak': 'Cardinalidae',
    'Evening_Grosbeak': 'Fringillidae',
    'House_Sparrow': 'Passeridae',
    'Song_Sparrow': 'Passerellidae',
    'American_Redstart': 'Parulidae',
    'Yellow_breasted_Chat': 'Icteriidae',
    'Geococcyx': 'Cuculidae',
    'Scarlet_Tanager': 'Cardinalidae',
  }.items():
    assert family[name] == expected
  assert Taxonomy.from_csv(cub200._BIRDS).num_levels == 3


def test_cub_in_another_order_of_classes_is_found_out(tmp_path):
  root = tmp_path / 'CUB'
  archives.write_cub(root)
  names = sorted(archives.CUB, reverse=True)
  archives.write_lines(root / 'classes.txt', enumerate(names, 1))
  message = 'disagree on 9 images: 001.Black_footed_Albatross/.* of class 004'
  refuse('cub200', root, message)


@pytest.mark.parametrize(
  ('name', 'rows', 'message'),
  [
    ('images.txt', [(1, '001.Black_footed_Albatross/a.jpg')], 'on 8 images'),
    ('image_class_labels.txt', [(1, 9)], 'on 9 images: .* of class none'),
    ('image_class_labels.txt', [(1, 'x')], '1 of 1 lines .*: lines 1'),
    ('images.txt', [(1, 'a'), (1, 'b')], 'images.txt holds 1 twice: 1'),
    ('classes.txt', [(1, '001.A'), (3, '003.B')], 'numbers its 2 classes'),
  ],
)
def test_cub_lists_at_odds(tmp_path, name, rows, message):
  root = tmp_path / 'CUB'
  archives.write_cub(root)
  archives.write_lines(root / name, rows)
  refuse('cub200', root, message)


def test_cub_unknown_bird(tmp_path):
  root = tmp_path / 'CUB'
  archives.write_cub(root)
  (root / 'images/004.Cardinal').rename(root / 'images/004.Dodo')
  for name in ('images.txt', 'classes.txt'):
    text = (root / name).read_text()
    (root / name).write_text(text.replace('004.Cardinal', '004.Dodo'))
  refuse('cub200', root, '1 classes that are not of CUB-200-2011: Dodo;')


def test_cub_partial_archive(tmp_path):
  root = tmp_path / 'CUB_200_2011'
  archives.write_cub(root)
  (root / 'classes.txt').unlink()
  (tmp_path / 'CUB_200_2011.tgz').touch()
  message = 'CUB_200_2011 lacks classes.txt; .* is still packed: run `tar'
  refuse('cub200', tmp_path, message)


# Cars


def test_cars_of_one_annotation_file(tmp_path):
  listed = archives.write_cars(tmp_path / 'cars')
  splits = load('cars196', tmp_path / 'cars', tmp_path / 'prepared')
  assert paths(splits['train']) == listed[:4]
  assert classes(splits['train']) == [
    *['AM General Hummer SUV 2000'] * 2,
    *['Acura RL Sedan 2012'] * 2,
  ]
  train, test = splits['train'], splits['test']
  assert train.ancestors() == [['AM General'], ['Acura']]
  assert test.ancestors() == [['Audi'], ['Audi']]
  assert test.ancestors(['body']) == [['Hatchback'], ['Sedan']]
  assert taxonomy(test).lca_depth(0, 1) == 1
  assert layout('cars196', tmp_path / 'prepared') == 'car_ims'


@pytest.mark.parametrize('nested', [False, True])
def test_cars_of_the_devkit(tmp_path, nested):
  root = tmp_path / 'stanford_cars'
  archives.write_cars_devkit(root, nested=nested)
  splits = load('cars196', tmp_path, tmp_path / 'prepared')
  assert paths(splits['test']) == [
    *('cars_train/00003.jpg', 'cars_train/00004.jpg'),
    *('cars_test/00003.jpg', 'cars_test/00004.jpg'),
  ]
  assert classes(splits['test']) == archives.CARS[2:] * 2
  assert layout('cars196', tmp_path / 'prepared') == 'devkit'


def test_cars_devkit_with_labels_beside_it(tmp_path):
  archives.write_cars_devkit(tmp_path / 'cars')
  name = 'cars_test_annos_withlabels.mat'
  (tmp_path / 'cars/devkit' / name).rename(tmp_path / 'cars' / name)
  assert len(load('cars196', tmp_path / 'cars', tmp_path / 'p')['test']) == 4


def test_cars_devkit_without_labels(tmp_path):
  archives.write_cars_devkit(tmp_path / 'cars', labels=False)
  text = refuse(
    'cars196', tmp_path / 'cars', 'lacks cars_test_annos_withlabels'
  )
  assert 'cars_test_annos.mat alone has no classes' in text
  devkit = tmp_path / 'cars/devkit'
  shutil.copy(
    devkit / 'cars_test_annos.mat', devkit / 'cars_test_annos_withlabels.mat'
  )
  refuse('cars196', tmp_path / 'cars', "no annotations with a field 'class'")


def test_cars_files_that_are_cut_off(tmp_path):
  root = tmp_path / 'cars'
  archives.write_cars(root)
  annos = root / 'cars_annos.mat'
  annos.write_bytes(annos.read_bytes()[:200])
  refuse('cars196', root, 'cars_annos.mat cannot be read as a MATLAB file')
  archives.save_mat(annos, 'relative_im_path', [('car_ims/000001.jpg', 1)])
  refuse('cars196', root, 'holds no class_names')
  rows = [('car_ims/000001.jpg', 1), ('car_ims/000002.jpg', 5)]
  archives.save_mat(annos, 'relative_im_path', rows, archives.CARS)
  refuse('cars196', root, r'classes \[4\], counted from 0; the names are 4')


def test_cars_of_no_known_layout(tmp_path):
  (tmp_path / 'cars').mkdir()
  (tmp_path / 'cars/cars_train.tgz').touch()
  text = refuse('cars196', tmp_path / 'cars', 'lacks devkit/cars_meta.mat')
  assert 'cars_annos.mat beside car_ims/' in text
  assert 'cars_train.tgz is still packed' in text


def test_cars_names_are_parsed():
  from tensorflow_datasets.image_classification import cars196 as published

  names = published._NAMES
  makes = {cars196.make(name) for name in names}
  assert len(names) == 196 and len(makes) == 49
  assert {'AM General', 'Aston Martin', 'Land Rover', 'smart'} < makes
  bodies = [cars196.body(name) for name in names]
  assert set(bodies) == {
    *('Sedan', 'SUV', 'Coupe', 'Convertible', 'Hatchback', 'Wagon'),
    *('Minivan', 'Van', 'Pickup', 'other'),
  }
  assert bodies.count('other') == 14
  for name, expected in {
    'Ford Ranger SuperCab 2011': 'Pickup',
    'Dodge Dakota Club Cab 2007': 'Pickup',
    'Infiniti G Coupe IPL 2012': 'Coupe',
    'Ram C/V Cargo Van Minivan 2012': 'Minivan',
    'Rolls-Royce Phantom Drophead Coupe Convertible 2012': 'Convertible',
    'Chevrolet Cobalt SS 2010': 'other',
  }.items():
    assert name in names
    assert cars196.body(name) == expected


# SOP


def test_sop(tmp_path):
  archives.write_sop(tmp_path / 'Stanford_Online_Products')
  splits = load('sop', tmp_path, tmp_path / 'prepared')
  assert classes(splits['train']) == ['bicycle 1', 'bicycle 1', 'cabinet 2']
  # In the list's order, whatever the numbers of the classes.
  assert classes(splits['test']) == ['cabinet 4', 'cabinet 4', 'bicycle 3']
  assert paths(splits['test'])[2] == 'bicycle_final/13_0.JPG'
  assert splits['test'].names['super_class'] == ['bicycle', 'cabinet']
  assert splits['test'].ancestors() == [['bicycle'], ['cabinet']]


@pytest.mark.parametrize(
  ('line', 'message'),
  [
    ('9 2 1 bicycle_final/12_9.JPG', r'1 classes with several: 2\)'),
    ('9 5 2 lamp_final/15_0.JPG', r'disagree \(0 classes with several'),
    ('9 4 2 cabinet_final/14_9.JPG', '1 classes are in both lists'),
    ('9 1 1 bicycle_final/11_0.JPG', 'holds 1 twice: bicycle_final/11_0.JPG'),
    ('9 1 bicycle_final/11_0.JPG', 'lines 5'),
  ],
)
def test_sop_lists_at_odds(tmp_path, line, message):
  root = tmp_path / 'sop'
  archives.write_sop(root)
  with (root / 'Ebay_train.txt').open('a') as file:
    file.write(f'{line}\n')
  refuse('sop', root, message)


def test_sop_without_header_or_list(tmp_path):
  root = tmp_path / 'sop'
  archives.write_sop(root)
  lines = (root / 'Ebay_test.txt').read_text().splitlines()
  (root / 'Ebay_test.txt').write_text('\n'.join(lines[1:]))
  refuse('sop', root, "begins with .*expected the columns 'image_id class_id")
  (root / 'Ebay_test.txt').unlink()
  refuse('sop', root, 'lacks Ebay_test.txt; .*cvgl.stanford.edu')


# In-Shop


@pytest.mark.parametrize(
  ('images', 'size', 'below', 'expected'),
  [
    ('Img/img', (256, 256), 'Eval', 'img, low resolution'),
    ('img', (16, 16), 'Anno', 'img, low resolution'),
    ('Img/img_highres', (300, 400), 'Eval', 'img_highres, high resolution'),
    # Unpacked under the other one's name.
    ('Img/img', (257, 20), '.', 'img, high resolution'),
  ],
)
def test_inshop(tmp_path, images, size, below, expected):
  archives.write_inshop(tmp_path / 'shop', images, size, below)
  splits = load('inshop', tmp_path / 'shop', tmp_path / 'prepared')
  assert list(splits) == ['train', 'query', 'gallery']
  assert layout('inshop', tmp_path / 'prepared') == expected
  assert classes(splits['train']) == ['id_00000002', 'id_00000001']
  # Query and gallery count the same items alike.
  assert splits['query'].names['label'] == splits['gallery'].names['label']
  assert splits['query'].labels.tolist() == [0, 1]
  assert splits['gallery'].labels.tolist() == [0, 0, 1]
  assert splits['gallery'].ancestors() == [
    ['WOMEN', 'WOMEN/Shorts'],
    ['MEN', 'MEN/Shorts'],
  ]
  assert taxonomy(splits['query']).lca_depth(0, 1) == 0


def test_inshop_of_both_releases(tmp_path):
  archives.write_inshop(tmp_path / 'shop')
  archives.write_inshop(tmp_path / 'shop', 'Img/img_highres')
  message = 'images of both releases: .*Img/img, .*Img/img_highres'
  refuse('inshop', tmp_path / 'shop', message)


def test_inshop_partial(tmp_path):
  root = tmp_path / 'shop'
  archives.write_inshop(root)
  shutil.rmtree(root / 'Img/img')
  (root / 'Img/img.zip').touch()
  message = 'lacks .*img; .* is still packed: run `unzip .*img.zip'
  refuse('inshop', root, message)
  shutil.rmtree(root / 'Eval')
  refuse('inshop', root, 'lacks Eval/list_eval_partition.txt. .*mmlab')


@pytest.mark.parametrize(
  ('old', 'new', 'message'),
  [
    ('id_00000004 query', 'id_00000004 val', 'holds 1 lines that are not img'),
    ('id_00000004 query', 'id_00000004 gallery', r'1 items .*\(id_00000004\)'),
    ('id_00000001 train', 'id_00000003 train', r'1 are in train and test'),
    ('02_1_front', '01_1_front', None),
    ('7\n', '8\n', r'begins with .*the number of rows \(7\)'),
    ('image_name', 'name', "the columns 'image_name item_id"),
    ('img/WOMEN/Dresses/id_00000002/', 'img/', 'holds 1 lines that are not'),
    ('01_3_back', '01_2_side', None),
  ],
)
def test_inshop_lists_at_odds(tmp_path, old, new, message):
  root = tmp_path / 'shop'
  archives.write_inshop(root)
  path = root / 'Eval/list_eval_partition.txt'
  text = path.read_text()
  assert old in text
  path.write_text(text.replace(old, new, 1))
  # Names alone that are wrong are files that are missing.
  refuse('inshop', root, message or '1 images of inshop are listed but not')


def test_inshop_image_twice_in_the_list(tmp_path):
  root = tmp_path / 'shop'
  archives.write_inshop(root)
  path = root / 'Eval/list_eval_partition.txt'
  count, *lines = path.read_text().splitlines()
  path.write_text('\n'.join([str(int(count) + 1), *lines, lines[-1]]))
  refuse('inshop', root, 'list_eval_partition.txt holds 1 twice')


def test_resolution_is_told_without_the_broken_ones(tmp_path):
  (tmp_path / 'broken.jpg').write_bytes(b'x')
  Image.new('L', (300, 2)).save(tmp_path / 'large.png')
  files = [tmp_path / 'broken.jpg', tmp_path / 'large.png']
  assert inshop._resolution(files) == 'high resolution'


def test_protocols(monkeypatch):
  # RECIPE 9, undoing what the tests put in its place.
  monkeypatch.undo()
  assert cub200.Cub200.counts == {'train': (5_864, 100), 'test': (5_924, 100)}
  assert cars196.Cars196.counts == {'train': (8_054, 98), 'test': (8_131, 98)}
  assert sop.Sop.counts == {'train': (59_551, 11_318), 'test': (60_502, 11_316)}
  assert inshop.Inshop.counts == {
    'train': (25_882, 3_997),
    'query': (14_218, 3_985),
    'gallery': (12_612, 3_985),
  }
