"""Retrieval metrics up to a million queries against a million items."""

import functools
import time

import jax
import jax.numpy as jnp
import numpy as np

from hier_jax import evaluation

_RECALL_AT = 1, 10, 100, 1000
_D = 128


def _data(n, classes, c):
  """Points about their classes' centers, as in `retrieval.cases`."""
  rng = np.random.default_rng(0)
  y = rng.integers(0, classes, n)
  x = rng.standard_normal((classes, _D), np.float32)[y]
  x += 1.5 * rng.standard_normal((n, _D), np.float32)
  x /= np.linalg.norm(x, axis=1, keepdims=True)
  if c:
    x *= rng.uniform(0.5, 0.95, (n, 1)).astype(np.float32) / np.sqrt(c)
  return x, y


def _rate(dtype):
  """Operations a second of a square product, the best of five."""
  size = 4096 if jax.default_backend() == 'cpu' else 16384
  x = jax.random.normal(jax.random.key(0), (size, size), dtype)
  product = jax.jit(functools.partial(jnp.matmul, precision='highest'))
  jax.block_until_ready(product(x, x))
  best = float('inf')
  for _ in range(5):
    start = time.perf_counter()
    jax.block_until_ready(product(x, x))
    best = min(best, time.perf_counter() - start)
  return 2 * size**3 / best


def measure(quick, only):
  """Seconds of two runs, the second with compiled programs."""
  sizes = (4_000, 400) if quick else (60_502, 11_316)
  rates = {k: _rate(k) for k in ('float32', 'bfloat16')}
  found = {f'TFLOP/s of a product, {k}': v / 1e12 for k, v in rates.items()}
  cases = {
    'products hyperbolic R@K': (sizes, 0.1, (), 'float32'),
    'products hyperbolic MAP@R': (sizes, 0.1, ('map@r',), 'float32'),
  }
  if not quick:
    many = 1_000_000, 100_000
    cases |= {
      'million cosine R@K, float32': (many, None, (), 'float32'),
      'million cosine R@K, bfloat16': (many, None, (), 'bfloat16'),
      'million cosine MAP@R, bfloat16': (many, None, ('map@r',), 'bfloat16'),
    }
  for name, ((n, classes), c, metrics, product) in cases.items():
    if only and not any(part in name for part in only):
      continue
    x, y = _data(n, classes, c)
    seconds = []
    for _ in range(2):
      start = time.perf_counter()
      values = evaluation.retrieval_metrics(
        x, y, c=c, recall_at=_RECALL_AT, metrics=metrics, product=product
      )
      seconds.append(time.perf_counter() - start)
    flop = 2 * n * n * _D
    found[name] = {
      'seconds': seconds,
      'share of the product of its type': flop / seconds[1] / rates[product],
      'values': values,
    }
    print(name, found[name], flush=True)
  return found
