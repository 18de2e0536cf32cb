// The view: which isometry, how large the disk, and ways from one to another.
import {
  apply,
  applyAll,
  carrying,
  compose,
  IDENTITY,
  inside,
  inverse,
  norm,
  partWay,
  type Point,
  translation,
} from './geometry.ts'
import type { Scene } from './scene.ts'
import type { State, Store } from './store.ts'

const MOST_ZOOM = 40
const LEAST_ZOOM = 0.4
const MILLISECONDS = 450

export class View {
  // Where the nodes lie as they are seen: x, y of each, on the unit disk.
  readonly places: Float32Array
  // Pixels of the page.
  width = 1
  height = 1
  private base: Float32Array
  private frame = 0
  // Ends at once what must not stop half way.
  private end: (() => void) | null = null

  constructor(
    private readonly scene: Scene,
    private readonly store: Store,
  ) {
    this.base = scene.layouts[0]!.points
    this.places = new Float32Array(this.base.length)
    this.place()
    store.listen((state, changed) => {
      if (changed.has('layout')) this.change(state.layout)
      if (changed.has('view')) this.place()
    })
  }

  private get state(): State {
    return this.store.state
  }

  private place(): void {
    applyAll(this.state.view, this.base, this.places)
  }

  // Pixels of the radius of the disk.
  get radius(): number {
    const box = Math.min(this.width, this.height)
    return Math.max(1, (box / 2 - 14) * this.state.zoom)
  }

  toScreen(x: number, y: number): Point {
    const radius = this.radius
    return [this.width / 2 + radius * x, this.height / 2 - radius * y]
  }

  toDisk(x: number, y: number): Point {
    const radius = this.radius
    return inside([
      (x - this.width / 2) / radius,
      (this.height / 2 - y) / radius,
    ])
  }

  seen(node: number): Point {
    return [this.places[2 * node]!, this.places[2 * node + 1]!]
  }

  // Moves what is seen at p to q, by a translation.
  carry(p: Point, q: Point): void {
    this.stop()
    const by = translation(carrying(p, q))
    this.store.set({ view: compose(by, this.state.view) })
  }

  // Makes the disk larger, what is seen at a point of the page staying there.
  zoomAt(factor: number, x: number, y: number): void {
    const before = this.toDisk(x, y)
    const zoom = this.state.zoom * factor
    this.store.set({ zoom: Math.min(MOST_ZOOM, Math.max(LEAST_ZOOM, zoom)) })
    this.carry(before, this.toDisk(x, y))
  }

  // Brings a node to the center along a geodesic.
  focus(node: number): void {
    const from = this.state.view
    // Not what is seen, in float32: the node may lie at the very edge.
    const to = apply(from, [this.base[2 * node]!, this.base[2 * node + 1]!])
    if (norm(to) < 1e-9) return
    this.animate((share) => {
      const [x, y] = partWay(to, share)
      this.store.set({ view: compose(translation([-x, -y]), from) })
    })
  }

  // As the page begins: the layout's own center in the middle.
  reset(): void {
    const { view, zoom } = this.state
    const [x, y] = apply(inverse(view), [0, 0])
    const turn = 2 * Math.atan2(view.a[1], view.a[0])
    this.animate((share) => {
      const at = partWay([x, y], 1 - share)
      const angle = (turn * (1 - share)) / 2
      const rotation = {
        a: [Math.cos(angle), Math.sin(angle)] as const,
        b: [0, 0] as const,
      }
      const back = translation([-at[0], -at[1]])
      this.store.set({
        view: share === 1 ? IDENTITY : compose(rotation, back),
        zoom: zoom ** (1 - share),
      })
    })
  }

  private change(layout: number): void {
    const from = this.base
    const to = this.scene.layouts[layout]!.points
    this.base = to.slice()
    const { selection } = this.state
    const node = selection.kind === 'node' ? selection.node : -1
    // What is selected stays in the focus, or the layout's own center.
    const centered = () =>
      node < 0
        ? IDENTITY
        : translation([-this.base[2 * node]!, -this.base[2 * node + 1]!])
    const step = (share: number) => {
      for (let i = 0; i < to.length; i++) {
        this.base[i] = from[i]! + (to[i]! - from[i]!) * share
      }
      // Another object, so that whoever draws is told.
      this.store.set({ view: { ...centered() } })
    }
    this.animate(step)
    if (this.frame !== 0) this.end = () => step(1)
  }

  stop(): void {
    cancelAnimationFrame(this.frame)
    if (this.frame === 0) return
    this.frame = 0
    const end = this.end
    this.end = null
    end?.()
    this.store.set({ moving: false })
  }

  private animate(step: (share: number) => void): void {
    this.stop()
    if (matchMedia('(prefers-reduced-motion: reduce)').matches) return step(1)
    const start = performance.now()
    const next = (now: number) => {
      const share = Math.min(1, Math.max(0, (now - start) / MILLISECONDS))
      // Slow at both ends.
      step(share * share * (3 - 2 * share))
      if (share < 1) this.frame = requestAnimationFrame(next)
      else this.stop()
    }
    this.store.set({ moving: true })
    this.frame = requestAnimationFrame(next)
  }
}
