"""The documentation site.

    sphinx-build -W -b html docs docs/_build/html

`-t online` also links types to the documentation of JAX, Flax and Optax, whose
inventories come from the network; without it a build needs none.
`-D nb_execution_mode=off` leaves the notebooks as they are.
"""

import os
import pathlib
import sys

_HERE = pathlib.Path(__file__).parent
sys.path[:0] = [str(_HERE / '_ext'), str(_HERE.parent)]
# Notebooks and docstrings pretend to have several devices.
os.environ.setdefault('NPROC', '64')
os.environ.setdefault('JAX_PLATFORMS', 'cpu')

import hier_jax  # noqa: E402

project = 'hier_jax'
author = copyright = 'The hier_jax authors'
version = release = hier_jax.__version__

extensions = [
  'myst_nb',
  'sphinx.ext.autodoc',
  'sphinx.ext.autosummary',
  'sphinx.ext.intersphinx',
  'sphinx.ext.napoleon',
  'sphinx_copybutton',
  # Ours, in _ext.
  'mathml',
  'plain_docstrings',
  'repository_pages',
  'streams',
  'tables',
]
exclude_patterns = ['_build', '**/.ipynb_checkpoints', '**/jupyter_execute']
show_warning_types = True

myst_enable_extensions = ['dollarmath', 'colon_fence']
# Anchors as GitHub makes them: pages are read in both places.
myst_heading_anchors = 4

nb_execution_mode = 'cache'
nb_execution_raise_on_error = True
nb_execution_timeout = 600

default_role = 'py:obj'
add_module_names = False
autodoc_member_order = 'bysource'
autodoc_typehints = 'signature'
autodoc_default_options = {'members': True}
maximum_signature_line_length = 68
python_use_unqualified_type_names = True
napoleon_numpy_docstring = False
napoleon_use_ivar = True
napoleon_use_rtype = False
# Signatures say the types.
napoleon_attr_annotations = False
# Dashes but no curly quotes: 'stop' is what one types.
smartquotes_action = 'D'

online = tags.has('online') or 'READTHEDOCS' in os.environ  # noqa: F821
intersphinx_mapping = (
  {
    'python': ('https://docs.python.org/3', None),
    'numpy': ('https://numpy.org/doc/stable', None),
    'jax': ('https://docs.jax.dev/en/latest', None),
    'flax': ('https://flax.readthedocs.io/en/latest', None),
    'optax': ('https://optax.readthedocs.io/en/latest', None),
  }
  if online
  else {}
)

html_math_renderer = 'mathml'
html_theme = 'furo'
html_title = f'hier_jax {release}'
html_static_path = ['_static']
html_css_files = ['site.css']
html_copy_source = False
html_show_sphinx = False
copybutton_prompt_text = r'>>> |\.\.\. |\$ '
copybutton_prompt_is_regexp = True

linkcheck_timeout = 20
linkcheck_retries = 2
# Anchors within pages that scripts fill are not found.
linkcheck_anchors_ignore_for_url = [r'https://github\.com/.*']
