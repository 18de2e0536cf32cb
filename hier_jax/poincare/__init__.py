"""The Poincare ball: pure functions on plain arrays.

The ball of curvature -c is {x in R^d : c |x|^2 < 1} with the metric
(2 / (1 - c |x|^2))^2 <., .>; at c = 0 it is Euclidean space, with lengths
2|x|.

Every function takes points as floating-point arrays `[..., d]` of one dtype,
whose leading dimensions broadcast, and the curvature as the keyword `c`: a
number, or an array of leading dimensions (one curvature a point), traced or
not. Functions are differentiable in their points and in c, at c = 0 too. The
result has the dtype of the points: float16 and bfloat16 are computed in float32
and rounded once at the end.

Points on or outside the boundary are no error, for rounding puts them there:
1 - c|x|^2 is floored at one unit of rounding (1.2e-7 in float32), with
derivative 0, in every function. `project` brings points back. Values and
gradients are finite everywhere: at x = y, at 0, on and outside the boundary,
where coordinates beyond 1,024 radii count as these; infinite ones give NaN.

Tangent vectors may have any length that floats have, as may points where c = 0:
squares are taken of rows divided by a power of two. (All pairs share one.)
Processors may take numbers below 1.2e-38 for 0 in float32.

Static mistakes raise: TypeError for integers and mixed dtypes, ValueError for
different d, leading dimensions that do not broadcast, and a negative, NaN or
infinite c known when the function is called. Of a traced c, negative values
count as 0.

Formulas follow Ganea, Becigneul and Hofmann, "Hyperbolic Neural Networks"
(NeurIPS 2018), and Ungar's gyrovector spaces; how they are computed, and what
is left of the digits, is in `_rounding`, `_analytic` and docs/accuracy.md.
"""

from hier_jax.poincare import wrapped_normal
from hier_jax.poincare._distances import (
  busemann,
  dist,
  dist_matrix,
  dist_to_hyperplane,
  horospherical_projection,
  hyperplane_matrix,
)
from hier_jax.poincare._gyro import (
  antipode,
  coadd,
  cosub,
  fn_apply,
  gyration,
  matvec,
  mobius_add,
  mobius_sub,
  pointwise_mul,
  scalar_mul,
)
from hier_jax.poincare._means import frechet_mean, midpoint
from hier_jax.poincare._origin import (
  CLIP_RADIUS,
  clip_norm,
  dist0,
  exp0,
  log0,
  project,
  riemannian_gradient,
  to_ball,
)
from hier_jax.poincare._riemannian import (
  conformal_factor,
  egrad_to_rgrad,
  expmap,
  geodesic,
  geodesic_unit,
  inner,
  logmap,
  norm,
  parallel_transport,
  transport0,
  transport0_back,
)
from hier_jax.poincare._uniform import random_uniform

__all__ = [
  'CLIP_RADIUS',
  'antipode',
  'busemann',
  'clip_norm',
  'coadd',
  'conformal_factor',
  'cosub',
  'dist',
  'dist0',
  'dist_matrix',
  'dist_to_hyperplane',
  'egrad_to_rgrad',
  'exp0',
  'expmap',
  'fn_apply',
  'frechet_mean',
  'geodesic',
  'geodesic_unit',
  'gyration',
  'horospherical_projection',
  'hyperplane_matrix',
  'inner',
  'log0',
  'logmap',
  'matvec',
  'midpoint',
  'mobius_add',
  'mobius_sub',
  'norm',
  'parallel_transport',
  'pointwise_mul',
  'project',
  'random_uniform',
  'riemannian_gradient',
  'scalar_mul',
  'to_ball',
  'transport0',
  'transport0_back',
  'wrapped_normal',
]
