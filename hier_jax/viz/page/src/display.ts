// What of the disk is drawn, and where, in pixels of the page.
import { arc, type Arc } from './geometry.ts'
import { short } from './dom.ts'
import type { Scene } from './scene.ts'
import type { State } from './store.ts'
import type { View } from './view.ts'

export interface Edge {
  readonly from: readonly [number, number]
  readonly to: readonly [number, number]
  // In pixels; null where the geodesic is straight.
  readonly arc: Arc | null
  readonly width: number
  readonly strong: boolean
}
export interface Thumb {
  readonly item: number
  readonly x: number
  readonly y: number
  readonly size: number
  readonly dim: boolean
}
export interface Mark {
  readonly node: number
  readonly x: number
  readonly y: number
  readonly radius: number
  readonly strong: boolean
}
export interface Label {
  readonly text: string
  readonly x: number
  readonly y: number
  readonly strong: boolean
  // A name that holds for fewer than half of the images.
  readonly weak: boolean
}
export interface Display {
  readonly edges: readonly Edge[]
  readonly thumbs: readonly Thumb[]
  readonly marks: readonly Mark[]
  readonly labels: readonly Label[]
}

// Hyperbolic diameter of a thumbnail, and pixels.
const THUMB = 0.5
const [LEAST_THUMB, MOST_THUMB] = [13, 64]
const MOST = { thumbs: 420, edges: 1500, marks: 700, labels: 22 }
// Squares of the page, to keep thumbnails and labels from each other.
const CELL = 8

export class Displays {
  // Images in the order in which they get their place.
  private readonly first: Int32Array
  // Inner nodes, the largest first.
  private readonly inner: Int32Array
  private quality = 1

  constructor(
    private readonly scene: Scene,
    private readonly view: View,
  ) {
    const { count, nodes } = scene
    this.inner = Int32Array.from({ length: nodes - count }, (_, i) => count + i)
    this.inner.sort((a, b) => scene.size[b]! - scene.size[a]!)
    this.first = this.spread()
  }

  // Typical images of large nodes first, then all, scattered.
  private spread(): Int32Array {
    const { count } = this.scene
    const found = new Set<number>()
    for (const node of this.inner) {
      if (this.scene.size[node]! < 8) break
      found.add(this.scene.typicalOf(node))
    }
    // A step without a common factor with the count reaches all of them.
    let step = Math.max(1, Math.round(count * 0.618))
    const gcd = (a: number, b: number): number => (b === 0 ? a : gcd(b, a % b))
    while (count > 0 && gcd(step, count) !== 1) step++
    for (let i = 0, at = 0; i < count; i++, at = (at + step) % count) {
      found.add(this.scene.order[at]!)
    }
    return Int32Array.from(found)
  }

  // The lower the quality, from 1 down, the less there is to draw.
  make(
    state: State,
    lit: Uint8Array | null,
    hasThumbnails: boolean,
    quality: number,
  ): Display {
    this.quality = quality
    const taken = new Taken(this.view.width, this.view.height)
    const path = this.path(state)
    const marks = this.marks(path, taken)
    const thumbs =
      state.thumbnails && hasThumbnails ? this.thumbs(state, lit, taken) : []
    return {
      edges: this.edges(state, thumbs, path),
      thumbs,
      marks,
      labels: this.labels(marks),
    }
  }

  // The nodes of the way from the root to what is selected.
  private path(state: State): ReadonlySet<number> {
    const { selection } = state
    return new Set(
      selection.kind === 'node' ? this.scene.path(selection.node) : [],
    )
  }

  private thumbs(state: State, lit: Uint8Array | null, taken: Taken): Thumb[] {
    const { places, width, height, radius } = this.view
    const found: Thumb[] = []
    const selected =
      state.selection.kind === 'node' ? state.selection.node : -1
    const most = this.quality * MOST.thumbs
    // A disk magnified four times has thumbnails twice as large.
    const largest = MOST_THUMB * Math.sqrt(Math.max(1, state.zoom))
    const place = (item: number, least: number, must: boolean) => {
      const px = places[2 * item]!
      const py = places[2 * item + 1]!
      const near = 1 - px * px - py * py
      let size = Math.min(largest, (THUMB * radius * near) / 2)
      size = Math.max(size, least)
      if (size < LEAST_THUMB) return
      const x = width / 2 + radius * px
      const y = height / 2 - radius * py
      if (x < -size || y < -size || x > width + size || y > height + size) {
        return
      }
      if (!taken.take(x, y, size / 2, size / 2, 0.72) && !must) return
      const dim = lit !== null && lit[item] === 0
      found.push({ item, x, y, size, dim })
    }
    if (selected >= 0 && this.scene.isItem(selected)) place(selected, 26, true)
    // What is lit comes first, and is seen at the edge too.
    for (const pass of lit === null ? [null] : [1, 0]) {
      const least = pass === 1 ? LEAST_THUMB + 1 : 0
      for (let i = 0; i < this.first.length && found.length < most; i++) {
        const item = this.first[i]!
        if (item === selected || (pass !== null && lit![item] !== pass)) continue
        place(item, least, false)
      }
    }
    return found.reverse()
  }

  private edges(
    state: State,
    thumbs: readonly Thumb[],
    path: ReadonlySet<number>,
  ): Edge[] {
    const { scene } = this
    const found: Edge[] = []
    const most = this.quality * MOST.edges
    const add = (node: number, width: number, strong: boolean) => {
      const above = scene.parent[node]!
      if (above < 0) return
      const edge = this.edge(node, above, width, strong)
      if (edge !== null) found.push(edge)
    }
    if (state.layout === 0) {
      for (const thumb of thumbs) {
        if (!path.has(thumb.item)) add(thumb.item, 0.6, false)
      }
    }
    for (const node of this.inner) {
      if (found.length >= most) break
      if (path.has(node)) continue
      // Finer towards the edge, as everything is.
      const [x, y] = this.view.seen(node)
      const near = Math.sqrt(Math.max(0, 1 - x * x - y * y))
      const width = Math.min(4, 0.7 + 0.35 * Math.log2(scene.size[node]! + 1))
      add(node, width * Math.max(0.25, near), false)
    }
    for (const node of path) add(node, 3, true)
    return found
  }

  private edge(
    node: number,
    above: number,
    width: number,
    strong: boolean,
  ): Edge | null {
    const [px, py] = this.view.seen(node)
    const [qx, qy] = this.view.seen(above)
    const { radius } = this.view
    if (!strong && radius * Math.hypot(px - qx, py - qy) < 2) return null
    const from = this.view.toScreen(px, py)
    const to = this.view.toScreen(qx, qy)
    const circle = arc(px, py, qx, qy)
    if (circle === null) return { from, to, arc: null, width, strong }
    const [x, y] = this.view.toScreen(circle.x, circle.y)
    return {
      from,
      to,
      // The page's y goes down, the disk's up.
      arc: {
        x,
        y,
        radius: circle.radius * radius,
        from: -circle.from,
        to: -circle.to,
        backwards: !circle.backwards,
      },
      width,
      strong,
    }
  }

  private marks(path: ReadonlySet<number>, taken: Taken): Mark[] {
    const { scene, view } = this
    const found: Mark[] = []
    for (const node of this.inner) {
      const [px, py] = view.seen(node)
      const near = Math.sqrt(Math.max(0, 1 - px * px - py * py))
      const strong = path.has(node)
      const size = 4 + 1.9 * Math.log2(scene.size[node]! + 1)
      const radius = Math.min(24, size * near)
      if (!strong && (radius < 2 || found.length > this.quality * MOST.marks)) continue
      const [x, y] = view.toScreen(px, py)
      if (x < -30 || y < -30 || x > view.width + 30 || y > view.height + 30) {
        continue
      }
      // One that has no room is a dot.
      const room = radius <= 5 || taken.take(x, y, radius, radius, 0.7)
      const shown = room || strong ? Math.max(radius, 2.5) : 3
      found.push({ node, x, y, radius: shown, strong })
    }
    return found.reverse()
  }

  private labels(marks: readonly Mark[]): Label[] {
    const { scene, view } = this
    const weight = (node: number) => {
      const [px, py] = view.seen(node)
      return Math.sqrt(scene.size[node]!) * (1 - px * px - py * py)
    }
    const wanted = marks
      .map((mark) => ({ ...mark, weight: weight(mark.node) }))
      .filter((one) => one.weight > 0.12 && one.node !== scene.root)
      .sort((a, b) => b.weight - a.weight)
    const found: Label[] = []
    const used = new Taken(view.width, view.height)
    for (const { node, x, y, radius, strong } of wanted) {
      if (found.length >= MOST.labels) break
      const text = short(scene.nameOf(node), 26)
      const half = 3.4 * Array.from(text).length
      const at = y + 12 + radius
      if (x < half || x > view.width - half || at > view.height - 8) continue
      if (!used.take(x, at, half, 9, 1)) continue
      const weak = scene.shareOf(node) < 0.5
      found.push({ text, x, y: at, strong, weak })
    }
    return found
  }
}

// Which squares of the page are taken.
class Taken {
  private readonly columns: number
  private readonly rows: number
  private readonly cells: Uint8Array

  constructor(width: number, height: number) {
    this.columns = Math.ceil(width / CELL) + 1
    this.rows = Math.ceil(height / CELL) + 1
    this.cells = new Uint8Array(this.columns * this.rows)
  }

  // Takes a box, given half its sides and the share of them that counts; false
  // where another has some of it.
  take(x: number, y: number, w: number, h: number, share: number): boolean {
    const clip = (value: number, most: number) =>
      Math.min(Math.max(Math.floor(value / CELL), 0), most - 1)
    const left = clip(x - w * share, this.columns)
    const right = clip(x + w * share, this.columns)
    const top = clip(y - h * share, this.rows)
    const bottom = clip(y + h * share, this.rows)
    for (let row = top; row <= bottom; row++) {
      const start = row * this.columns
      for (let i = start + left; i <= start + right; i++) {
        if (this.cells[i] === 1) return false
      }
    }
    for (let row = top; row <= bottom; row++) {
      const start = row * this.columns
      this.cells.fill(1, start + left, start + right + 1)
    }
    return true
  }
}
