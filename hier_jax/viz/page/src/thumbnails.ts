// Pictures of the images, cut out of the pages of the atlas.
import type { Scene } from './scene.ts'

// Pages that are kept decoded, by bytes.
const KEPT = 96 * 2 ** 20

interface Page {
  readonly bitmap: ImageBitmap | null
  used: number
}

export interface Tile {
  readonly bitmap: ImageBitmap
  readonly x: number
  readonly y: number
  readonly side: number
}

export class Thumbnails {
  private readonly pages = new Map<number, Page>()
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
  tile(item: number): Tile | null {
    const atlas = this.scene.atlas
    if (atlas === null) return null
    const { side, columns } = atlas
    const place = this.scene.place[item]!
    const index = Math.floor(place / columns ** 2)
    const page = this.pages.get(index)
    if (page === undefined) {
      void this.decode(index, atlas.pages[index]!)
      return null
    }
    page.used = ++this.clock
    if (page.bitmap === null) return null
    const at = place % columns ** 2
    return {
      bitmap: page.bitmap,
      x: (at % columns) * side,
      y: Math.floor(at / columns) * side,
      side,
    }
  }

  // Draws the thumbnail into a canvas of the panel, when it is there.
  fill(canvas: HTMLCanvasElement, item: number): void {
    const tile = this.tile(item)
    if (tile === null) {
      if (this.exist) this.waiting.push(() => this.fill(canvas, item))
      return
    }
    canvas.width = canvas.height = tile.side
    canvas
      .getContext('2d')!
      .drawImage(
        tile.bitmap,
        tile.x,
        tile.y,
        tile.side,
        tile.side,
        0,
        0,
        tile.side,
        tile.side,
      )
  }

  private async decode(index: number, text: string): Promise<void> {
    this.pages.set(index, { bitmap: null, used: ++this.clock })
    const raw = Uint8Array.from(atob(text), (c) => c.charCodeAt(0))
    const bitmap = await createImageBitmap(
      new Blob([raw], { type: 'image/webp' }),
    )
    this.pages.set(index, { bitmap, used: ++this.clock })
    this.forget(4 * bitmap.width * bitmap.height)
    const waiting = this.waiting
    this.waiting = []
    for (const again of waiting) again()
    this.arrived()
  }

  // Closes the pages that have not been used for longest.
  private forget(size: number): void {
    const most = Math.max(4, Math.floor(KEPT / size))
    const ready = [...this.pages]
      .filter(([, page]) => page.bitmap !== null)
      .sort(([, a], [, b]) => a.used - b.used)
    for (const [index, page] of ready.slice(0, -most)) {
      page.bitmap!.close()
      this.pages.delete(index)
    }
  }
}
