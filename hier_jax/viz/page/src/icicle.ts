// The tree beside the disk: columns by depth, rows by images.
import { css, MeanColors, type Coloring } from './colors.ts'
import { element, short } from './dom.ts'
import type { Scene } from './scene.ts'
import type { Store } from './store.ts'
import type { Thumbnails } from './thumbnails.ts'

const [FEWEST, MOST] = [2, 6]
const [LEAST, LEAST_ITEM, LEAST_TEXT, LEAST_THUMB] = [0.7, 5, 13, 9]
const MILLISECONDS = 300

interface Cell {
  readonly node: number
  readonly x: number
  readonly y: number
  readonly width: number
  readonly height: number
}

export class Icicle {
  readonly box = element('div', { class: 'icicle' })
  readonly canvas = element('canvas', {
    tabindex: '0',
    role: 'application',
    id: 'icicle',
    'aria-label': 'The tree as an icicle',
    'aria-describedby': 'keys-of-icicle',
  })
  cells: Cell[] = []
  private means: MeanColors
  // Places that are seen, and the depth of the first column.
  private first = 0
  private last: number
  private depth = 0
  private columns: number
  private waiting = 0
  private width = 1
  private height = 1

  constructor(
    private readonly scene: Scene,
    private readonly store: Store,
    private readonly thumbnails: Thumbnails,
    coloring: Coloring,
    private readonly select: (node: number, focus: boolean) => void,
  ) {
    this.last = scene.count
    this.columns = this.columnsFor(scene.root)
    this.means = new MeanColors(scene, coloring.rgb)
    this.box.append(this.canvas)
    new ResizeObserver(() => this.resize()).observe(this.box)
    store.listen((_, changed) => {
      if (changed.has('selection')) this.follow()
      if (changed.has('hover')) this.draw()
    })
    this.canvas.addEventListener('pointermove', (event) => {
      store.set({ hover: this.hit(event) })
    })
    this.canvas.addEventListener('pointerleave', () => store.set({ hover: -1 }))
    this.canvas.addEventListener('click', (event) => {
      const node = this.hit(event)
      if (node >= 0) this.select(node, true)
    })
    this.canvas.addEventListener('keydown', (event) => this.key(event))
  }

  recolor(coloring: Coloring): void {
    this.means = new MeanColors(this.scene, coloring.rgb)
    this.draw()
  }

  private get density(): number {
    return Math.min(2, window.devicePixelRatio || 1)
  }

  private resize(): void {
    const { width, height } = this.canvas.getBoundingClientRect()
    this.width = Math.max(1, width)
    this.height = Math.max(1, height)
    this.canvas.width = Math.round(this.width * this.density)
    this.canvas.height = Math.round(this.height * this.density)
    this.now()
  }

  // The inner node whose images fill the icicle.
  private get filling(): number {
    const { selection } = this.store.state
    if (selection.kind !== 'node') return this.scene.root
    const node = selection.node
    return this.scene.isItem(node) ? this.scene.parent[node]! : node
  }

  private columnsFor(node: number): number {
    if (node < 0) return FEWEST
    const above = node === this.scene.root ? 1 : 2
    return Math.min(MOST, Math.max(FEWEST, this.scene.heightOf(node) + above))
  }

  // Goes to the part of the tree that is selected.
  private follow(): void {
    const node = this.filling
    if (node < 0) return
    const from = [this.first, this.last, this.depth, this.columns] as const
    const to = [
      this.scene.start[node]!,
      this.scene.start[node]! + this.scene.size[node]!,
      Math.max(0, this.scene.depth[node]! - 1),
      this.columnsFor(node),
    ] as const
    const still = matchMedia('(prefers-reduced-motion: reduce)').matches
    const start = performance.now()
    const step = (now: number) => {
      const share = still
        ? 1
        : Math.min(1, Math.max(0, (now - start) / MILLISECONDS))
      const way = share * share * (3 - 2 * share)
      const part = (i: 0 | 1 | 2 | 3) => from[i] + (to[i] - from[i]) * way
      ;[this.first, this.last] = [part(0), part(1)]
      ;[this.depth, this.columns] = [part(2), part(3)]
      this.now()
      if (share < 1) this.waiting = requestAnimationFrame(step)
    }
    cancelAnimationFrame(this.waiting)
    this.waiting = requestAnimationFrame(step)
  }

  draw(): void {
    if (this.waiting !== 0) return
    this.waiting = requestAnimationFrame(() => this.now())
  }

  private now(): void {
    this.waiting = 0
    const context = this.canvas.getContext('2d')!
    const { density, width, height } = this
    context.setTransform(density, 0, 0, density, 0, 0)
    context.clearRect(0, 0, width, height)
    this.cells = []
    if (this.scene.root < 0) return
    this.lay(this.scene.root)
    this.drawRows(context)
    const { hover, selection } = this.store.state
    const chosen = selection.kind === 'node' ? selection.node : -1
    for (const cell of this.cells) this.drawCell(context, cell)
    context.lineWidth = 2.5
    context.strokeStyle = this.color('--strong')
    for (const cell of this.cells) {
      if (cell.node === hover || cell.node === chosen) {
        const { x, y, width, height } = cell
        context.strokeRect(x + 1, y + 1, width - 2, Math.max(1, height - 2))
      }
    }
  }

  private color(name: string): string {
    return getComputedStyle(this.box).getPropertyValue(name)
  }

  // The colors of all images: what is too small for a cell is seen still.
  private drawRows(context: CanvasRenderingContext2D): void {
    const rows = (this.last - this.first) / this.height
    for (let y = 0; y < this.height; y++) {
      const start = Math.floor(this.first + y * rows)
      const end = Math.max(start + 1, Math.floor(this.first + (y + 1) * rows))
      if (start < 0 || end > this.scene.count) continue
      context.fillStyle = css(this.means.of(start, end - start))
      context.fillRect(0, y, this.width, 1)
    }
  }

  // The cells of a node and of what is below it, where they are seen.
  private lay(node: number): void {
    const { scene } = this
    const rows = this.height / Math.max(1e-9, this.last - this.first)
    const top = (scene.start[node]! - this.first) * rows
    const bottom = top + scene.size[node]! * rows
    const column = this.width / this.columns
    const x = (scene.depth[node]! - this.depth) * column
    if (bottom < 0 || top > this.height || x > this.width) return
    if (bottom - top < (scene.isItem(node) ? LEAST_ITEM : LEAST)) return
    const [y, end] = [Math.max(top, 0), Math.min(bottom, this.height)]
    // Images fill what is left of the width.
    const width = scene.isItem(node) ? Math.max(column, this.width - x) : column
    if (x + width > 0) this.cells.push({ node, x, y, width, height: end - y })
    for (const child of scene.childrenOf(node)) this.lay(child)
  }

  private drawCell(context: CanvasRenderingContext2D, cell: Cell): void {
    const { scene } = this
    const { node, x, y, width, height } = cell
    const gap = height > 3 ? 1 : 0
    const isItem = scene.isItem(node)
    const mean = css(this.means.of(scene.start[node]!, scene.size[node]!))
    context.fillStyle = this.color('--card')
    context.fillRect(x, y, width, height)
    // Nodes have a tint of the color of their images, images all of it.
    context.globalAlpha = isItem ? 0.75 : 0.4
    context.fillStyle = mean
    context.fillRect(x, y, width - (isItem ? 0 : 1), height - gap)
    context.globalAlpha = 1
    let left = x + 3
    if (height >= LEAST_THUMB && this.thumbnails.exist) {
      const tile = this.thumbnails.tile(scene.typicalOf(node))
      const size = Math.min(height - 2, width - 6, 44)
      if (tile !== null) {
        context.drawImage(tile, left, y + (height - size) / 2, size, size)
      }
      left += size + 4
    }
    const room = x + width - left - 4
    if (height < LEAST_TEXT || room < 22) return
    context.fillStyle = this.color('--ink')
    context.font = '11px system-ui, sans-serif'
    context.textBaseline = 'middle'
    context.save()
    context.beginPath()
    context.rect(left, y, room, height)
    context.clip()
    context.fillText(short(scene.nameOf(node), 40), left, y + height / 2)
    context.restore()
  }

  private hit(event: MouseEvent): number {
    const box = this.canvas.getBoundingClientRect()
    const x = event.clientX - box.left
    const y = event.clientY - box.top
    const cell = this.cells.findLast(
      (one) =>
        x >= one.x &&
        x < one.x + one.width &&
        y >= one.y &&
        y < one.y + one.height,
    )
    return cell === undefined ? -1 : cell.node
  }

  private key(event: KeyboardEvent): void {
    const to = neighbor(this.scene, this.store, event.key)
    if (to < 0) return
    event.preventDefault()
    this.select(to, true)
  }
}

// Where an arrow key leads from the selected node; -1 for nowhere.
function neighbor(scene: Scene, store: Store, key: string): number {
  const { selection } = store.state
  const node = selection.kind === 'node' ? selection.node : scene.root
  if (node < 0) return -1
  const above = scene.parent[node]!
  if (key === 'ArrowLeft') return above
  if (key === 'ArrowRight') return scene.childrenOf(node)[0] ?? -1
  if (above < 0 || (key !== 'ArrowUp' && key !== 'ArrowDown')) return -1
  const siblings = scene.childrenOf(above)
  const at = siblings.indexOf(node) + (key === 'ArrowUp' ? -1 : 1)
  return siblings[at] ?? -1
}
