"""A browser without a window, where there is one."""

import os
import shutil

import pytest

from hier_jax.viz import explore

BROWSERS = 'chromium', 'chromium-browser', 'google-chrome', 'chrome'


@pytest.fixture(scope='session')
def browser():
  playwright = pytest.importorskip(
    'playwright.sync_api', reason="needs pip install 'hier_jax[browser]'"
  )
  path = next(filter(None, map(shutil.which, BROWSERS)), None)
  if path is None:
    pytest.skip(f'needs a browser: none of {", ".join(BROWSERS)} is installed')
  # As root Chromium runs without its sandbox alone.
  args = ['--no-sandbox'] if os.geteuid() == 0 else []
  with playwright.sync_playwright() as play:
    found = play.chromium.launch(executable_path=path, args=args)
    yield found
    found.close()


class Opened:
  """A page, the messages of its console and what it asked of a network."""

  def __init__(self, page):
    self.page, self.errors, self.requests = page, [], []
    page.on(
      'console',
      lambda message: message.type == 'error' and self.errors.append(message),
    )
    page.on('pageerror', lambda error: self.errors.append(error))
    page.on('request', lambda request: self.requests.append(request.url))

  def go(self, url):
    self.page.goto(url)
    # The fragment alone loads nothing.
    self.page.reload()
    self.ready()

  def ready(self):
    """Waits until the page has drawn itself."""
    self.page.wait_for_function('window.explorer?.disk.frames > 0')

  def rest(self):
    """Waits until nothing moves."""
    self.page.wait_for_function('!explorer.store.state.moving')
    self.page.evaluate('() => new Promise(requestAnimationFrame)')

  def __call__(self, code, *arguments):
    """What JavaScript makes of the page's parts and some arguments."""
    parts = '{scene, store, view, disk, icicle}'
    return self.page.evaluate(
      f'(given) => {{ const {parts} = explorer; return ({code}) }}',
      list(arguments),
    )

  def seen(self):
    """Where the nodes are seen on the unit disk."""
    flat = self('Array.from(view.places)')
    return [flat[i : i + 2] for i in range(0, len(flat), 2)]

  def place(self, node):
    """Pixels of a node in the window."""
    x, y = self('view.toScreen(...view.seen(given[0]))', node)
    box = self.page.locator('#disk').bounding_box()
    return box['x'] + x, box['y'] + y


@pytest.fixture
def opened(browser, tmp_path):
  """Writes the page of a collection and opens it."""
  pages = []

  def open_page(collection, fragment='', scheme='light', **options):
    path = tmp_path / 'page.html'
    explore.write(collection, path, **options)
    page = browser.new_page(
      viewport={'width': 1200, 'height': 800},
      color_scheme=scheme,
      reduced_motion='reduce',
    )
    pages.append(page)
    made = Opened(page)
    page.goto(f'{path.as_uri()}#{fragment}')
    made.ready()
    return made

  yield open_page
  for page in pages:
    page.close()
