// The view in the fragment of the page's address.
import { apply, compose, inverse, translation } from './geometry.ts'
import type { Actions } from './actions.ts'
import { modes } from './colors.ts'
import type { Scene } from './scene.ts'
import type { State, Store, Theme } from './store.ts'

const digits = (value: number) => String(Number(value.toPrecision(6)))

export function written(state: State): string {
  const [x, y] = apply(inverse(state.view), [0, 0])
  const turn = Math.atan2(state.view.a[1], state.view.a[0])
  const parts = new URLSearchParams({
    at: [x, y, turn].map(digits).join(','),
    zoom: digits(state.zoom),
    layout: String(state.layout),
    color: state.color,
  })
  if (state.theme !== 'auto') parts.set('theme', state.theme)
  const { selection } = state
  if (selection.kind === 'node') parts.set('node', String(selection.node))
  if (selection.kind === 'set' && selection.code !== undefined) {
    parts.set('of', selection.code.join(','))
  }
  return parts.toString()
}

// Goes where an address leads; what is wrong in it counts as left out.
export function follow(
  text: string,
  scene: Scene,
  store: Store,
  actions: Actions,
): void {
  const parts = new URLSearchParams(text)
  const numbers = (key: string) =>
    (parts.get(key) ?? '').split(',').map((x) => (x === '' ? NaN : Number(x)))
  const placed = parts.has('at')
  const layout = Number(parts.get('layout') ?? 0)
  if (layout in scene.layouts) store.set({ layout })
  const color = parts.get('color')
  if (modes(scene).some((one) => one.mode === color)) {
    store.set({ color: color! })
  }
  const theme = parts.get('theme')
  if (theme === 'light' || theme === 'dark') {
    store.set({ theme: theme as Theme })
  }
  const node = Number(parts.get('node') ?? NaN)
  if (Number.isInteger(node) && node >= 0 && node < scene.nodes) {
    actions.select(node, !placed)
  }
  const [level, code] = numbers('of')
  if (scene.levels[level!]?.names[code!] !== undefined) {
    actions.selectCode(level!, code!, !placed)
  }
  const zoom = Number(parts.get('zoom') ?? NaN)
  if (zoom >= 0.4 && zoom <= 40) store.set({ zoom })
  const [x, y, turn] = numbers('at')
  if (Number.isFinite(turn) && Math.hypot(x!, y!) < 1) {
    const rotation = {
      a: [Math.cos(turn!), Math.sin(turn!)] as const,
      b: [0, 0] as const,
    }
    store.set({ view: compose(rotation, translation([-x!, -y!])) })
  }
}
