// Keys of the whole page, and the dialog that lists them.
import type { Actions } from './actions.ts'
import { button, element } from './dom.ts'
import type { Search } from './search.ts'
import type { Store, Theme } from './store.ts'

const LISTED: readonly (readonly [string, string])[] = [
  ['Drag, arrow keys', 'move the focus'],
  ['Wheel, pinch, + and -', 'zoom'],
  ['Click, Enter', 'select the node or image, or the one in the focus'],
  ['U', 'to the parent'],
  ['D', 'to the first child'],
  ['N, P', 'to the next or previous sibling'],
  ['Home', 'the whole tree'],
  ['Escape', 'select nothing'],
  ['/', 'search'],
  ['L, or hold Shift', 'draw a lasso'],
  ['C', 'next color'],
  ['I', 'thumbnails or points'],
  ['T', 'light or dark'],
  ['?', 'this list'],
]

export function dialog(): HTMLDialogElement {
  const made = element('dialog', { 'aria-labelledby': 'keys' })
  const list = element('dl')
  for (const [key, text] of LISTED) {
    list.append(element('dt', {}, key), element('dd', {}, text))
  }
  const describe = (id: string, text: string) =>
    element('p', { id, hidden: '' }, text)
  made.append(
    element('h2', { id: 'keys' }, 'Keys'),
    list,
    element(
      'p',
      { class: 'note' },
      'In the icicle the arrow keys walk the tree. The address holds the view.',
    ),
    button('Close', () => made.close()),
  )
  document.body.append(
    describe(
      'keys-of-disk',
      'Arrow keys move the focus, plus and minus zoom, Enter selects what is in' +
        ' the focus, U goes to the parent, D to the first child, N and P to the' +
        ' siblings. Details are in the panel.',
    ),
    describe(
      'keys-of-icicle',
      'Left goes to the parent, right to the first child, up and down to the' +
        ' siblings.',
    ),
  )
  return made
}

export function shortcuts(page: {
  readonly store: Store
  readonly actions: Actions
  readonly search: Search
  readonly help: HTMLDialogElement
  readonly colors: readonly string[]
}): void {
  const { store, actions, search, help, colors } = page
  const themes: readonly Theme[] = ['auto', 'light', 'dark']
  const next = <T>(list: readonly T[], value: T): T =>
    list[(list.indexOf(value) + 1) % list.length]!
  const keys: Record<string, () => void> = {
    u: () => actions.walk('up'),
    d: () => actions.walk('down'),
    n: () => actions.walk('next'),
    p: () => actions.walk('previous'),
    Home: () => actions.home(),
    Escape: () => actions.clear(),
    '/': () => search.input.focus(),
    l: () => store.set({ lasso: !store.state.lasso }),
    c: () => store.set({ color: next(colors, store.state.color) }),
    i: () => store.set({ thumbnails: !store.state.thumbnails }),
    t: () => store.set({ theme: next(themes, store.state.theme) }),
    '?': () => help.showModal(),
  }
  document.addEventListener('keydown', (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || help.open) return
    const { target } = event
    if (target instanceof HTMLInputElement) return
    if (target instanceof HTMLSelectElement) return
    const action = keys[event.key]
    if (action === undefined) return
    event.preventDefault()
    action()
  })
}
