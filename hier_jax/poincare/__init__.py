"""The Poincare ball: pure functions on plain arrays.

The ball of curvature -c is {x in R^d : c |x|^2 < 1} with the metric
(2 / (1 - c |x|^2))^2 <., .>; at c = 0 it is Euclidean space, with lengths
2|x|.

Every function takes points as floating-point arrays `[..., d]` of one dtype,
whose leading dimensions broadcast, and the curvature as the keyword `c`: a
number, or an array with leading dimensions (one curvature per point), traced or
not. Functions are differentiable in their points and in c, also at c = 0. The
result has the dtype of the points: float16 and bfloat16 are computed in float32
and rounded once at the end.

Points on or outside the boundary are not an error, since rounding can put them
there: every function floors 1 - c|x|^2 at one unit of rounding (1.2e-7 in
float32), with derivative 0. `project` brings points back. Values and gradients
are finite everywhere: at x = y, at 0, and on and outside the boundary.
Coordinates beyond 1,024 radii count as 1,024 radii; infinite ones give NaN.
Tangent vectors, and points if c = 0, may have any length that a float can hold,
since rows are divided by a power of two before they are squared. (All pairs
share one.) In float32, processors may treat numbers below 1.2e-38 as 0.

Mistakes that can be seen without values raise: TypeError for integers and mixed
dtypes, ValueError for different d, for leading dimensions that do not
broadcast, and for a negative, NaN or infinite c that is known when the function
is called. Negative values of a traced c count as 0.

Formulas follow Ganea, Becigneul and Hofmann, "Hyperbolic Neural Networks"
(NeurIPS 2018), and Ungar's gyrovector spaces. `_rounding` and `_analytic` say
how they are computed, docs/accuracy.md how many digits are right.
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
