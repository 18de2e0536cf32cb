// The disk, drawn once a frame where needed.
import type { Coloring } from './colors.ts'
import { type Display, Displays, type Edge } from './display.ts'
import { element } from './dom.ts'
import { type Points, points } from './points.ts'
import type { Scene } from './scene.ts'
import type { State, Store } from './store.ts'
import type { Thumbnails } from './thumbnails.ts'
import type { View } from './view.ts'

export interface Palette {
  readonly ground: string
  readonly disk: string
  readonly rim: string
  readonly edge: string
  readonly strong: string
  readonly ink: string
  readonly halo: string
}

const DIM = 46
// Radius of a node from which it shows an image.
const PICTURED = 8
// Pixels of its side.
const ROUND = 64

export class Disk {
  readonly box: HTMLElement
  // What has the pointer and the keyboard.
  readonly top: HTMLCanvasElement
  display: Display = { edges: [], thumbs: [], marks: [], labels: [] }
  // Corners of the lasso in pixels: x, y, x, y, ...
  lasso: number[] = []
  // Frames drawn, for whoever measures.
  frames = 0
  private readonly rounds = new Map<number, HTMLCanvasElement>()
  private readonly points: Points
  private readonly displays: Displays
  private palette: Palette
  private waiting = 0
  private quality = 1
  private last = 0
  private lit: Uint8Array | null = null

  constructor(
    private readonly scene: Scene,
    private readonly store: Store,
    private readonly view: View,
    private readonly thumbnails: Thumbnails,
    private coloring: Coloring,
  ) {
    this.top = element('canvas', {
      tabindex: '0',
      role: 'application',
      id: 'disk',
      'aria-label': 'The Poincare disk',
      'aria-describedby': 'keys-of-disk',
    })
    this.box = element('div', { class: 'disk' })
    this.box.append(this.top)
    this.points = points(scene.count)
    this.displays = new Displays(scene, view)
    this.palette = readPalette()
    new ResizeObserver(() => this.resize()).observe(this.box)
    store.listen((_, changed) => {
      if (changed.has('selection')) this.light()
      this.draw()
    })
    this.light()
  }

  // A stranger's screen may have several pixels for one of the page.
  private get density(): number {
    return Math.min(2, window.devicePixelRatio || 1)
  }

  private resize(): void {
    // Not in whole pixels, as the pointer's place is not.
    const { width, height } = this.box.getBoundingClientRect()
    this.view.width = Math.max(1, width)
    this.view.height = Math.max(1, height)
    for (const canvas of [this.points.canvas, this.top]) {
      canvas.width = Math.round(this.view.width * this.density)
      canvas.height = Math.round(this.view.height * this.density)
    }
    this.now()
  }

  recolor(coloring: Coloring): void {
    this.coloring = coloring
    this.paint()
  }

  rethemed(): void {
    this.palette = readPalette()
    this.draw()
  }

  // Which images are lit: those of the selection, or all.
  private light(): void {
    this.lit = litBy(this.scene, this.store.state)
    this.paint()
  }

  private paint(): void {
    const alpha = new Uint8Array(this.scene.count)
    for (let i = 0; i < alpha.length; i++) {
      alpha[i] = this.lit === null || this.lit[i] === 1 ? 255 : DIM
    }
    this.points.paint(this.coloring.rgb, alpha, this.coloring.hollow)
    this.draw()
  }

  // Draws in the next frame, once.
  draw(): void {
    if (this.waiting !== 0) return
    this.waiting = requestAnimationFrame(() => this.now())
  }

  // Draws at once.
  now(): void {
    cancelAnimationFrame(this.waiting)
    this.waiting = 0
    this.frames++
    const { state } = this.store
    const exist = this.thumbnails.exist
    this.pace(state.moving)
    this.display = this.displays.make(state, this.lit, exist, this.quality)
    const context = this.top.getContext('2d')!
    const { density } = this
    context.setTransform(density, 0, 0, density, 0, 0)
    context.clearRect(0, 0, this.view.width, this.view.height)
    this.drawBelow(context)
    this.drawPoints(context)
    this.drawThumbs(context, state)
    this.drawMarks(context, state)
    this.drawLabels(context)
    this.drawRing(context, state)
    this.drawLasso(context)
  }

  // Less is drawn while the view moves and the browser cannot keep up.
  private pace(moving: boolean): void {
    const now = performance.now()
    const between = now - this.last
    this.last = now
    if (!moving) this.quality = 1
    else if (between > 33) this.quality = Math.max(0.12, this.quality * 0.8)
    else if (between < 20) this.quality = Math.min(1, this.quality * 1.04)
  }

  private drawPoints(context: CanvasRenderingContext2D): void {
    const { density } = this
    const { canvas } = this.points
    const radius = this.view.radius * density
    // Fewer pixels each where there are many.
    const crowd = Math.min(1, Math.sqrt(3000 / Math.max(1, this.scene.count)))
    const size = (3 + 5 * crowd) * Math.min(2, Math.sqrt(this.view.radius / 330))
    this.points.draw(this.view.places, {
      width: canvas.width,
      height: canvas.height,
      radius,
      sizes: [1.5 * density, size * density],
    })
    context.drawImage(canvas, 0, 0, this.view.width, this.view.height)
  }

  private drawBelow(context: CanvasRenderingContext2D): void {
    const { width, height, radius } = this.view
    context.beginPath()
    context.arc(width / 2, height / 2, radius, 0, 2 * Math.PI)
    context.fillStyle = this.palette.disk
    context.fill()
    context.strokeStyle = this.palette.rim
    context.lineWidth = 1.5
    context.stroke()
    this.drawEdges(context)
  }

  // Edges of about one width in one stroke.
  private drawEdges(context: CanvasRenderingContext2D): void {
    const groups = new Map<string, Edge[]>()
    for (const edge of this.display.edges) {
      const key = `${edge.strong}${Math.round(2 * edge.width)}`
      const group = groups.get(key)
      if (group === undefined) groups.set(key, [edge])
      else group.push(edge)
    }
    context.lineCap = 'round'
    for (const group of groups.values()) {
      const { strong, width } = group[0]!
      context.beginPath()
      for (const { from, to, arc } of group) {
        context.moveTo(...from)
        if (arc === null) context.lineTo(...to)
        else {
          const { x, y, radius, from: start, to: end, backwards } = arc
          context.arc(x, y, radius, start, end, backwards)
        }
      }
      context.strokeStyle = strong ? this.palette.strong : this.palette.edge
      context.lineWidth = width
      context.stroke()
    }
  }

  // Nodes, the large ones with their most typical image.
  private drawMarks(context: CanvasRenderingContext2D, state: State): void {
    this.drawDots(context, state)
    for (const { node, x, y, radius, strong } of this.display.marks) {
      const held = node === state.hover || strong
      if (!held && radius < PICTURED) continue
      context.beginPath()
      context.arc(x, y, radius, 0, 2 * Math.PI)
      context.fillStyle = held ? this.palette.strong : this.palette.disk
      context.fill()
      if (state.thumbnails && radius >= PICTURED) {
        const round = this.round(this.scene.typicalOf(node))
        if (round !== null) {
          context.drawImage(round, x - radius, y - radius, 2 * radius, 2 * radius)
        }
      }
      context.strokeStyle = held ? this.palette.strong : this.palette.ink
      context.lineWidth = held ? 3 : 2
      context.stroke()
    }
  }

  // The small nodes, all at once.
  private drawDots(context: CanvasRenderingContext2D, state: State): void {
    context.beginPath()
    for (const { node, x, y, radius, strong } of this.display.marks) {
      if (radius >= PICTURED || strong || node === state.hover) continue
      context.moveTo(x + radius, y)
      context.arc(x, y, radius, 0, 2 * Math.PI)
    }
    context.fillStyle = this.palette.disk
    context.fill()
    context.strokeStyle = this.palette.ink
    context.lineWidth = 1.2
    context.stroke()
  }

  // A thumbnail cut to a circle.
  private round(item: number): HTMLCanvasElement | null {
    const known = this.rounds.get(item)
    const tile = known === undefined ? this.thumbnails.tile(item) : null
    if (known !== undefined || tile === null) return known ?? null
    if (this.rounds.size > 500) this.rounds.clear()
    const made = element('canvas')
    made.width = made.height = ROUND
    const context = made.getContext('2d')!
    context.arc(ROUND / 2, ROUND / 2, ROUND / 2, 0, 2 * Math.PI)
    context.clip()
    context.drawImage(tile, 0, 0, ROUND, ROUND)
    this.rounds.set(item, made)
    return made
  }

  private drawThumbs(context: CanvasRenderingContext2D, state: State): void {
    const { rgb, hollow } = this.coloring
    context.lineWidth = 2
    for (const { item, x, y, size, dim } of this.display.thumbs) {
      const tile = this.thumbnails.tile(item)
      if (tile === null) continue
      const left = x - size / 2
      const top = y - size / 2
      context.globalAlpha = dim ? 0.25 : 1
      context.drawImage(tile, left, top, size, size)
      const color = rgb.subarray(3 * item, 3 * item + 3)
      context.strokeStyle = `rgb(${color[0]} ${color[1]} ${color[2]})`
      if (hollow[item] === 1) context.setLineDash([3, 2])
      context.strokeRect(left, top, size, size)
      if (hollow[item] === 1) context.setLineDash([])
    }
    context.globalAlpha = 1
    if (state.hover >= 0 && this.scene.isItem(state.hover)) {
      this.ring(context, state.hover, 2.5)
    }
  }

  private drawLabels(context: CanvasRenderingContext2D): void {
    context.textAlign = 'center'
    context.textBaseline = 'middle'
    context.lineJoin = 'round'
    context.lineWidth = 3.5
    for (const { text, x, y, strong, weak } of this.display.labels) {
      context.font = `${weak ? '' : '600 '}12px system-ui, sans-serif`
      context.strokeStyle = this.palette.halo
      context.strokeText(text, x, y)
      context.fillStyle = strong ? this.palette.strong : this.palette.ink
      context.fillText(text, x, y)
    }
  }

  // Around the selected image, and finer around its neighbors.
  private drawRing(context: CanvasRenderingContext2D, state: State): void {
    const { selection } = state
    if (selection.kind !== 'node' || !this.scene.isItem(selection.node)) return
    for (const { item } of this.scene.neighbors(selection.node)) {
      this.ring(context, item, 1.6)
    }
    this.ring(context, selection.node, 4)
  }

  private ring(
    context: CanvasRenderingContext2D,
    item: number,
    width: number,
  ): void {
    const thumb = this.display.thumbs.find((one) => one.item === item)
    const [x, y] = this.view.toScreen(...this.view.seen(item))
    context.strokeStyle = this.palette.strong
    context.lineWidth = width
    if (thumb === undefined) {
      context.beginPath()
      context.arc(x, y, 6, 0, 2 * Math.PI)
      context.stroke()
    } else {
      const size = thumb.size + 2 + width
      context.strokeRect(x - size / 2, y - size / 2, size, size)
    }
  }

  private drawLasso(context: CanvasRenderingContext2D): void {
    if (this.lasso.length < 4) return
    context.beginPath()
    for (let i = 0; i < this.lasso.length; i += 2) {
      context.lineTo(this.lasso[i]!, this.lasso[i + 1]!)
    }
    context.closePath()
    context.fillStyle = this.palette.strong
    context.globalAlpha = 0.12
    context.fill()
    context.globalAlpha = 1
    context.strokeStyle = this.palette.strong
    context.setLineDash([6, 4])
    context.lineWidth = 2
    context.stroke()
    context.setLineDash([])
  }

  // The node or image at a point of the disk's box; -1 for none.
  hit(x: number, y: number): number {
    const { marks, thumbs } = this.display
    for (const mark of [...marks].reverse()) {
      if (Math.hypot(mark.x - x, mark.y - y) <= Math.max(7, mark.radius + 2)) {
        return mark.node
      }
    }
    for (const thumb of [...thumbs].reverse()) {
      const half = thumb.size / 2
      if (Math.abs(thumb.x - x) <= half && Math.abs(thumb.y - y) <= half) {
        return thumb.item
      }
    }
    return this.nearest(x, y, 8)
  }

  // The image nearest to a point of the box, within some pixels.
  nearest(x: number, y: number, within: number): number {
    let [found, least] = [-1, within]
    for (let item = 0; item < this.scene.count; item++) {
      const [px, py] = this.view.toScreen(...this.view.seen(item))
      const far = Math.hypot(px - x, py - y)
      if (far < least) [found, least] = [item, far]
    }
    return found
  }

  // All that is seen, as one picture.
  picture(): HTMLCanvasElement {
    this.now()
    const out = element('canvas')
    out.width = this.top.width
    out.height = this.top.height
    const context = out.getContext('2d')!
    context.fillStyle = this.palette.ground
    context.fillRect(0, 0, out.width, out.height)
    context.drawImage(this.top, 0, 0)
    return out
  }

  get colors(): { palette: Palette; coloring: Coloring } {
    return { palette: this.palette, coloring: this.coloring }
  }

  get litItems(): Uint8Array | null {
    return this.lit
  }
}

// Which images the selection lights; null for all.
function litBy(scene: Scene, state: State): Uint8Array | null {
  const { selection } = state
  if (selection.kind === 'none') return null
  const lit = new Uint8Array(scene.count)
  if (selection.kind === 'set') {
    for (const item of selection.items) lit[item] = 1
  } else if (selection.node === scene.root) {
    return null
  } else {
    for (const item of scene.leaves(selection.node)) lit[item] = 1
    if (scene.isItem(selection.node)) {
      for (const { item } of scene.neighbors(selection.node)) lit[item] = 1
    }
  }
  return lit
}

function readPalette(): Palette {
  const style = getComputedStyle(document.documentElement)
  const get = (name: string) => style.getPropertyValue(`--${name}`).trim()
  return {
    ground: get('ground'),
    disk: get('disk'),
    rim: get('rim'),
    edge: get('edge'),
    strong: get('strong'),
    ink: get('ink'),
    halo: get('halo'),
  }
}
