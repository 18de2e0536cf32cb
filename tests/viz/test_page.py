"""The page of `explore`, in a browser."""

import base64
import csv
import io
import pathlib
import xml.etree.ElementTree

import jax
import numpy as np
import pytest

from hier_jax import evaluation, poincare
from hier_jax.evaluation.collection import Collection
from tests.support import collections, planted_trees

HOSTILE = (
  '</script><script>window.hacked=1</script>',
  '<img src=x onerror=window.hacked=2>',
  '"quoted", and \'quoted\' & \\ \u2028 \u2029',
  '\u202eright to left\u200f שלום',
  '👩‍👩‍👧‍👦 family \ud83d',
  'long ' * 2000,
  '=1+1',
  ' ',
  '__proto__',
  'constructor',
)

KEPT = 'color', 'theme', 'layout', 'zoom'


def panel(page):
  return page.page.locator('.panel')


def heading(page):
  return panel(page).locator('h2').inner_text()


def options(page):
  return page.page.locator('#found [role=option]')


def drag(page, start, end):
  mouse = page.page.mouse
  mouse.move(*start)
  mouse.down()
  mouse.move(*end)
  mouse.up()
  page.rest()


def center(page):
  box = page.page.locator('#disk').bounding_box()
  return box['x'] + box['width'] / 2, box['y'] + box['height'] / 2


@pytest.mark.parametrize(
  ('n', 'scheme'), [(0, 'light'), (1, 'dark'), (2, 'light'), (40, 'dark')]
)
def test_any_number_of_images_without_an_error(opened, n, scheme):
  page = opened(collections.scattered(n), scheme=scheme)
  page.rest()
  assert page('scene.count') == n
  assert f'images\n{n}' in panel(page).inner_text()
  for key in 'c', 'i', 'd', 'n', 'p', 'u', 'l', 'Escape', 'Home':
    page.page.keyboard.press(key)
  page.page.locator('#disk').press('Enter')
  for button in page.page.get_by_role('button').all():
    if button.is_visible() and button.is_enabled():
      page.page.evaluate('document.querySelector("dialog").close()')
      if button.inner_text() not in ('PNG', 'SVG', 'Close'):
        button.click()
  assert not page.errors
  ground = page.page.evaluate('getComputedStyle(document.body).backgroundColor')
  first = int(ground.removeprefix('rgb(').split(',')[0])
  assert (first < 60) == (page('store.state.theme') == 'dark' or (
    scheme == 'dark' and page('store.state.theme') == 'auto'
  ))  # fmt: skip


def test_it_asks_nothing_of_a_network(opened):
  page = opened(collections.planted())
  assert [url.split(':')[0] for url in page.requests] == ['file']
  code = 'fetch("https://example.org").then(() => 1, () => 0)'
  assert page(code) == 0
  assert 'Content Security Policy' in page.errors[0].text


def test_dragging_is_a_mobius_translation(opened):
  page = opened(collections.planted())
  x, y = center(page)
  radius = page('view.radius')
  for start, end in [((90, 60), (-130, 40)), ((-20, -90), (60, 110))]:
    before = np.array(page.seen(), np.float32)
    drag(page, (x + start[0], y - start[1]), (x + end[0], y - end[1]))
    after = np.array(page.seen(), np.float32)
    p, q = (np.array(at, np.float32) / radius for at in (start, end))
    # What takes p to q without turning: t (+) p = q.
    t = translation(p, q)
    np.testing.assert_allclose(poincare.mobius_add(t, p, c=1.0), q, atol=1e-5)
    expected = poincare.mobius_add(t, before, c=1.0)
    # The first drag starts from the layout; pixels are whole numbers.
    np.testing.assert_allclose(after, expected, atol=2e-5)
    np.testing.assert_allclose(
      poincare.dist_matrix(after, after, c=1.0),
      poincare.dist_matrix(before, before, c=1.0),
      atol=5e-3,
    )
  assert not page.errors


def translation(p, q):
  """t with t (+) p = q by Newton's method, knowing no formula of the page's."""

  @jax.jit
  def values(t):
    add = lambda t: poincare.mobius_add(t, p, c=1.0)
    return add(t), jax.jacfwd(add)(t)

  t = q - p
  for _ in range(20):
    value, slope = values(t)
    t = t - np.linalg.solve(slope, value - q)
  return t


def test_click_shows_the_subtree(opened):
  planted = collections.planted()
  tree = evaluation.proxy_tree(planted.embeddings, planted.proxies, c=1.0)
  page = opened(planted, 'layout=1')
  n = len(planted.ids)
  sizes = np.asarray(tree.size)
  node = next(i for i in range(n, len(sizes)) if 8 < sizes[i] < 40)
  page.page.mouse.click(*page.place(node))
  page.rest()
  below = set(tree.order[tree.start[node] :][: sizes[node]].tolist())
  shown = (
    panel(page)
    .locator('.grid [data-node]')
    .evaluate_all('all => all.map(one => Number(one.dataset.node))')
  )
  assert set(shown) == below and len(shown) == len(below)
  crumbs = page.page.locator('.crumbs [data-node]').evaluate_all(
    'all => all.map(one => Number(one.dataset.node))'
  )
  above = [node]
  while tree.parent[above[0]] >= 0:
    above.insert(0, int(tree.parent[above[0]]))
  assert crumbs == above
  # The focus is on it, and the icicle has it whole.
  np.testing.assert_allclose(page.seen()[node], 0, atol=1e-6)
  page.page.wait_for_timeout(100)
  cells = page('icicle.cells.filter((c) => c.node === given[0])', node)
  box = page.page.locator('#icicle').bounding_box()
  assert cells[0]['height'] == pytest.approx(box['height'], abs=0.01)
  page.page.locator('.crumbs [data-node]').first.click()
  assert heading(page) == 'All images'
  assert not page.errors


def test_neighbors_are_the_exact_ones(opened):
  planted = collections.planted()
  page = opened(planted, k=5)
  x = planted.embeddings
  for item in 3, 50:
    page('store.set({selection: {kind: "node", node: given[0]}})', item)
    far = [planted_trees.distance_of(x[item], other) for other in x]
    expected = np.argsort(far, kind='stable')
    expected = expected[expected != item][:5]
    rows = panel(page).locator('.neighbors button')
    nodes = rows.evaluate_all('all => all.map(one => Number(one.dataset.node))')
    assert nodes == expected.tolist()
    texts = rows.locator('.far').all_inner_texts()
    assert texts == [f'{far[i]:.4f}' for i in expected]
    marks = rows.locator('[role=img]:not(canvas)').evaluate_all(
      'all => all.map(one => one.ariaLabel)'
    )
    same = planted.labels[expected] == planted.labels[item]
    assert [mark == 'same class' for mark in marks] == same.tolist()


def test_thumbnails_are_of_their_items(opened):
  page = opened(collections.planted())
  for item in 0, 17, 95:
    page('store.set({selection: {kind: "node", node: given[0]}})', item)
    page.page.wait_for_timeout(200)
    pixel = (
      panel(page)
      .locator('canvas.large')
      .evaluate(
        'one => Array.from(one.getContext("2d").getImageData(9, 9, 1, 1).data)'
      )
    )
    np.testing.assert_allclose(pixel[:3], collections.color(item), atol=12)


def test_search_finds_classes_levels_and_images(opened):
  planted = collections.planted()
  page = opened(planted)
  box = page.page.get_by_role('combobox').first
  for words, expected in [
    ('CLASS 7', np.flatnonzero(planted.labels == 7)),
    ('group 1', np.flatnonzero(planted.labels % 3 == 1)),
  ]:
    box.fill(words)
    box.press('Enter')
    page.rest()
    assert f'{len(expected)} images' in panel(page).inner_text()
    chosen = page('Array.from(store.state.selection.items)')
    assert sorted(chosen) == expected.tolist()
  box.fill('folder 2/6.png')
  options(page).first.click()
  assert page('store.state.selection.node') == 6
  box.fill('nothing like it')
  assert options(page).count() == 0
  assert not page.errors


def test_lasso_makes_a_grid_and_a_table(opened):
  planted = collections.planted()
  page = opened(planted, 'layout=1')
  x, y = center(page)
  page.page.get_by_role('button', name='Lasso').click()
  mouse = page.page.mouse
  corners = [(-300, -250), (300, -250), (300, 0), (-300, 0)]
  mouse.move(x + corners[0][0], y + corners[0][1])
  mouse.down()
  for dx, dy in corners[1:]:
    mouse.move(x + dx, y + dy, steps=3)
  mouse.up()
  seen = np.array(page.seen())[: len(planted.ids)] * page('view.radius')
  within = (abs(seen[:, 0]) < 300) & (seen[:, 1] > 0) & (seen[:, 1] < 250)
  expected = np.flatnonzero(within).tolist()
  assert 10 < len(expected) < len(planted.ids) - 10
  cells = (
    panel(page)
    .locator('.grid [data-node]')
    .evaluate_all('all => all.map(one => Number(one.dataset.node))')
  )
  assert set(cells) <= set(expected)
  assert len(cells) == min(90, len(expected))
  rows = saved_table(page)
  assert rows[0] == ['id', 'group', 'class', 'nearest', 'distance', 'radius']
  by_id = {row[0]: row for row in rows[1:]}
  assert set(by_id) == {planted.ids[i] for i in expected}
  embeddings = planted.embeddings
  for i in expected[::7]:
    _, group, name, nearest, distance, radius = by_id[planted.ids[i]]
    label = planted.labels[i]
    assert (group, name) == (f'group {label % 3}', f'class {label}')
    other = embeddings[planted.ids.index(nearest)]
    far = planted_trees.distance_of(embeddings[i], other)
    assert float(distance) == pytest.approx(far, rel=1e-6)
    assert float(radius) == pytest.approx(
      planted_trees.distance_of(embeddings[i], np.zeros(2)), rel=1e-6
    )
  assert not page.errors


def saved_table(page):
  with page.page.expect_download() as saving:
    panel(page).get_by_role('button', name='Download CSV').click()
  text = pathlib.Path(saving.value.path()).read_bytes().decode()
  return list(csv.reader(io.StringIO(text, newline='')))


def test_hostile_names_are_text(opened):
  num = len(collections.planted().classes)
  names = [*HOSTILE, *(f'class {i}' for i in range(num - len(HOSTILE)))]
  planted = collections.planted(names=names)
  ids = tuple(f'{i} {names[i % num]}' for i in range(len(planted.ids)))
  page = opened(
    collections.planted(
      names=names,
      ids=ids,
      title=HOSTILE[0],
      info={name: name for name in HOSTILE},
    ),
    'color=level:1',
  )
  told = page.page.evaluate('document.title')
  assert told == HOSTILE[0]
  for item in range(0, len(ids), 8):
    page('store.set({selection: {kind: "node", node: given[0]}})', item)
    name = names[planted.labels[item]]
    shown = panel(page).locator('h2').evaluate('one => one.textContent')
    # Halves of pairs cannot leave the browser.
    if '\ud83d' in name:
      assert shown.startswith(name[:-1])
    elif name.strip():
      assert shown.rstrip('…') == name[: len(shown.rstrip('…'))]
      assert len(shown) >= min(len(name), 100)
  for word in ('script', 'onerror', 'quoted', 'שלום', 'long'):
    box = page.page.get_by_role('combobox').first
    box.fill(word)
    assert options(page).count() > 0
    box.press('Enter')
    rows = saved_table(page)
    texts = [cell for row in rows[1:] for cell in (row[0], row[2])]
    assert all(text in (*names, *ids) for text in texts if '\ufffd' not in text)
  assert all(row[2].startswith('long') for row in rows[1:])
  assert len(rows[1][2]) == len(HOSTILE[5])
  assert page.page.evaluate('window.hacked') is None
  assert page.page.locator('script').count() == 2
  assert page.page.locator('img').count() == 0
  wide = 'document.documentElement.scrollWidth - innerWidth'
  assert page.page.evaluate(wide) <= 0
  assert not page.errors


def test_keys_walk_the_tree(opened):
  planted = collections.planted()
  tree = evaluation.proxy_tree(planted.embeddings, planted.proxies, c=1.0)
  page = opened(planted)
  keyboard = page.page.keyboard
  selected = lambda: page('store.state.selection.node')
  keyboard.press('d')
  first = selected()
  assert tree.parent[first] == len(tree.parent) - 1
  keyboard.press('n')
  assert selected() != first and tree.parent[selected()] == tree.parent[first]
  keyboard.press('p')
  assert selected() == first
  page.page.locator('#icicle').press('ArrowLeft')
  assert selected() == len(tree.parent) - 1
  said = page.page.locator('.said').inner_text()
  assert said == f'root, proxy 0: All images, {len(planted.ids)} images below'
  keyboard.press('Escape')
  assert page('store.state.selection.kind') == 'none'
  before = np.array(page.seen(), np.float32)
  page.page.locator('#disk').press('ArrowRight')
  step = np.array([-0.12, 0], np.float32)
  np.testing.assert_allclose(
    page.seen(), poincare.mobius_add(step, before, c=1.0), atol=1e-5
  )


def test_the_address_holds_the_view(opened):
  page = opened(collections.planted())
  page.page.locator('#disk').press('ArrowUp')
  page('store.set({color: "radius", theme: "dark", layout: 1})')
  page('store.set({selection: {kind: "node", node: 12}})')
  page.page.locator('#disk').press('ArrowRight')
  page.page.locator('#disk').press('+')
  before = page.seen()
  page.page.wait_for_timeout(500)
  assert 'node=12' in page.page.evaluate('location.hash')
  page.page.reload()
  page.ready()
  np.testing.assert_allclose(page.seen(), before, atol=1e-4)
  state = [page(f'store.state.{key}') for key in KEPT]
  assert state == ['radius', 'dark', 1, 1.25]
  for wrong in (
    'at=2,2,x&zoom=-1&layout=9&node=1e9&of=9,9&color=level:77',
    '%%%',
  ):
    page.page.evaluate('(text) => { location.hash = text }', wrong)
  page.rest()
  assert not page.errors


@pytest.mark.slow
def test_pictures_are_saved(opened):
  planted = collections.planted(title='A & <B>')
  page = opened(planted)
  page.page.wait_for_timeout(300)
  for kind in 'PNG', 'SVG':
    with page.page.expect_download() as saving:
      page.page.get_by_role('button', name=kind).click()
    data = pathlib.Path(saving.value.path()).read_bytes()
    assert saving.value.suggested_filename == f'A-B-.{kind.lower()}'
    if kind == 'PNG':
      assert data.startswith(b'\x89PNG')
    else:
      root = xml.etree.ElementTree.fromstring(data)
      tag = '{http://www.w3.org/2000/svg}'
      assert root.find(f'{tag}title').text == 'A & <B>'
      drawn = root.findall(f'{tag}image') + root.findall(f'{tag}circle')
      assert len(drawn) > len(planted.ids)
      edges = [path.get('d') for path in root.findall(f'{tag}path')]
      assert any('A' in edge for edge in edges)
  assert not page.errors


def test_wheel_zooms_at_the_pointer(opened):
  page = opened(collections.planted(), 'layout=1')
  place = page.place(20)
  page.page.mouse.move(*place)
  page.page.mouse.wheel(0, -200)
  page.rest()
  assert page('store.state.zoom') > 1.3
  # The wheel's place is in whole pixels; zoom alone moves it by 60 or more.
  np.testing.assert_allclose(page.place(20), place, atol=4)


def test_two_fingers_zoom_and_carry(opened):
  page = opened(collections.planted(), 'layout=1')
  before = page.seen()[20]
  page("""(() => {
    const {left, top, width, height} = disk.top.getBoundingClientRect()
    disk.top.setPointerCapture = () => {}
    const send = (kind, pointerId, x, y) =>
      disk.top.dispatchEvent(new PointerEvent(kind, {
        pointerId, pointerType: 'touch', button: 0,
        clientX: left + width / 2 + x, clientY: top + height / 2 + y,
      }))
    send('pointerdown', 1, -50, 0)
    send('pointerdown', 2, 50, 0)
    for (let step = 1; step <= 5; step++) {
      send('pointermove', 1, -50 - 10 * step, 0)
      send('pointermove', 2, 50 + 10 * step, 0)
    }
    send('pointerup', 1, -100, 0)
    send('pointerup', 2, 100, 0)
  })()""")
  assert page('store.state.zoom') == pytest.approx(2)
  assert page('store.state.selection.kind') == 'none'
  # Each finger moved half of it, so that the middle is where it was.
  np.testing.assert_allclose(page.seen()[20], before, atol=0.02)


def drawn(page):
  """Red, green, blue and alpha of the points alone `[h, w, 4]`."""
  found = page("""(() => {
    disk.now()
    const canvas = document.createElement('canvas')
    const {width, height} = disk.points.canvas
    Object.assign(canvas, {width, height})
    const context = canvas.getContext('2d')
    context.drawImage(disk.points.canvas, 0, 0)
    const {data} = context.getImageData(0, 0, width, height)
    // In parts: a call takes only so many arguments.
    let bytes = ''
    for (let start = 0; start < data.length; start += 4096) {
      bytes += String.fromCharCode(...data.subarray(start, start + 4096))
    }
    return [height, width, btoa(bytes)]
  })()""")
  pixels = np.frombuffer(base64.b64decode(found[2]), np.uint8)
  return pixels.reshape(*found[:2], 4).astype(float)


def test_points_of_a_gpu_are_where_those_of_pixels_are(opened):
  planted = collections.planted(images=2)
  page = opened(planted, 'layout=1&color=correct')
  page.page.set_viewport_size({'width': 950, 'height': 500})
  page.page.wait_for_timeout(200)
  plain = drawn(page)
  # Each point has its color where it is seen.
  seen = np.array(page.seen())[: len(planted.ids)] * page('view.radius')
  height, width, _ = plain.shape
  for x, y in seen:
    row, column = round(height / 2 - y), round(width / 2 + x)
    assert plain[row - 3 : row + 3, column - 3 : column + 3, 3].max() > 200
  # A browser whose GPU is imitated does not say so.
  page.page.add_init_script("""
    const proto = WebGL2RenderingContext.prototype
    const get = proto.getParameter
    proto.getParameter = function (name) {
      return name === 37446 ? 'GPU' : get.call(this, name)
    }
    const make = HTMLCanvasElement.prototype.getContext
    HTMLCanvasElement.prototype.getContext = function (kind, options) {
      return make.call(this, kind, {
        ...options, failIfMajorPerformanceCaveat: false,
      })
    }
  """)
  page.page.reload()
  page.ready()
  if not page('Boolean(disk.points.gl)'):
    pytest.skip('this browser has no WebGL2')
  fast = drawn(page)
  assert (plain[..., 3] > 0).sum() > 5 * len(planted.ids)
  # Pixels at the rim of a point may differ by a part of one.
  alpha = np.abs(plain - fast)[..., 3]
  assert alpha.sum() < 0.25 * plain[..., 3].sum()
  both = (plain[..., 3] > 250) & (fast[..., 3] > 250)
  assert both.sum() > 0.3 * (plain[..., 3] > 250).sum()
  np.testing.assert_allclose(plain[both][:, :3], fast[both][:, :3], atol=2)


def test_edges_are_geodesics_between_their_nodes(opened):
  page = opened(collections.planted())
  page.page.locator('#disk').press('ArrowUp')
  middle = np.array(page('[view.width / 2, view.height / 2]'))
  radius = page('view.radius')
  edges = [edge for edge in page('disk.display.edges') if edge['arc']]
  assert len(edges) > 20
  for edge in edges:
    arc = edge['arc']
    center = np.array([arc['x'], arc['y']])
    for end, angle in (('from', arc['from']), ('to', arc['to'])):
      way = arc['radius'] * np.array([np.cos(angle), np.sin(angle)])
      np.testing.assert_allclose(center + way, edge[end], atol=0.01)
    # Its circle meets the edge of the disk at a right angle.
    square = np.sum((center - middle) ** 2)
    assert square == pytest.approx(radius**2 + arc['radius'] ** 2, rel=1e-4)
    turn = (arc['to'] - arc['from']) % (2 * np.pi)
    assert (turn > np.pi) == arc['backwards']


@pytest.mark.slow
def test_twenty_thousand_images(opened):
  page = opened(collections.scattered(20_000), k=3)
  x, y = center(page)
  drag(page, (x, y), (x + 100, y + 50))
  assert page('scene.count') == 20_000
  assert not page.errors


def test_nodes_at_the_very_edge_come_to_the_center(opened):
  # A chain: each image is farther from the others than these from each other.
  rows = np.cumsum(1.3 ** np.arange(60))[:, None] * np.ones(2)
  ids = tuple(f'image {i}' for i in range(60))
  page = opened(Collection(rows, 0.0, ids))
  for item in 59, 30, 0:
    page(f'store.set({{selection: {{kind: "node", node: {item}}}}})')
    page(f'view.focus({item})')
    page.rest()
    np.testing.assert_allclose(page.seen()[item], 0, atol=1e-4)
  path = panel(page).locator('.path')
  assert 'nodes between' in path.inner_text()
  assert page.page.locator('.crumbs > *').count() == 8
  assert not page.errors
