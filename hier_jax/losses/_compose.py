"""A metric loss and HIER in one."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any, TypeVar, cast

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Integer, PRNGKeyArray, Real

from hier_jax import numerics
from hier_jax.losses._hier import hier

__all__ = ['regularized']

_F = TypeVar('_F', bound=Callable[..., Any])


def _with_keywords_of(other: Callable[..., Any]) -> Callable[[_F], _F]:
  """Decorator: the keywords of `other` in place of **options, last of all.

  `help` shows them, and any other is refused whether it would be used or not.
  """
  signature = inspect.signature(other)
  more = [p for p in signature.parameters.values() if p.kind is p.KEYWORD_ONLY]

  def decorate(function: _F) -> _F:
    own = inspect.signature(function)
    *before, _ = own.parameters.values()
    whole = own.replace(parameters=[*before, *more])

    @functools.wraps(function)
    def checked(*args, **kwargs):
      whole.bind(*args, **kwargs)
      return function(*args, **kwargs)

    checked.__signature__ = whole  # type: ignore[attr-defined]
    return cast(_F, checked)

  return decorate


def _check_scalar(value: Any) -> None:
  found = jax.tree.map(jnp.shape, value)
  if found == () and not isinstance(value, tuple):
    return
  raise ValueError(
    f'metric returns {found}, expected a scalar, the loss of the whole batch'
  )


@_with_keywords_of(hier)
def regularized(
  metric: Callable[[jax.Array, jax.Array], jax.Array],
  key: PRNGKeyArray,
  z: Float[Array, 'b d'],
  labels: Integer[Array, ' b'],
  hier_proxies: Float[Array, 'P d'],
  *,
  metric_weight: float | Float[Array, ''] = 1.0,
  hier_weight: float | Float[Array, ''] = 0.5,
  **options: Any,
) -> tuple[Float[Array, ''], dict[str, Real[Array, '']]]:
  """metric_weight metric(z, labels) + hier_weight hier(key, z, ...).

  The metric can be any loss of rows and labels with its own parameters bound:

    lambda z, y: losses.proxy_anchor(z, y, class_proxies)
    functools.partial(losses.sup_con, c=0.1, memory=memory)

  Args:
    metric: function (z, labels) -> scalar; with `axis_name` it must return the
      whole batch's loss on every device, as the losses of this package do.
    key: PRNG key that `hier` draws with.
    z: `[b, d]` embeddings; points of the ball where c is a curvature.
    labels: int `[b]`, the class of each row.
    hier_proxies: `[P, d]` tangent vectors at 0; unused where `hier_weight` is
      0.
    metric_weight: factor of the metric loss.
    hier_weight: factor of HIER's loss; the number 0 leaves it out.
    **options: keyword arguments of `hier`, with the same defaults. `c` is the
      curvature of HIER's ball; the metric loss has its own.

  Returns:
    (loss, aux): the weighted sum, a scalar; aux is a dict of scalars:

    - 'metric': the metric loss, without its weight.
    - 'hier': HIER's loss, without its weight; left out with `hier_weight` 0.
    - 'hier/<name>': what `hier` monitors; left out with `hier_weight` 0.

  References:
    HIER (CVPR 2023, arXiv 2212.14258).

  Example:
    >>> import jax
    >>> from hier_jax import losses
    >>> key, labels = jax.random.key(0), jax.numpy.arange(8) % 2
    >>> z = 0.1 * jax.random.normal(key, (8, 4))
    >>> proxies = losses.init_hier_proxies(key, 16, 4)
    >>> metric = losses.sup_con
    >>> total, aux = losses.regularized(metric, key, z, labels, proxies, k=4)
    >>> bool(jax.numpy.isclose(total, aux['metric'] + 0.5 * aux['hier']))
    True
  """
  numerics.check_finite(metric_weight=metric_weight, hier_weight=hier_weight)
  if not callable(metric):
    raise TypeError(
      f'metric is {metric!r}, expected a function (z, labels) -> scalar such as'
      ' losses.sup_con'
    )
  value = metric(z, labels)
  _check_scalar(value)
  total, aux = metric_weight * value, {'metric': value}
  if isinstance(hier_weight, (int, float)) and hier_weight == 0:
    return total, aux
  hierarchy, stats = hier(key, z, labels, hier_proxies, **options)
  aux |= {'hier': hierarchy} | {f'hier/{k}': v for k, v in stats.items()}
  return total + hier_weight * hierarchy, aux
