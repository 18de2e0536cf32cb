// Isometries of the Poincare disk, and geodesics as circles.

export type Point = readonly [number, number]

// z -> (a z + b) / (conj(b) z + conj(a)), |a|^2 - |b|^2 = 1.
export interface Isometry {
  readonly a: Point
  readonly b: Point
}

export const IDENTITY: Isometry = { a: [1, 0], b: [0, 0] }

// float64 tells points from the edge, 30 hyperbolic lengths from the center.
const LARGEST = 1 - 1e-13

const times = (x: Point, y: Point): Point => [
  x[0] * y[0] - x[1] * y[1],
  x[0] * y[1] + x[1] * y[0],
]
const conj = (x: Point): Point => [x[0], -x[1]]
const plus = (x: Point, y: Point): Point => [x[0] + y[0], x[1] + y[1]]

export const norm = (x: Point): number => Math.hypot(x[0], x[1])

// The point, or the nearest that floats tell from the edge.
export function inside(x: Point): Point {
  const length = norm(x)
  const scale = length > LARGEST ? LARGEST / length : 1
  return [x[0] * scale, x[1] * scale]
}

// z -> t (+) z, Mobius addition: the translation that takes 0 to t.
export function translation(t: Point): Isometry {
  const [x, y] = inside(t)
  const scale = 1 / Math.sqrt(1 - x * x - y * y)
  return { a: [scale, 0], b: [x * scale, y * scale] }
}

// First g, then f.
export function compose(f: Isometry, g: Isometry): Isometry {
  const a = plus(times(f.a, g.a), times(f.b, conj(g.b)))
  const b = plus(times(f.a, g.b), times(f.b, conj(g.a)))
  // Rounding must not add up over many drags.
  const scale = 1 / Math.sqrt(a[0] ** 2 + a[1] ** 2 - b[0] ** 2 - b[1] ** 2)
  return {
    a: [a[0] * scale, a[1] * scale],
    b: [b[0] * scale, b[1] * scale],
  }
}

export function inverse(f: Isometry): Isometry {
  return { a: conj(f.a), b: [-f.b[0], -f.b[1]] }
}

export function apply(f: Isometry, z: Point): Point {
  const top = plus(times(f.a, z), f.b)
  const low = plus(times(conj(f.b), z), conj(f.a))
  const square = low[0] ** 2 + low[1] ** 2
  const [x, y] = times(top, conj(low))
  return [x / square, y / square]
}

// Applies an isometry to points (x, y, x, y, ...).
export function applyAll(
  f: Isometry,
  points: Float32Array,
  out: Float32Array,
): void {
  const [ax, ay] = f.a
  const [bx, by] = f.b
  for (let i = 0; i < points.length; i += 2) {
    const x = points[i]!
    const y = points[i + 1]!
    const tx = ax * x - ay * y + bx
    const ty = ax * y + ay * x + by
    const lx = bx * x + by * y + ax
    const ly = bx * y - by * x - ay
    const square = 1 / (lx * lx + ly * ly)
    out[i] = (tx * lx + ty * ly) * square
    out[i + 1] = (ty * lx - tx * ly) * square
  }
}

// The t of the translation that takes p to q.
export function carrying(p: Point, q: Point): Point {
  const [px, py] = inside(p)
  const [qx, qy] = inside(q)
  const bx = qx - px
  const by = qy - py
  const product = times([px, py], [qx, qy])
  const turned = times(product, [bx, -by])
  const scale = 1 / (1 - product[0] ** 2 - product[1] ** 2)
  return [(bx + turned[0]) * scale, (by + turned[1]) * scale]
}

// The point at a share of the way from 0 to p, by hyperbolic length.
export function partWay(p: Point, share: number): Point {
  const length = norm(p)
  if (length === 0) return [0, 0]
  const to = Math.tanh(share * Math.atanh(Math.min(length, LARGEST)))
  return [(p[0] / length) * to, (p[1] / length) * to]
}

export interface Arc {
  readonly x: number
  readonly y: number
  readonly radius: number
  readonly from: number
  readonly to: number
  readonly backwards: boolean
}

// The geodesic from p to q as an arc of a circle; null where it is straight.
export function arc(
  px: number,
  py: number,
  qx: number,
  qy: number,
): Arc | null {
  const det = 2 * (px * qy - py * qx)
  if (Math.abs(det) < 1e-4) return null
  const p = 1 + px * px + py * py
  const q = 1 + qx * qx + qy * qy
  const x = (p * qy - q * py) / det
  const y = (q * px - p * qx) / det
  const from = Math.atan2(py - y, px - x)
  const to = Math.atan2(qy - y, qx - x)
  let turn = to - from
  if (turn > Math.PI) turn -= 2 * Math.PI
  if (turn < -Math.PI) turn += 2 * Math.PI
  const radius = Math.hypot(px - x, py - y)
  return { x, y, radius, from, to, backwards: turn < 0 }
}

// Whether a polygon (x, y, x, y, ...) holds a point.
export function holds(polygon: readonly number[], x: number, y: number) {
  let inside = false
  const size = polygon.length
  for (let i = 0, j = size - 2; i < size; j = i, i += 2) {
    const xi = polygon[i]!
    const yi = polygon[i + 1]!
    const xj = polygon[j]!
    const yj = polygon[j + 1]!
    if (yi > y !== yj > y && x < ((xj - xi) * (y - yi)) / (yj - yi) + xi) {
      inside = !inside
    }
  }
  return inside
}
