// What Python computed, decoded. Nodes 0 to n - 1 are the images.

interface Raw {
  version: number
  title: string
  info: Record<string, string>
  metrics: Record<string, number>
  distance: string
  count: number
  ids: string[]
  labels: string | null
  levels: { name: string; names: string[]; codes: string }[]
  tree: {
    note: string
    parent: string
    order: string
    proxy: string
    names: string[]
    shares: string
    typical: string
    lengths: string | null
  }
  layouts: { name: string; note: string; points: string }[]
  neighbors: { k: number; index: string; distance: string }
  radius: string | null
  correct: string | null
  atlas: { side: number; columns: number; pages: string[] } | null
}

export interface Level {
  readonly name: string
  readonly names: readonly string[]
  // Which of the names an image has.
  readonly codes: Int32Array
}

export interface Layout {
  readonly name: string
  readonly note: string
  // x, y of each node on the unit disk.
  readonly points: Float32Array
}

function bytes(text: string): ArrayBuffer {
  const found = atob(text)
  const out = new Uint8Array(found.length)
  for (let i = 0; i < found.length; i++) out[i] = found.charCodeAt(i)
  return out.buffer
}
const ints = (text: string) => new Int32Array(bytes(text))
const floats = (text: string) => new Float32Array(bytes(text))

export class Scene {
  readonly title: string
  readonly info: Record<string, string>
  readonly metrics: Record<string, number>
  readonly distance: string
  readonly count: number
  readonly ids: readonly string[]
  readonly levels: readonly Level[]
  readonly note: string
  readonly parent: Int32Array
  // The image at each place: those below a node are neighbors.
  readonly order: Int32Array
  readonly layouts: readonly Layout[]
  readonly k: number
  readonly radius: Float32Array | null
  // 1 where the nearest neighbor is of the same class, 2 where it is not.
  readonly correct: Uint8Array | null
  readonly atlas: Raw['atlas']
  readonly start: Int32Array
  readonly size: Int32Array
  readonly depth: Int32Array
  readonly place: Int32Array
  readonly root: number
  private readonly height: Int32Array
  readonly hasLabels: boolean
  private readonly children: number[][]
  private readonly raw: Raw['tree']
  private readonly proxy: Int32Array
  private readonly shares: Float32Array
  private readonly typical: Int32Array
  private readonly lengths: Float32Array | null
  private readonly near: Int32Array
  private readonly far: Float32Array

  constructor(text: string) {
    const raw = JSON.parse(text) as Raw
    this.title = raw.title
    this.info = raw.info
    this.metrics = raw.metrics
    this.distance = raw.distance
    this.count = raw.count
    this.ids = raw.ids
    this.levels = raw.levels.map((level) => ({
      ...level,
      codes: ints(level.codes),
    }))
    this.hasLabels = raw.labels !== null
    this.raw = raw.tree
    this.note = raw.tree.note
    this.parent = ints(raw.tree.parent)
    this.order = ints(raw.tree.order)
    this.proxy = ints(raw.tree.proxy)
    this.shares = floats(raw.tree.shares)
    this.typical = ints(raw.tree.typical)
    this.lengths = raw.tree.lengths === null ? null : floats(raw.tree.lengths)
    this.layouts = raw.layouts.map((layout) => ({
      ...layout,
      points: floats(layout.points),
    }))
    this.k = raw.neighbors.k
    this.near = ints(raw.neighbors.index)
    this.far = floats(raw.neighbors.distance)
    this.radius = raw.radius === null ? null : floats(raw.radius)
    this.correct =
      raw.correct === null ? null : new Uint8Array(bytes(raw.correct))
    this.atlas = raw.atlas
    this.root = this.parent.indexOf(-1)
    this.place = new Int32Array(this.count)
    this.order.forEach((item, place) => (this.place[item] = place))
    const nodes = this.parent.length
    this.start = new Int32Array(nodes).fill(this.count)
    this.size = new Int32Array(nodes)
    this.depth = new Int32Array(nodes)
    this.height = new Int32Array(nodes)
    this.children = Array.from({ length: nodes }, () => [])
    this.measure()
  }

  get nodes(): number {
    return this.parent.length
  }

  private measure(): void {
    for (let node = 0; node < this.count; node++) {
      this.start[node] = this.place[node]!
      this.size[node] = 1
    }
    for (let node = 0; node < this.nodes; node++) {
      if (this.parent[node]! >= 0) this.children[this.parent[node]!]!.push(node)
    }
    const downward = this.root < 0 ? [] : [this.root]
    for (let i = 0; i < downward.length; i++) {
      for (const child of this.children[downward[i]!]!) {
        this.depth[child] = this.depth[downward[i]!]! + 1
        downward.push(child)
      }
    }
    for (const node of downward.reverse()) {
      const above = this.parent[node]!
      if (above < 0) continue
      this.size[above]! += this.size[node]!
      this.height[above] = Math.max(this.height[above]!, this.height[node]! + 1)
      this.start[above] = Math.min(this.start[above]!, this.start[node]!)
    }
    for (const list of this.children) {
      list.sort((a, b) => this.start[a]! - this.start[b]!)
    }
  }

  isItem(node: number): boolean {
    return node < this.count
  }

  childrenOf(node: number): readonly number[] {
    return this.children[node]!
  }

  // The images below a node, in the order of the tree.
  leaves(node: number): Int32Array {
    const first = this.start[node]!
    return this.order.subarray(first, first + this.size[node]!)
  }

  // The images below a node, those nearest to their proxy first.
  members(node: number): Int32Array {
    const found = this.leaves(node).slice()
    const lengths = this.lengths
    return lengths === null
      ? found
      : found.sort((a, b) => lengths[a]! - lengths[b]!)
  }

  // The nodes from the root down to a node, itself included.
  path(node: number): number[] {
    const found = []
    for (let at = node; at >= 0; at = this.parent[at]!) found.push(at)
    return found.reverse()
  }

  contains(node: number, item: number): boolean {
    const place = this.start[item]! - this.start[node]!
    return place >= 0 && place < this.size[node]!
  }

  neighbors(item: number): { item: number; distance: number }[] {
    return Array.from({ length: this.k }, (_, j) => ({
      item: this.near[item * this.k + j]!,
      distance: this.far[item * this.k + j]!,
    }))
  }

  // The image that stands for a node.
  typicalOf(node: number): number {
    return this.isItem(node) ? node : this.typical[node - this.count]!
  }

  // The share of a node's images that its name holds for; 0 without a name.
  shareOf(node: number): number {
    return this.isItem(node) ? 0 : this.shares[node - this.count]!
  }

  proxyOf(node: number): number {
    return this.isItem(node) ? -1 : this.proxy[node - this.count]!
  }

  className(item: number): string {
    const level = this.levels.at(-1)
    return level === undefined ? '' : level.names[level.codes[item]!]!
  }

  // Edges from a node down to its deepest image.
  heightOf(node: number): number {
    return this.height[node]!
  }

  // What a node is called.
  nameOf(node: number): string {
    if (this.isItem(node)) return this.className(node) || this.ids[node]!
    if (node === this.root) return 'All images'
    const name = this.raw.names[node - this.count]!
    if (name !== '') return name
    const proxy = this.proxyOf(node)
    return proxy >= 0 ? `Proxy ${proxy}` : `Group ${node - this.count}`
  }

  kindOf(node: number): string {
    if (this.isItem(node)) return 'image'
    const proxy = this.proxyOf(node)
    const kind = proxy >= 0 ? `proxy ${proxy}` : 'node'
    if (node !== this.root) return kind
    return proxy >= 0 ? `root, ${kind}` : 'root'
  }
}
