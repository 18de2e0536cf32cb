"""Training of a linear backbone, head, Proxy-Anchor and HIER, in NumPy.

Written from the method's formulas, with derivatives by hand, in float64. Knows
nothing of the package.
"""

import numpy as np

# Path of each parameter -> its group.
GROUPS = {
  'model/backbone/kernel': 'backbone',
  'model/head/linear/kernel': 'head',
  'model/head/linear/bias': 'head',
  'loss/class_proxies': 'class_proxies',
  'loss/hierarchical_proxies': 'hierarchical_proxies',
}


def _layer_norm(f):
  """Rows normed, and their pull-back."""
  centered = f - f.mean(1, keepdims=True)
  rate = 1 / np.sqrt((centered**2).mean(1, keepdims=True) + 1e-5)
  h = centered * rate

  def pull(g):
    along = (g * h).mean(1, keepdims=True)
    return rate * (g - g.mean(1, keepdims=True) - h * along)

  return h, pull


def _times(u, factor, slope, length):
  """u factor(|u|) and its pull-back; `slope` is factor'."""

  def pull(g):
    along = (g * u).sum(1, keepdims=True)
    return factor * g + along * slope * u / length

  return u * factor, pull


def to_ball(u, c, r):
  """Clip, exp0 and the Riemannian factor; project does nothing here."""
  length = np.linalg.norm(u, axis=1, keepdims=True)
  clips = r / (length + 1e-5) < 1
  v, pull_clip = _times(
    u,
    np.where(clips, r / (length + 1e-5), 1),
    np.where(clips, -r / (length + 1e-5) ** 2, 0),
    length,
  )
  n, root = np.linalg.norm(v, axis=1, keepdims=True), np.sqrt(c)
  tanh = np.tanh(root * n)
  x, pull_exp = _times(
    v, tanh / (root * n), (1 - tanh**2) / n - tanh / (root * n**2), n
  )
  assert np.all(tanh < 1 - 1e-3)
  gap = 1 - c * (x**2).sum(1, keepdims=True)
  return x, lambda g: pull_clip(pull_exp(g * gap**2 / 4)), clips


def distances(x, y, c):
  """Of all pairs, and their pull-back to x and y."""
  t = x[:, None] - y[None]
  a, b = (1 - c * (p**2).sum(1) for p in (x, y))
  s = c * (t**2).sum(2) / (a[:, None] * b[None])

  def pull(g):
    # d = 2 asinh(sqrt(s)) / sqrt(c); no slope where points coincide.
    safe = np.where(s > 0, s, 1)
    by_s = np.where(s > 0, g / np.sqrt(c * safe * (1 + safe)), 0)
    straight = 2 * c * (by_s / (a[:, None] * b[None]))[..., None] * t
    outward = 2 * c * by_s * s
    return (
      straight.sum(1) + (outward.sum(1) / a)[:, None] * x,
      -straight.sum(0) + (outward.sum(0) / b)[:, None] * y,
    )

  return 2 * np.arcsinh(np.sqrt(s)) / np.sqrt(c), pull


def _unit(x):
  length = np.linalg.norm(x, axis=1, keepdims=True)
  y = x / length
  return y, lambda g: (g - (g * y).sum(1, keepdims=True) * y) / length


def proxy_anchor(z, labels, proxies, alpha=32.0, margin=0.1):
  """Loss, and gradients by embeddings and proxies."""
  (x, pull_x), (p, pull_p) = _unit(z), _unit(proxies)
  s = x @ p.T
  own = labels[:, None] == np.arange(len(p))[None]
  near = np.where(own, np.exp(-alpha * (s - margin)), 0)
  far = np.where(own, 0, np.exp(alpha * (s + margin)))
  present = own.any(0).sum()
  loss = np.log1p(near.sum(0)).sum() / present + np.log1p(far.sum(0)).mean()
  by_s = -alpha * near / (1 + near.sum(0)) / present
  by_s += alpha * far / (1 + far.sum(0)) / len(p)
  return loss, pull_x(by_s @ p), pull_p(by_s.T @ x)


def adamw(p, g, state, t, *, rate, decay, b1=0.9, b2=0.999, eps=1e-4):
  """A parameter and its moments after step t = 1, 2, ..."""
  m, v = state
  m, v = b1 * m + (1 - b1) * g, b2 * v + (1 - b2) * g * g
  step = m / (1 - b1**t) / (np.sqrt(v / (1 - b2**t)) + eps)
  return p - rate * (step + decay * p), (m, v)


def gradients(params, x, labels, lca, *, c, r, hier_weight):
  """Loss, gradients and which rows were clipped.

  Args:
    params: path -> array, of `GROUPS`.
    x: what the backbone sees `[b, f]`.
    labels: `[b]`.
    lca: (term, distances) -> mean LCA loss and its gradient by them.
    c: curvature.
    r: clip radius.
    hier_weight: lambda of HIER.
  """
  backbone, kernel, bias, classes, tangents = (params[k] for k in GROUPS)
  h, pull_norm = _layer_norm(x @ backbone)
  z, pull_head, clipped = to_ball(h @ kernel + bias, c, r)
  rho, pull_rho, _ = to_ball(tangents, c, r)
  loss, by_z, by_classes = proxy_anchor(z, labels, classes)
  by_rho = 0
  for term, nodes in (('data', z), ('proxy', rho)):
    d, pull = distances(nodes, rho, c)
    value, by_d = lca(term, d)
    loss += hier_weight * value
    by_nodes, by_others = pull(hier_weight * by_d)
    by_rho = by_rho + by_others
    if term == 'data':
      by_z = by_z + by_nodes
    else:
      by_rho = by_rho + by_nodes
  by_u = pull_head(by_z)
  grads = (
    x.T @ pull_norm(by_u @ kernel.T),
    h.T @ by_u,
    by_u.sum(0),
    by_classes,
    pull_rho(by_rho),
  )
  return loss, dict(zip(GROUPS, grads, strict=True)), clipped
