// Pictures of the images, cut out of the pages of the atlas.
import type { Scene } from './scene.ts'

// Pages that are kept decoded, by bytes.
const KEPT = 256 * 2 ** 20
// Pages that are decoded at a time.
const AT_ONCE = 2

interface Page {
  // None while it is being decoded.
  readonly tiles: readonly ImageBitmap[]
  used: number
}

export class Thumbnails {
  private readonly pages = new Map<number, Page>()
  private readonly queue: number[] = []
  private busy = 0
  private paused = false
  private clock = 0
  private waiting: (() => void)[] = []

  constructor(
    private readonly scene: Scene,
    private readonly arrived: () => void,
  ) {}

  get exist(): boolean {
    return this.scene.atlas !== null
  }

  // The thumbnail of an image; null where its page is still being decoded.
  tile(item: number): ImageBitmap | null {
    const atlas = this.scene.atlas
    if (atlas === null) return null
    const place = this.scene.place[item]!
    const size = atlas.columns ** 2
    const index = Math.floor(place / size)
    const page = this.pages.get(index)
    if (page === undefined) {
      this.pages.set(index, { tiles: [], used: ++this.clock })
      this.queue.push(index)
      this.work()
      return null
    }
    page.used = ++this.clock
    return page.tiles[place % size] ?? null
  }

  // Draws the thumbnail into a canvas of the panel, when it is there.
  fill(canvas: HTMLCanvasElement, item: number): void {
    const tile = this.tile(item)
    if (tile === null) {
      if (this.exist) this.waiting.push(() => this.fill(canvas, item))
      return
    }
    canvas.width = canvas.height = tile.width
    canvas.getContext('2d')!.drawImage(tile, 0, 0)
  }

  // Pages wait while the view moves, which has to be smooth.
  pause(paused: boolean): void {
    this.paused = paused
    this.work()
  }

  private work(): void {
    while (!this.paused && this.busy < AT_ONCE && this.queue.length > 0) {
      // What was asked for last is what is seen now.
      const index = this.queue.pop()!
      this.busy++
      void this.decode(index, this.scene.atlas!.pages[index]!).finally(() => {
        this.busy--
        this.work()
      })
    }
  }

  private async decode(index: number, text: string): Promise<void> {
    const raw = Uint8Array.from(atob(text), (c) => c.charCodeAt(0))
    const { side, columns } = this.scene.atlas!
    const page = await createImageBitmap(new Blob([raw], { type: 'image/webp' }))
    // One bitmap each: to draw a part of a large one is slow.
    const tiles = await Promise.all(
      Array.from({ length: (columns * page.height) / side }, (_, i) => {
        const [x, y] = [(i % columns) * side, Math.floor(i / columns) * side]
        return createImageBitmap(page, x, y, side, side)
      }),
    )
    page.close()
    this.pages.set(index, { tiles, used: ++this.clock })
    this.forget(4 * tiles.length * side ** 2)
    const waiting = this.waiting
    this.waiting = []
    for (const again of waiting) again()
    this.arrived()
  }

  // Closes the pages that have not been used for longest.
  private forget(size: number): void {
    const most = Math.max(4, Math.floor(KEPT / size))
    const ready = [...this.pages]
      .filter(([, page]) => page.tiles.length > 0)
      .sort(([, a], [, b]) => a.used - b.used)
    for (const [index, page] of ready.slice(0, -most)) {
      for (const tile of page.tiles) tile.close()
      this.pages.delete(index)
    }
  }
}
