// The page, put together.
import './style.css'
import { Actions } from './actions.ts'
import { follow, written } from './address.ts'
import { coloring as colored, css, modes, onRamp } from './colors.ts'
import { Disk } from './disk.ts'
import { button, download, element, named, short } from './dom.ts'
import { Gestures } from './gestures.ts'
import { Icicle } from './icicle.ts'
import { dialog, shortcuts } from './keys.ts'
import { Panel } from './panel.ts'
import { svg } from './pictures.ts'
import { Scene } from './scene.ts'
import { Search } from './search.ts'
import { Store, type Theme } from './store.ts'
import { Thumbnails } from './thumbnails.ts'
import { View } from './view.ts'

const THEMES: readonly Theme[] = ['auto', 'light', 'dark']
const LEGEND = 14
// Nodes of a path that are shown.
const CRUMBS = 7

function select(
  label: string,
  options: readonly (readonly [string, string])[],
  change: (value: string) => void,
): { box: HTMLElement; input: HTMLSelectElement } {
  const input = element('select', { 'aria-label': label })
  for (const [value, text] of options) {
    input.append(element('option', { value }, short(text, 30)))
  }
  input.addEventListener('change', () => change(input.value))
  return { box: element('label', {}, `${label} `, input), input }
}

function start(): void {
  const scene = new Scene(document.getElementById('scene')!.textContent!)
  const store = new Store()
  const colors = modes(scene)
  store.set({ color: colors[0]!.mode })
  const view = new View(scene, store)
  const actions = new Actions(scene, store, view)
  const choose = (node: number, focus: boolean) => actions.select(node, focus)
  const first = colored(scene, store.state.color)
  const thumbnails = new Thumbnails(scene, () => {
    disk.draw()
    icicle.draw()
  })
  const disk = new Disk(scene, store, view, thumbnails, first)
  const icicle = new Icicle(scene, store, thumbnails, first, choose)
  const panel = new Panel(scene, store, thumbnails, choose)
  const search = new Search(scene, actions)
  new Gestures(scene, store, view, disk, actions)

  // ---- the bar above ----
  const color = select(
    'Color',
    colors.map((one) => [one.mode, one.title] as const),
    (value) => store.set({ color: value }),
  )
  const layout = select(
    'Layout',
    scene.layouts.map((one, i) => [String(i), one.name] as const),
    (value) => store.set({ layout: Number(value) }),
  )
  const file = (suffix: string) => {
    const stem = scene.title.replace(/[^\p{L}\p{N}]+/gu, '-').slice(0, 40)
    return `${stem || 'explore'}.${suffix}`
  }
  const png = () =>
    disk.picture().toBlob((blob) => blob && download(file('png'), blob))
  const vector = () => {
    const text = svg(scene, view, disk, thumbnails)
    download(file('svg'), new Blob([text], { type: 'image/svg+xml' }))
  }
  const theme = button('', () => {
    const at = THEMES.indexOf(store.state.theme)
    store.set({ theme: THEMES[(at + 1) % THEMES.length]! })
  })
  const lasso = button(
    'Lasso',
    () => store.set({ lasso: !store.state.lasso }),
    { 'aria-pressed': 'false', title: 'Draw around images (L)' },
  )
  const pictures = button(
    'Thumbnails',
    () => store.set({ thumbnails: !store.state.thumbnails }),
    { 'aria-pressed': 'true', title: 'Show thumbnails (I)' },
  )
  pictures.hidden = !thumbnails.exist
  const help = dialog()
  const title = scene.title || 'Embedded images'
  document.title = short(title, 100)
  const header = element(
    'header',
    {},
    element('h1', {}, named(title, 90)),
    search.box,
    element(
      'div',
      { class: 'tools', role: 'toolbar', 'aria-label': 'View' },
      color.box,
      layout.box,
      pictures,
      lasso,
      button('Home', () => actions.home(), { title: 'The whole tree (Home)' }),
      button('PNG', png, { title: 'Save the disk as PNG' }),
      button('SVG', vector, { title: 'Save the disk as SVG' }),
      theme,
      button('?', () => help.showModal(), { 'aria-label': 'Keys' }),
    ),
  )

  // ---- around the disk ----
  const crumbs = element('nav', { class: 'crumbs', 'aria-label': 'Path' })
  const legend = element('div', { class: 'legend', 'aria-label': 'Colors' })
  const tip = element('div', { class: 'tip', role: 'presentation' })
  const note = element('p', { class: 'note layout' })
  const said = element('div', { class: 'said', 'aria-live': 'polite' })
  disk.box.append(tip)
  document.body.append(
    header,
    element(
      'main',
      {},
      icicle.box,
      element('section', { class: 'stage' }, crumbs, disk.box, legend, note),
      panel.box,
    ),
    said,
    help,
  )

  const showCrumbs = () => {
    const { selection } = store.state
    const path = selection.kind === 'node' ? scene.path(selection.node) : []
    const nodes = path.length > 0 ? path : scene.root < 0 ? [] : [scene.root]
    const left = nodes.length - CRUMBS
    crumbs.replaceChildren(
      ...nodes.map((node, i) => {
        if (left > 0 && i > 0 && i <= left) {
          return element('span', { class: 'far' }, i === 1 ? `${left} more` : '')
        }
        const made = button('', () => actions.select(node, true), {
          'data-node': String(node),
        })
        made.append(named(scene.nameOf(node), 24))
        return made
      }),
    )
    for (const one of crumbs.querySelectorAll('span:empty')) one.remove()
    if (selection.kind === 'set') {
      crumbs.append(element('span', {}, named(selection.title, 24)))
    }
    crumbs.lastElementChild?.setAttribute('aria-current', 'location')
  }

  const showLegend = () => {
    const { categories, scale, title: about } = disk.colors.coloring
    legend.replaceChildren(element('span', { class: 'about' }, about))
    const largest = [...categories].sort((a, b) => b.count - a.count)
    for (const { name, color: ink, count, code } of largest.slice(0, LEGEND)) {
      const made = button('', () => code && actions.selectCode(...code), {
        title: `${short(name, 60)}: ${count}`,
      })
      made.disabled = code === null
      const swatch = element('span', { class: 'swatch' })
      swatch.style.background = css(ink)
      made.append(swatch, named(name, 22))
      legend.append(made)
    }
    if (largest.length > LEGEND) {
      const more = `and ${largest.length - LEGEND} more`
      legend.append(element('span', { class: 'about' }, more))
    }
    if (scale !== null) {
      const ramp = element('span', { class: 'ramp' })
      const stops = [0, 0.25, 0.5, 0.75, 1].map((x) => css(onRamp(x)))
      ramp.style.background = `linear-gradient(to right, ${stops.join(', ')})`
      legend.append(scale[0].toFixed(2), ramp, scale[1].toFixed(2))
    }
  }

  const showTip = () => {
    const { hover } = store.state
    tip.hidden = hover < 0
    if (hover < 0) return
    const size = scene.size[hover]!
    const about = scene.isItem(hover)
      ? short(scene.ids[hover]!, 40)
      : `${scene.kindOf(hover)} · ${size.toLocaleString('en')}`
    tip.replaceChildren(
      element('b', {}, named(scene.nameOf(hover), 50)),
      element('span', {}, named(about, 60)),
    )
    const [x, y] = view.toScreen(...view.seen(hover))
    const [left, top] = [
      Math.min(Math.max(x + 18, 4), view.width - 190),
      Math.min(Math.max(y + 18, 4), view.height - 48),
    ]
    tip.style.transform = `translate(${left}px, ${top}px)`
  }

  const dress = () => {
    const { theme: chosen } = store.state
    document.documentElement.dataset['theme'] = chosen
    theme.textContent = { auto: 'Auto', light: 'Light', dark: 'Dark' }[chosen]
    theme.title = 'Light, dark, or as the system has it (T)'
    disk.rethemed()
    icicle.draw()
  }
  matchMedia('(prefers-color-scheme: dark)').addEventListener('change', dress)

  let timer = 0
  const remember = () => {
    clearTimeout(timer)
    timer = setTimeout(() => {
      history.replaceState(null, '', `#${written(store.state)}`)
    }, 250)
  }

  const recolor = () => {
    const made = colored(scene, store.state.color)
    color.input.value = store.state.color
    disk.recolor(made)
    icicle.recolor(made)
    showLegend()
  }

  store.listen((state, changed) => {
    if (changed.has('moving')) thumbnails.pause(state.moving)
    if (changed.has('color')) recolor()
    if (changed.has('theme')) dress()
    if (changed.has('layout')) {
      layout.input.value = String(state.layout)
      note.textContent = scene.layouts[state.layout]!.note
    }
    if (changed.has('selection')) {
      showCrumbs()
      said.textContent = spoken(scene, store)
    }
    if (changed.has('hover')) showTip()
    if (changed.has('lasso')) {
      lasso.setAttribute('aria-pressed', String(state.lasso))
      disk.top.classList.toggle('lasso', state.lasso)
    }
    if (changed.has('thumbnails')) {
      pictures.setAttribute('aria-pressed', String(state.thumbnails))
    }
    if (!(changed.size === 1 && changed.has('hover'))) remember()
  })

  note.textContent = scene.layouts[0]!.note
  showCrumbs()
  showLegend()
  showTip()
  dress()
  follow(location.hash.slice(1), scene, store, actions)
  window.addEventListener('hashchange', () => {
    follow(location.hash.slice(1), scene, store, actions)
  })
  shortcuts({ store, actions, search, help, colors: colors.map((c) => c.mode) })
  // For tests and benchmarks.
  Object.assign(window, { explorer: { scene, store, view, disk, icicle } })
}

// What a screen reader says of the selection.
function spoken(scene: Scene, store: Store): string {
  const { selection } = store.state
  if (selection.kind === 'none') return 'Nothing is selected.'
  if (selection.kind === 'set') {
    return `${short(selection.title, 60)}: ${selection.items.length} images`
  }
  const { node } = selection
  const below = scene.isItem(node) ? '' : `, ${scene.size[node]} images below`
  return `${scene.kindOf(node)}: ${short(scene.nameOf(node), 60)}${below}`
}

start()
