"""HIER's loss as its description reads, to compare with; not for use.

Distances are tensors of Mobius differences `[n, m, D]`, triplets are drawn on
the host anchor by anchor, the picks are straight-through samples over whole
arrays `[T, P]`, and the gradient is autodiff's. What are many eager operations
in the authors' torch program are two compiled ones in `Program`, one on either
side of the draws, and the draws are padded to one shape: both favor it.
`eager` runs the operations one by one, as theirs does.
"""

import functools
import time

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from experiments.benchmarks.common import libraries, timing
from hier_jax import poincare
from hier_jax.mining import Triplets

BALL = {'c': 0.1, 'clip_radius': poincare.CLIP_RADIUS}


def _embed(proxies):
  return poincare.to_ball(proxies, **BALL)


def _distances(x, y):
  return libraries.mobius_tensor(x, y, BALL['c'])


def nearest(z, proxies, labels, *, k):
  """The k nearest of each datum and of each proxy: `[n, k]` and `[P, k]`."""
  rho = _embed(proxies)
  same = (labels[:, None] == labels).astype(jnp.float32)
  similarities = (
    jnp.exp(-_distances(z, z)) + same,
    jnp.exp(-_distances(rho, rho)),
  )
  return tuple(lax.top_k(similarity, k)[1] for similarity in similarities)


def draw(rng, nearest, per_anchor) -> Triplets:
  """Draws triplets of one kind of nodes on the host, anchor by anchor.

  Args:
    rng: numpy generator.
    nearest: int `[n, k]`, the k nearest of each node.
    per_anchor: t, triplets an anchor.

  Returns:
    `Triplets` of n t places; those that the anchors do not fill weigh 0.
  """
  nearest = np.asarray(nearest)
  n = len(nearest)
  among = np.zeros((n, n), bool)
  np.put_along_axis(among, nearest, True, 1)
  reciprocal = among & among.T
  np.fill_diagonal(reciprocal, False)
  triplets = np.zeros((3, n * per_anchor), np.int32)
  size = 0
  for anchor, row in enumerate(reciprocal):
    positives = np.flatnonzero(row)
    row[anchor] = True
    negatives = np.flatnonzero(~row)
    if len(positives) < 2 or not len(negatives):
      continue
    here = slice(size, size + per_anchor)
    triplets[0, here] = anchor
    triplets[1, here] = rng.choice(positives, per_anchor)
    triplets[2, here] = rng.choice(negatives, per_anchor)
    size += per_anchor
  weight = np.arange(n * per_anchor) < size
  return Triplets(*triplets, weight.astype(np.float32))


def _gumbel_softmax(logits, noise):
  """The pick `[T]`, and one-hot `[T, P]` with the gradient of the softmax."""
  soft = jax.nn.softmax(logits + noise)
  pick = jnp.argmax(soft, -1)
  hard = jax.nn.one_hot(pick, logits.shape[1])
  return pick, hard + soft - lax.stop_gradient(soft)


def lca(noise, dist, triplets, *, temperature=0.1, margin=0.1, **unused):
  """`losses.lca` by the definition, through arrays `[T, P]`.

  Args:
    noise: PRNG key, or Gumbel noise `[2, T, P]`.
    dist: `[n, P]`.
    triplets: `Triplets`.
    temperature: of the picks.
    margin: of the hinges.
    **unused: options of `losses.lca`, taken as their defaults.

  Returns:
    the loss and, for what it monitors, an empty dict.
  """
  del unused
  if not jnp.issubdtype(noise.dtype, jnp.floating):
    shape = (2, len(triplets.weight), dist.shape[1])
    noise = jax.random.gumbel(noise, shape)
  d_i, d_j, d_k = (dist[node] for node in triplets[:3])
  near = jnp.maximum(d_i, d_j)
  far = jnp.maximum(near, d_k)
  lower, to_lower = _gumbel_softmax(-near / temperature, noise[0])
  upper, to_upper = _gumbel_softmax(-far / temperature, noise[1])
  i, j, k = (jnp.sum(d * (to_lower - to_upper), -1) for d in (d_i, d_j, d_k))
  hinges = sum(map(jax.nn.relu, (i + margin, j + margin, margin - k)))
  counted = jnp.where(lower == upper, 0, hinges) * triplets.weight
  return jnp.sum(counted) / jnp.maximum(jnp.sum(triplets.weight), 1), {}


def lca_losses(noise, dist, triplets, *, rows, **options):
  """`lca` of each group of triplets and its rows of `dist`."""
  each = jnp.split(dist, np.cumsum(rows)[:-1])
  groups = zip(noise, each, triplets, strict=True)
  return [lca(*group, **options) for group in groups]


def loss(z, proxies, triplets, noise, *, distances=_distances, of=lca):
  """The data term and the proxy term of drawn triplets.

  Args:
    z: `[n, D]` points of the ball.
    proxies: `[P, D]` tangent vectors.
    triplets: of the data, and of the proxies.
    noise: of the data, and of the proxies, as `lca` takes it.
    distances: (x, y) -> `[n, m]`.
    of: `lca` or one like it.
  """
  rho = _embed(proxies)
  dist = distances(z, rho), distances(rho, rho)
  terms = zip(noise, dist, triplets, strict=True)
  return sum(of(*term)[0] for term in terms)


def eager(rng, z, proxies, labels, key, *, k, per_anchor):
  """Value and gradient as an eager framework runs them, one operation each."""
  near = jax.device_get(nearest(z, proxies, labels, k=k))
  drawn = tuple(draw(rng, rows, per_anchor) for rows in near)
  of = lambda z, proxies: loss(z, proxies, drawn, jax.random.split(key))
  return jax.value_and_grad(of, (0, 1))(z, proxies)


class Program:
  """Value and gradient: a compiled part, a loop on the host, another part.

  Attributes:
    compile_seconds: of both parts.
    temporary_mb: of the larger one.
    host_ms: time that each drawing of all triplets took.
  """

  def __init__(self, rng, z, proxies, labels, key, *, k, per_anchor):
    self._rng, self._per_anchor, self.host_ms = rng, per_anchor, []
    before = timing.compiled(
      'before', functools.partial(nearest, k=k), z, proxies, labels
    )
    self._before = before.program
    drawn = self.draw(z, proxies, labels)
    after = timing.compiled(
      'after', self._value_and_grad, z, proxies, drawn, key
    )
    self._after = after.program
    self.compile_seconds = before.compile_seconds + after.compile_seconds
    self.temporary_mb = max(before.temporary_mb, after.temporary_mb)

  @staticmethod
  def _value_and_grad(z, proxies, drawn, key):
    of = lambda z, proxies: loss(z, proxies, drawn, jax.random.split(key))
    return jax.value_and_grad(of, (0, 1))(z, proxies)

  def draw(self, z, proxies, labels):
    """Triplets of the data and of the proxies."""
    near = jax.device_get(self._before(z, proxies, labels))
    start = time.perf_counter()
    drawn = tuple(draw(self._rng, rows, self._per_anchor) for rows in near)
    self.host_ms.append(1e3 * (time.perf_counter() - start))
    return drawn

  def __call__(self, z, proxies, labels, key):
    """The loss, and its gradients by z and the proxies."""
    return self._after(z, proxies, self.draw(z, proxies, labels), key)
