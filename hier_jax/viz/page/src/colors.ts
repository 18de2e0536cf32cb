// Colors of images, told apart by people who see few colors too.
import type { Scene } from './scene.ts'
import type { ColorMode } from './store.ts'

export type Rgb = readonly [number, number, number]

export interface Category {
  readonly name: string
  readonly color: Rgb
  readonly count: number
  // Level and code, where the category is one of a level.
  readonly code: readonly [number, number] | null
}

export interface Coloring {
  readonly title: string
  // r, g, b of each image.
  readonly rgb: Uint8Array<ArrayBuffer>
  // 1 for images that are drawn as rings.
  readonly hollow: Uint8Array<ArrayBuffer>
  readonly categories: readonly Category[]
  // The ends of a scale, where colors stand for numbers.
  readonly scale: readonly [number, number] | null
}

// Okabe and Ito's colors and four of Paul Tol's.
const HUES: readonly Rgb[] = [
  [0, 114, 178],
  [230, 159, 0],
  [0, 158, 115],
  [204, 121, 167],
  [86, 180, 233],
  [213, 94, 0],
  [153, 153, 51],
  [136, 34, 85],
  [68, 170, 153],
  [110, 110, 120],
]
// Cividis.
const RAMP: readonly Rgb[] = [
  [0, 48, 111],
  [75, 84, 108],
  [124, 123, 120],
  [188, 175, 111],
  [254, 232, 56],
]
const PLAIN: Rgb = [78, 121, 167]
const RIGHT: Rgb = [0, 114, 178]
const WRONG: Rgb = [213, 94, 0]

export const css = (color: Rgb): string => `rgb(${color.join(' ')})`

const mix = (a: Rgb, b: Rgb, share: number): Rgb => [
  Math.round(a[0] + (b[0] - a[0]) * share),
  Math.round(a[1] + (b[1] - a[1]) * share),
  Math.round(a[2] + (b[2] - a[2]) * share),
]

// The color of a category: ten hues, then the same lighter and darker.
function hue(code: number): Rgb {
  const color = HUES[code % HUES.length]!
  const tier = Math.floor(code / HUES.length) % 3
  if (tier === 1) return mix(color, [255, 255, 255], 0.4)
  return tier === 2 ? mix(color, [0, 0, 0], 0.35) : color
}

export function onRamp(share: number): Rgb {
  const at = Math.min(Math.max(share, 0), 1) * (RAMP.length - 1)
  const low = Math.min(Math.floor(at), RAMP.length - 2)
  return mix(RAMP[low]!, RAMP[low + 1]!, at - low)
}

export function modes(scene: Scene): { mode: ColorMode; title: string }[] {
  const found = scene.levels.map((level, i) => ({
    mode: `level:${i}`,
    title: level.name,
  }))
  if (scene.correct !== null) {
    found.push({ mode: 'correct', title: 'correctness' })
  }
  if (scene.radius !== null) found.push({ mode: 'radius', title: 'radius' })
  found.push({ mode: 'plain', title: 'one color' })
  return found
}

export function coloring(scene: Scene, mode: ColorMode): Coloring {
  const made = {
    title: '',
    rgb: new Uint8Array(3 * scene.count),
    hollow: new Uint8Array(scene.count),
    categories: [] as Category[],
    scale: null as readonly [number, number] | null,
  }
  const paint = (color: (item: number) => Rgb) => {
    for (let i = 0; i < scene.count; i++) made.rgb.set(color(i), 3 * i)
  }
  if (mode.startsWith('level:')) {
    const index = Number(mode.slice(6))
    const level = scene.levels[index]!
    const counts = new Int32Array(level.names.length)
    for (const code of level.codes) counts[code]!++
    made.title = level.name
    made.categories = level.names
      .map((name, code) => ({
        name,
        color: hue(code),
        count: counts[code]!,
        code: [index, code] as const,
      }))
      .filter((category) => category.count > 0)
    paint((i) => hue(level.codes[i]!))
  } else if (mode === 'correct' && scene.correct !== null) {
    const correct = scene.correct
    const right = correct.filter((x) => x === 1).length
    made.title = 'nearest neighbor'
    made.categories = [
      { name: 'same class', color: RIGHT, count: right, code: null },
      {
        name: 'another class',
        color: WRONG,
        count: scene.count - right,
        code: null,
      },
    ]
    paint((i) => (correct[i] === 1 ? RIGHT : WRONG))
    made.hollow = correct.map((x) => (x === 1 ? 0 : 1))
  } else if (mode === 'radius' && scene.radius !== null) {
    const radius = scene.radius.subarray(0, scene.count)
    let [low, high] = [Infinity, -Infinity]
    for (const value of radius) {
      low = Math.min(low, value)
      high = Math.max(high, value)
    }
    made.title = 'distance to the origin'
    made.scale = scene.count > 0 ? [low, high] : null
    paint((i) => onRamp((radius[i]! - low) / (high - low || 1)))
  } else {
    paint(() => PLAIN)
  }
  return made
}

// Mean colors of images at consecutive places of the tree.
export class MeanColors {
  private readonly sums: Float64Array

  constructor(scene: Scene, rgb: Uint8Array) {
    this.sums = new Float64Array(3 * (scene.count + 1))
    scene.order.forEach((item, place) => {
      for (let j = 0; j < 3; j++) {
        this.sums[3 * place + 3 + j] =
          this.sums[3 * place + j]! + rgb[3 * item + j]!
      }
    })
  }

  of(start: number, size: number): Rgb {
    const mean = (j: number) =>
      Math.round(
        (this.sums[3 * (start + size) + j]! - this.sums[3 * start + j]!) / size,
      )
    return [mean(0), mean(1), mean(2)]
  }
}
