// What a person does to the view, wherever they do it.
import type { Point } from './geometry.ts'
import type { Scene } from './scene.ts'
import { NOTHING, type Store } from './store.ts'
import type { View } from './view.ts'

export class Actions {
  constructor(
    private readonly scene: Scene,
    private readonly store: Store,
    private readonly view: View,
  ) {}

  // Selects a node or an image, and brings it to the focus.
  select(node: number, focus: boolean): void {
    this.store.set({ selection: { kind: 'node', node } })
    if (focus) this.view.focus(node)
  }

  selectItems(title: string, items: Int32Array): void {
    this.store.set({ selection: { kind: 'set', title, items } })
  }

  // Selects all images that have a name of a level.
  selectCode(level: number, code: number, focus = true): void {
    const { codes, names } = this.scene.levels[level]!
    const items = this.scene.order.filter((item) => codes[item] === code)
    if (items.length === 0) return
    const title = names[code]!
    this.store.set({
      selection: { kind: 'set', title, items, code: [level, code] },
    })
    if (focus) this.view.focus(this.amid(items))
  }

  // Of some images the one nearest to the middle of them.
  private amid(items: Int32Array): number {
    let [x, y] = [0, 0]
    for (const item of items) {
      const [px, py] = this.view.seen(item)
      x += px / items.length
      y += py / items.length
    }
    const far = ([px, py]: Point) => Math.hypot(px - x, py - y)
    return items.reduce((best, item) =>
      far(this.view.seen(item)) < far(this.view.seen(best)) ? item : best,
    )
  }

  // To the parent, the first child or a sibling of what is selected.
  walk(key: 'up' | 'down' | 'next' | 'previous'): void {
    const { scene } = this
    const { selection } = this.store.state
    const node = selection.kind === 'node' ? selection.node : scene.root
    if (node < 0) return
    const above = scene.parent[node]!
    let to = -1
    if (key === 'up') to = above
    else if (key === 'down') to = scene.childrenOf(node)[0] ?? -1
    else if (above >= 0) {
      const siblings = scene.childrenOf(above)
      const step = key === 'next' ? 1 : -1
      to = siblings[siblings.indexOf(node) + step] ?? -1
    }
    if (to >= 0) this.select(to, true)
  }

  clear(): void {
    this.store.set({ selection: NOTHING, lasso: false })
  }

  home(): void {
    this.clear()
    this.view.reset()
  }
}
