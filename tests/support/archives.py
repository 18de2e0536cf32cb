"""Tiny archives in the layouts that data sets are published in."""

import pathlib

import numpy as np
import scipy.io
from PIL import Image

from hier_jax.data.builders import cars196, cub200, inshop, sop

# Class -> its images; the first two classes train.
CUB = {
  '001.Black_footed_Albatross': 3,
  '002.Groove_billed_Ani': 2,
  '003.Sooty_Albatross': 2,
  '004.Cardinal': 2,
}
CARS = [
  'AM General Hummer SUV 2000',
  'Acura RL Sedan 2012',
  'Audi TT Hatchback 2011',
  'Audi S4 Sedan 2007',
]
# (class, super class, path), the first list for training.
SOP = {
  'Ebay_train.txt': [
    (1, 1, 'bicycle_final/11_0.JPG'),
    (1, 1, 'bicycle_final/11_1.JPG'),
    (2, 2, 'cabinet_final/12_0.JPG'),
  ],
  'Ebay_test.txt': [
    (4, 2, 'cabinet_final/14_0.JPG'),
    (4, 2, 'cabinet_final/14_1.JPG'),
    (3, 1, 'bicycle_final/13_0.JPG'),
  ],
}
# (path below img/, item, status); item 3 lies in two categories.
INSHOP = [
  ('WOMEN/Dresses/id_00000002/02_1_front.jpg', 'id_00000002', 'train'),
  ('MEN/Shorts/id_00000001/01_1_front.jpg', 'id_00000001', 'train'),
  ('WOMEN/Shorts/id_00000003/01_1_front.jpg', 'id_00000003', 'query'),
  ('WOMEN/Shorts/id_00000003/01_2_side.jpg', 'id_00000003', 'gallery'),
  ('WOMEN/Pants/id_00000003/01_3_back.jpg', 'id_00000003', 'gallery'),
  ('MEN/Shorts/id_00000004/01_1_front.jpg', 'id_00000004', 'query'),
  ('MEN/Shorts/id_00000004/01_2_side.jpg', 'id_00000004', 'gallery'),
]


def shrink(monkeypatch):
  """Makes the counts of these archives those of the protocol."""
  for builder, counts in (
    (cub200.Cub200, {'train': (5, 2), 'test': (4, 2)}),
    (cars196.Cars196, {'train': (4, 2), 'test': (4, 2)}),
    (sop.Sop, {'train': (3, 2), 'test': (3, 2)}),
    (inshop.Inshop, {'train': (2, 2), 'query': (2, 2), 'gallery': (3, 2)}),
  ):
    monkeypatch.setattr(builder, 'counts', counts)


def write_image(path, value=0, size=(12, 8), mode='RGB'):
  path = pathlib.Path(path)
  path.parent.mkdir(parents=True, exist_ok=True)
  color = value % 256 if mode == 'L' else (value % 256, 90, 255 - value % 256)
  Image.new(mode, size, color).save(path)


def write_lines(path, rows):
  path.parent.mkdir(parents=True, exist_ok=True)
  lines = [' '.join(map(str, row)) + '\n' for row in rows]
  path.write_text(''.join(lines))


def write_cub(folder):
  paths = [
    f'{name}/{name[4:]}_{i:04d}_{i}.jpg'
    for name, count in CUB.items()
    for i in range(count)
  ]
  for value, path in enumerate(paths):
    write_image(folder / 'images' / path, value)
  classes = list(CUB)
  numbered = list(enumerate(paths, 1))
  labels = [(i, classes.index(p.split('/')[0]) + 1) for i, p in numbered]
  # Their numbers give the order, not their lines.
  write_lines(folder / 'images.txt', reversed(numbered))
  write_lines(folder / 'image_class_labels.txt', labels)
  write_lines(folder / 'classes.txt', enumerate(classes, 1))
  return paths


def save_mat(path, field, rows, classes=None, labels=True):
  """Annotations with names in `field` and a class each, as MATLAB structs."""
  dtype = [('bbox_x1', object), (field, object), ('class', object)]
  table = np.empty((1, len(rows)), dtype if labels else dtype[:2])
  for i, (name, label) in enumerate(rows):
    table[0, i] = (7, name, label) if labels else (7, name)
  content = {'annotations': table}
  if classes is not None:
    content['class_names'] = np.array([classes], object)
  path.parent.mkdir(parents=True, exist_ok=True)
  scipy.io.savemat(path, content)


def write_cars(folder):
  """The layout of one annotation file; two images a class."""
  rows = [(f'car_ims/{i + 1:06d}.jpg', i // 2 + 1) for i in range(8)]
  for value, (path, _) in enumerate(rows):
    write_image(folder / path, value)
  save_mat(folder / 'cars_annos.mat', 'relative_im_path', rows, CARS)
  return [path for path, _ in rows]


def write_cars_devkit(folder, labels=True, nested=False):
  """The layout of a devkit: the first image of each class in cars_train."""
  devkit = folder / 'devkit'
  devkit.mkdir(parents=True)
  scipy.io.savemat(
    devkit / 'cars_meta.mat', {'class_names': np.array([CARS], object)}
  )
  rows = [(f'{i + 1:05d}.jpg', i + 1) for i in range(4)]
  for split in ('cars_train', 'cars_test'):
    place = folder / split / split if nested else folder / split
    for value, (name, _) in enumerate(rows):
      write_image(place / name, value)
  save_mat(devkit / 'cars_train_annos.mat', 'fname', rows)
  save_mat(devkit / 'cars_test_annos.mat', 'fname', rows, labels=False)
  if labels:
    save_mat(devkit / 'cars_test_annos_withlabels.mat', 'fname', rows)


def write_sop(folder):
  header = ('image_id', 'class_id', 'super_class_id', 'path')
  number = 0
  for name, rows in SOP.items():
    lines = [header]
    for row in rows:
      number += 1
      lines.append((number, *row))
      write_image(folder / row[-1], number)
    write_lines(folder / name, lines)


def write_inshop(folder, images='Img/img', size=(16, 16), below='Eval'):
  rows = [(f'img/{path}', *rest) for path, *rest in INSHOP]
  header = ('image_name', 'item_id', 'evaluation_status')
  write_lines(
    folder / below / 'list_eval_partition.txt', [(len(rows),), header, *rows]
  )
  for value, (path, *_) in enumerate(INSHOP):
    write_image(folder / images / path, value, size)
  # Images that no list names are no part of the data set.
  write_image(folder / images / 'MEN/Denim/id_00000009/01_1_front.jpg', 9)
