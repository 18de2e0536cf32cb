// The disk as SVG, from the same list of what is drawn.
import { css } from './colors.ts'
import type { Disk } from './disk.ts'
import type { Edge } from './display.ts'
import { element } from './dom.ts'
import type { Scene } from './scene.ts'
import type { Thumbnails } from './thumbnails.ts'
import type { View } from './view.ts'

const SVG = 'http://www.w3.org/2000/svg'
const digits = (value: number) => String(Math.round(100 * value) / 100)

function shape(name: string, attributes: Record<string, string | number>) {
  const made = document.createElementNS(SVG, name)
  for (const [key, value] of Object.entries(attributes)) {
    made.setAttribute(key, typeof value === 'number' ? digits(value) : value)
  }
  return made
}

function line({ from, to, arc }: Edge): string {
  const start = `M${digits(from[0])} ${digits(from[1])}`
  const end = `${digits(to[0])} ${digits(to[1])}`
  if (arc === null) return `${start}L${end}`
  const radius = digits(arc.radius)
  return `${start}A${radius} ${radius} 0 0 ${arc.backwards ? 0 : 1} ${end}`
}

export function svg(
  scene: Scene,
  view: View,
  disk: Disk,
  thumbnails: Thumbnails,
): string {
  disk.now()
  const { palette, coloring } = disk.colors
  const { width, height, radius } = view
  const root = shape('svg', {
    viewBox: `0 0 ${digits(width)} ${digits(height)}`,
    width,
    height,
    'font-family': 'system-ui, sans-serif',
  })
  const title = shape('title', {})
  title.textContent = scene.title
  root.append(title)
  root.append(shape('rect', { width, height, fill: palette.ground }))
  root.append(
    shape('circle', {
      cx: width / 2,
      cy: height / 2,
      r: radius,
      fill: palette.disk,
      stroke: palette.rim,
    }),
  )
  for (const edge of disk.display.edges) {
    root.append(
      shape('path', {
        d: line(edge),
        fill: 'none',
        stroke: edge.strong ? palette.strong : palette.edge,
        'stroke-width': edge.width,
        'stroke-linecap': 'round',
      }),
    )
  }
  const thumbs = new Set(disk.display.thumbs.map((thumb) => thumb.item))
  for (let item = 0; item < scene.count; item++) {
    if (thumbs.has(item)) continue
    const [px, py] = view.seen(item)
    const [x, y] = view.toScreen(px, py)
    const near = Math.sqrt(Math.max(0, 1 - px * px - py * py))
    const [r, g, b] = coloring.rgb.subarray(3 * item, 3 * item + 3)
    const lit = disk.litItems === null || disk.litItems[item] === 1
    root.append(
      shape('circle', {
        cx: x,
        cy: y,
        r: Math.max(0.8, 3.5 * near),
        fill: css([r!, g!, b!]),
        'fill-opacity': lit ? 0.9 : 0.18,
      }),
    )
  }
  addThumbs(root, disk, thumbnails)
  addMarks(root, disk)
  return new XMLSerializer().serializeToString(root)
}

function addThumbs(root: Element, disk: Disk, thumbnails: Thumbnails): void {
  const { coloring } = disk.colors
  for (const { item, x, y, size, dim } of disk.display.thumbs) {
    const canvas = element('canvas')
    thumbnails.fill(canvas, item)
    const box = { x: x - size / 2, y: y - size / 2, width: size, height: size }
    const opacity = dim ? 0.25 : 1
    root.append(
      shape('image', { href: canvas.toDataURL('image/png'), ...box, opacity }),
    )
    const [r, g, b] = coloring.rgb.subarray(3 * item, 3 * item + 3)
    root.append(
      shape('rect', {
        ...box,
        opacity,
        fill: 'none',
        stroke: css([r!, g!, b!]),
        'stroke-width': 2,
      }),
    )
  }
}

function addMarks(root: Element, disk: Disk): void {
  const { palette } = disk.colors
  for (const { x, y, radius, strong } of disk.display.marks) {
    root.append(
      shape('circle', {
        cx: x,
        cy: y,
        r: radius,
        fill: strong ? palette.strong : palette.disk,
        stroke: palette.ink,
        'stroke-width': 1.4,
      }),
    )
  }
  for (const { text, x, y, strong, weak } of disk.display.labels) {
    const made = shape('text', {
      x,
      y: y + 4,
      'font-size': 12,
      'font-weight': weak ? 400 : 600,
      'text-anchor': 'middle',
      fill: strong ? palette.strong : palette.ink,
      stroke: palette.halo,
      'stroke-width': 3.5,
      'paint-order': 'stroke',
    })
    made.textContent = text
    root.append(made)
  }
}
