// What is known of the selection, in words and pictures.
import { csv } from './csv.ts'
import {
  button,
  counted,
  download,
  element,
  named,
  percent,
  short,
} from './dom.ts'
import type { Scene } from './scene.ts'
import type { Store } from './store.ts'
import type { Thumbnails } from './thumbnails.ts'

// Images of a grid that are shown at a time.
const MOST = 90
// Nodes of a path that are shown, the root besides.
const NEAR = 8

export class Panel {
  readonly box = element('aside', { class: 'panel', 'aria-label': 'Details' })

  constructor(
    private readonly scene: Scene,
    private readonly store: Store,
    private readonly thumbnails: Thumbnails,
    private readonly select: (node: number, focus: boolean) => void,
  ) {
    store.listen((_, changed) => {
      if (changed.has('selection')) this.show()
    })
    this.show()
  }

  private show(): void {
    const { selection } = this.store.state
    const parts =
      selection.kind === 'none'
        ? this.overview()
        : selection.kind === 'set'
          ? this.set(selection.title, selection.items)
          : this.scene.isItem(selection.node)
            ? this.item(selection.node)
            : this.node(selection.node)
    this.box.replaceChildren(...parts)
    this.box.scrollTop = 0
  }

  private overview(): Node[] {
    const { scene } = this
    const nodes = scene.nodes - scene.count
    const facts: [string, string][] = [
      ['images', scene.count.toLocaleString('en')],
      ['nodes of the tree', nodes.toLocaleString('en')],
      ['distance', scene.distance.replace(' distance', '')],
      ...Object.entries(scene.info),
    ]
    const classes = scene.levels.at(-1)?.names.length
    if (classes !== undefined) facts.splice(1, 0, ['classes', String(classes)])
    const metrics = Object.entries(scene.metrics).map(
      ([name, value]): [string, string] => [name, metric(value)],
    )
    return [
      element('h2', {}, 'Overview'),
      element('p', { class: 'note' }, short(scene.note, 400)),
      table(facts),
      ...(metrics.length === 0
        ? []
        : [element('h3', {}, 'Metrics of the run'), table(metrics)]),
      element('h3', {}, 'How to walk'),
      element(
        'ul',
        { class: 'hints' },
        ...[
          'Drag to move the focus, scroll or pinch to zoom.',
          'Click an image or a node, here, in the disk or in the tree.',
          'Draw around images with the lasso (or hold Shift).',
          'Press ? for all keys.',
        ].map((text) => element('li', {}, text)),
      ),
    ]
  }

  private item(item: number): Node[] {
    const { scene } = this
    const facts: [string, string][] = scene.levels
      .slice(0, -1)
      .map((level) => [level.name, level.names[level.codes[item]!]!])
    if (scene.radius !== null) {
      const radius = scene.radius[item]!
      facts.push(['distance to the origin', radius.toFixed(4)])
    }
    const heading = element('h2', {}, named(scene.nameOf(item)))
    const head = element('div', { class: 'head' })
    if (this.thumbnails.exist) head.append(this.picture(item, 'large'))
    head.append(
      element(
        'div',
        {},
        heading,
        element('p', { class: 'id' }, named(scene.ids[item]!)),
      ),
    )
    return [
      head,
      table(facts),
      element('h3', {}, 'Nearest neighbors'),
      element('p', { class: 'note' }, `${scene.distance}, of the embeddings.`),
      this.neighbors(item),
      element('h3', {}, 'Path to the root'),
      this.path(item),
    ]
  }

  private neighbors(item: number): HTMLElement {
    const { scene } = this
    const list = element('ol', { class: 'neighbors' })
    for (const { item: other, distance } of scene.neighbors(item)) {
      const row = button('', () => this.select(other, true), {
        'data-node': String(other),
      })
      if (this.thumbnails.exist) row.append(this.picture(other, 'small'))
      row.append(element('span', { class: 'name' }, named(scene.nameOf(other))))
      row.append(element('span', { class: 'far' }, distance.toFixed(4)))
      if (scene.hasLabels) {
        const codes = scene.levels.at(-1)!.codes
        const same = codes[item] === codes[other]
        row.append(
          element(
            'span',
            {
              class: same ? 'right' : 'wrong',
              role: 'img',
              'aria-label': same ? 'same class' : 'another class',
            },
            same ? '✓' : '✗',
          ),
        )
      }
      list.append(element('li', {}, row))
    }
    return scene.k === 0 ? element('p', {}, 'There is no other image.') : list
  }

  private path(node: number): HTMLElement {
    const list = element('ol', { class: 'path' })
    const all = this.scene.path(node).reverse().slice(1)
    const left = all.length - NEAR - 1
    for (const [i, above] of all.entries()) {
      if (left > 1 && i >= NEAR && i < all.length - 1) {
        if (i === NEAR) {
          const text = `${counted(left, 'node')} between`
          list.append(element('li', { class: 'note' }, text))
        }
        continue
      }
      const size = counted(this.scene.size[above]!, 'image')
      const row = button('', () => this.select(above, true), {
        'data-node': String(above),
      })
      row.append(named(this.scene.nameOf(above), 60))
      row.append(
        element(
          'span',
          { class: 'far' },
          `${this.scene.kindOf(above)} · ${size}`,
        ),
      )
      list.append(element('li', {}, row))
    }
    return list
  }

  private node(node: number): Node[] {
    const { scene } = this
    const share = scene.shareOf(node)
    const facts: [string, string][] = [
      ['images below', scene.size[node]!.toLocaleString('en')],
      ['depth', String(scene.depth[node])],
    ]
    if (share > 0) facts.push(['share of its main name', percent(share)])
    const radius = scene.radius?.[node]
    if (radius !== undefined && !Number.isNaN(radius)) {
      facts.push(['distance to the origin', radius.toFixed(4)])
    }
    const inner = scene.childrenOf(node).filter((one) => !scene.isItem(one))
    const members = scene.members(node)
    const path = scene.path(node).length > 1
    return [
      element('p', { class: 'kind' }, scene.kindOf(node)),
      element('h2', {}, named(scene.nameOf(node))),
      table(facts),
      ...this.shares(members),
      ...(inner.length === 0
        ? []
        : [element('h3', {}, 'Nodes below'), this.nodes(inner)]),
      ...(path
        ? [element('h3', {}, 'Path to the root'), this.path(node)]
        : []),
      element('h3', {}, 'Images below'),
      this.saving(scene.nameOf(node), members),
      this.grid(members),
    ]
  }

  private nodes(nodes: readonly number[]): HTMLElement {
    const { scene } = this
    const list = element('ul', { class: 'path' })
    const largest = [...nodes].sort((a, b) => scene.size[b]! - scene.size[a]!)
    for (const node of largest.slice(0, MOST)) {
      const row = button('', () => this.select(node, true), {
        'data-node': String(node),
      })
      if (this.thumbnails.exist) {
        row.append(this.picture(scene.typicalOf(node), 'small'))
      }
      row.append(element('span', { class: 'name' }, named(scene.nameOf(node), 60)))
      row.append(
        element('span', { class: 'far' }, scene.size[node]!.toLocaleString('en')),
      )
      list.append(element('li', {}, row))
    }
    return list
  }

  private set(title: string, items: Int32Array): Node[] {
    return [
      element('p', { class: 'kind' }, 'selection'),
      element('h2', {}, named(title)),
      element('p', {}, counted(items.length, 'image')),
      ...this.shares(items),
      this.saving(title, items),
      this.grid(items),
    ]
  }

  // What a set of images is made of, at the coarsest level.
  private shares(items: Int32Array): Node[] {
    const level = this.scene.levels[0]
    if (level === undefined || items.length === 0) return []
    const counts = new Map<number, number>()
    for (const item of items) {
      const code = level.codes[item]!
      counts.set(code, (counts.get(code) ?? 0) + 1)
    }
    const most = [...counts].sort(([, a], [, b]) => b - a).slice(0, 6)
    const rows = most.map(([code, count]) => {
      const share = count / items.length
      const bar = element('span', { class: 'bar' })
      bar.style.width = `${100 * share}%`
      return element(
        'li',
        {},
        element('span', { class: 'name' }, named(level.names[code]!, 40)),
        element('span', { class: 'bars' }, bar),
        element('span', { class: 'far' }, percent(share)),
      )
    })
    return [
      element('h3', {}, `By ${level.name}`),
      element('ul', { class: 'shares' }, ...rows),
    ]
  }

  private saving(title: string, items: Int32Array): HTMLElement {
    const save = () => {
      const name = title.replace(/[^\p{L}\p{N}]+/gu, '-').slice(0, 40)
      const blob = new Blob([csv(this.scene, items)], { type: 'text/csv' })
      download(`${name || 'selection'}.csv`, blob)
    }
    const made = button('Download CSV', save, { class: 'save' })
    made.disabled = items.length === 0
    return made
  }

  // Pictures of images, more of them on demand.
  private grid(items: Int32Array): HTMLElement {
    const grid = element('div', { class: 'grid' })
    const more = button('', () => show(), { class: 'more' })
    let shown = 0
    const show = () => {
      for (const item of items.subarray(shown, shown + MOST)) {
        grid.append(this.cell(item))
      }
      shown = Math.min(items.length, shown + MOST)
      more.textContent = `Show more (${counted(items.length - shown, 'image')})`
      more.hidden = shown === items.length
    }
    show()
    return element('div', {}, grid, more)
  }

  private cell(item: number): HTMLElement {
    const name = short(this.scene.nameOf(item), 60)
    const made = button('', () => this.select(item, true), {
      'data-node': String(item),
      'aria-label': name,
      title: name,
    })
    if (this.thumbnails.exist) made.append(this.picture(item, 'medium'))
    else made.append(named(this.scene.nameOf(item), 12))
    return made
  }

  private picture(item: number, kind: string): HTMLCanvasElement {
    const made = element('canvas', {
      class: `picture ${kind}`,
      role: 'img',
      'aria-label': short(this.scene.nameOf(item), 60),
    })
    made.width = made.height = this.scene.atlas!.side
    this.thumbnails.fill(made, item)
    return made
  }
}

// Shares as such, other numbers as they are.
function metric(value: number): string {
  return value >= 0 && value <= 1 ? value.toFixed(4) : String(value)
}

function table(rows: [string, string][]): HTMLElement {
  return element(
    'dl',
    {},
    ...rows.flatMap(([name, value]) => [
      element('dt', {}, named(name, 60)),
      element('dd', {}, named(value, 300)),
    ]),
  )
}
