// Pointer and keyboard on the disk.
import { holds, norm, type Point } from './geometry.ts'
import type { Actions } from './actions.ts'
import type { Disk } from './disk.ts'
import type { Scene } from './scene.ts'
import { NOTHING, type Store } from './store.ts'
import type { View } from './view.ts'

// Pixels that a click may move.
const STILL = 4
// Hyperbolic length of a step by an arrow key, as a point of the disk.
const STEP = 0.12
const ARROWS: Record<string, Point> = {
  ArrowLeft: [STEP, 0],
  ArrowRight: [-STEP, 0],
  ArrowUp: [0, -STEP],
  ArrowDown: [0, STEP],
}


export class Gestures {
  private readonly pointers = new Map<number, Point>()
  private start: Point = [0, 0]
  private moved = false
  private drawing = false

  constructor(
    private readonly scene: Scene,
    private readonly store: Store,
    private readonly view: View,
    private readonly disk: Disk,
    private readonly actions: Actions,
  ) {
    const { top } = disk
    top.addEventListener('pointerdown', (event) => this.down(event))
    top.addEventListener('pointermove', (event) => this.move(event))
    top.addEventListener('pointerup', (event) => this.up(event))
    top.addEventListener('pointercancel', (event) => this.cancel(event))
    top.addEventListener('pointerleave', () => this.store.set({ hover: -1 }))
    top.addEventListener('wheel', (event) => this.wheel(event), {
      passive: false,
    })
    top.addEventListener('keydown', (event) => this.key(event))
  }

  private at(event: MouseEvent): Point {
    const box = this.disk.top.getBoundingClientRect()
    return [event.clientX - box.left, event.clientY - box.top]
  }

  private down(event: PointerEvent): void {
    if (event.button !== 0) return
    this.view.stop()
    this.disk.top.setPointerCapture(event.pointerId)
    const at = this.at(event)
    this.pointers.set(event.pointerId, at)
    if (this.pointers.size > 1) {
      this.drawing = false
      this.disk.lasso = []
      this.moved = true
      return
    }
    this.start = at
    this.moved = false
    this.drawing = this.store.state.lasso || event.shiftKey
    if (this.drawing) this.disk.lasso = [...at]
  }

  private move(event: PointerEvent): void {
    const at = this.at(event)
    const before = this.pointers.get(event.pointerId)
    if (before === undefined) {
      if (event.pointerType === 'mouse') this.hover(at)
      return
    }
    if (Math.hypot(at[0] - this.start[0], at[1] - this.start[1]) > STILL) {
      this.moved = true
    }
    if (!this.moved) return
    if (this.pointers.size === 2) this.pinch(event.pointerId, before, at)
    else if (this.drawing) {
      this.disk.lasso.push(...at)
      this.disk.draw()
    } else {
      this.store.set({ moving: true, hover: -1 })
      const [from, to] = [this.view.toDisk(...before), this.view.toDisk(...at)]
      this.view.carry(from, to)
      // To carry is to stop what moves by itself.
      this.store.set({ moving: true })
    }
    this.pointers.set(event.pointerId, at)
  }

  private pinch(pointer: number, before: Point, at: Point): void {
    const other = [...this.pointers].find(([id]) => id !== pointer)![1]
    const length = (a: Point) => Math.hypot(a[0] - other[0], a[1] - other[1])
    const x = (at[0] + other[0]) / 2
    const y = (at[1] + other[1]) / 2
    this.view.zoomAt(length(at) / Math.max(1, length(before)), x, y)
    const middle = this.view.toDisk(
      (before[0] + other[0]) / 2,
      (before[1] + other[1]) / 2,
    )
    this.view.carry(middle, this.view.toDisk(x, y))
  }

  private up(event: PointerEvent): void {
    if (!this.pointers.delete(event.pointerId)) return
    if (this.pointers.size > 0) return
    this.store.set({ moving: false })
    if (this.drawing && this.moved) this.close()
    else if (!this.moved) this.click(this.at(event))
    this.drawing = false
  }

  private cancel(event: PointerEvent): void {
    this.pointers.delete(event.pointerId)
    this.drawing = false
    this.disk.lasso = []
    this.store.set({ moving: false })
    this.disk.draw()
  }

  private hover(at: Point): void {
    this.store.set({ hover: this.disk.hit(...at) })
    this.disk.top.classList.toggle('over', this.store.state.hover >= 0)
  }

  private click(at: Point): void {
    const node = this.disk.hit(...at)
    if (node >= 0) this.actions.select(node, true)
    else this.store.set({ selection: NOTHING })
  }

  // The images within the lasso become the selection.
  private close(): void {
    const polygon = this.disk.lasso
    const found: number[] = []
    for (let item = 0; item < this.scene.count; item++) {
      const [x, y] = this.view.toScreen(...this.view.seen(item))
      if (holds(polygon, x, y)) found.push(item)
    }
    this.disk.lasso = []
    this.store.set({ lasso: false })
    this.actions.selectItems('Lasso', Int32Array.from(found))
    this.disk.draw()
  }

  private wheel(event: WheelEvent): void {
    event.preventDefault()
    // Lines and pages of other devices as pixels.
    const pixels = event.deltaY * [1, 16, 200][event.deltaMode]!
    this.store.set({ hover: -1 })
    const factor = Math.exp(-Math.max(-200, Math.min(200, pixels)) / 400)
    this.view.zoomAt(factor, ...this.at(event))
  }

  private key(event: KeyboardEvent): void {
    if (event.ctrlKey || event.metaKey || event.altKey) return
    const arrow = ARROWS[event.key]
    const { width, height } = this.view
    if (arrow !== undefined) this.view.carry([0, 0], arrow)
    else if (event.key === '+' || event.key === '=') {
      this.view.zoomAt(1.25, width / 2, height / 2)
    } else if (event.key === '-') {
      this.view.zoomAt(0.8, width / 2, height / 2)
    } else if (event.key === 'Enter' || event.key === ' ') {
      const node = this.central()
      if (node >= 0) this.actions.select(node, true)
    } else return
    event.preventDefault()
  }

  // The node nearest to the focus.
  private central(): number {
    let [found, least] = [-1, Infinity]
    for (let node = 0; node < this.scene.nodes; node++) {
      const far = norm(this.view.seen(node))
      if (far < least) [found, least] = [node, far]
    }
    return found
  }
}
