// A selection as a table.
import type { Scene } from './scene.ts'

const cell = (text: string): string =>
  /[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text

// One line an image, by RFC 4180: its id, what it is at each level, its nearest
// neighbor and the distance to it.
export function csv(scene: Scene, items: Iterable<number>): string {
  const levels = scene.levels.map((level) => level.name)
  const heading = ['id', ...levels, 'nearest', 'distance']
  if (scene.radius !== null) heading.push('radius')
  const lines = [heading]
  for (const item of items) {
    const line = [scene.ids[item]!]
    for (const level of scene.levels) {
      line.push(level.names[level.codes[item]!]!)
    }
    const nearest = scene.neighbors(item)[0]
    line.push(nearest === undefined ? '' : scene.ids[nearest.item]!)
    line.push(nearest === undefined ? '' : String(nearest.distance))
    if (scene.radius !== null) line.push(String(scene.radius[item]))
    lines.push(line)
  }
  return lines.map((line) => `${line.map(cell).join(',')}\r\n`).join('')
}
