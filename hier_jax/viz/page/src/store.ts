// What is shown, and who wants to know when that changes.
import { IDENTITY, type Isometry } from './geometry.ts'

export type Selection =
  | { readonly kind: 'none' }
  | { readonly kind: 'node'; readonly node: number }
  | {
      readonly kind: 'set'
      readonly title: string
      readonly items: Int32Array
      // Level and code of a set that is a class, for the URL.
      readonly code?: readonly [number, number]
    }

// 'level:0', ..., 'correct', 'radius', or 'plain'.
export type ColorMode = string
export type Theme = 'auto' | 'light' | 'dark'

export interface State {
  readonly view: Isometry
  readonly zoom: number
  readonly layout: number
  readonly color: ColorMode
  readonly theme: Theme
  readonly selection: Selection
  readonly hover: number
  readonly lasso: boolean
  readonly thumbnails: boolean
  readonly moving: boolean
}

export const NOTHING: Selection = { kind: 'none' }

type Listener = (state: State, changed: ReadonlySet<keyof State>) => void

export class Store {
  private listeners: Listener[] = []
  state: State = {
    view: IDENTITY,
    zoom: 1,
    layout: 0,
    color: 'plain',
    theme: 'auto',
    selection: NOTHING,
    hover: -1,
    lasso: false,
    thumbnails: true,
    moving: false,
  }

  set(some: Partial<State>): void {
    const changed = new Set<keyof State>()
    for (const key of Object.keys(some) as (keyof State)[]) {
      if (some[key] !== this.state[key]) changed.add(key)
    }
    if (changed.size === 0) return
    this.state = { ...this.state, ...some }
    for (const listener of this.listeners) listener(this.state, changed)
  }

  listen(listener: Listener): void {
    this.listeners.push(listener)
  }
}
