// Finds classes, higher levels and images by their names.
import { counted, element, named, short } from './dom.ts'
import type { Scene } from './scene.ts'
import type { Actions } from './actions.ts'

const MOST = 12

interface Found {
  readonly text: string
  readonly about: string
  readonly go: () => void
}

export class Search {
  readonly box = element('div', { class: 'search', role: 'search' })
  readonly input = element('input', {
    type: 'search',
    placeholder: 'Search classes and images',
    'aria-label': 'Search classes and images',
    role: 'combobox',
    'aria-expanded': 'false',
    'aria-controls': 'found',
    'aria-autocomplete': 'list',
    autocomplete: 'off',
    spellcheck: 'false',
  })
  private readonly list = element('ul', { id: 'found', role: 'listbox' })
  private found: Found[] = []
  private at = 0

  constructor(
    private readonly scene: Scene,
    private readonly actions: Actions,
  ) {
    this.list.hidden = true
    this.box.append(this.input, this.list)
    this.input.addEventListener('input', () => this.look())
    this.input.addEventListener('focus', () => this.look())
    this.input.addEventListener('blur', () => this.close())
    this.input.addEventListener('keydown', (event) => this.key(event))
  }

  private look(): void {
    const words = this.input.value.trim().toLocaleLowerCase()
    this.found = words === '' ? [] : this.find(words)
    this.at = 0
    this.show(words !== '')
  }

  private find(words: string): Found[] {
    const found: (Found & { rank: number })[] = []
    this.scene.levels.forEach((level, index) => {
      const counts = new Int32Array(level.names.length)
      for (const code of level.codes) counts[code]!++
      level.names.forEach((name, code) => {
        const at = name.toLocaleLowerCase().indexOf(words)
        if (at < 0 || counts[code] === 0) return
        found.push({
          text: name,
          about: `${short(level.name, 20)} · ${counted(counts[code]!, 'image')}`,
          rank: (at === 0 ? 0 : 100) + index,
          go: () => this.actions.selectCode(index, code),
        })
      })
    })
    for (let i = 0; i < this.scene.count && found.length < 400; i++) {
      if (!this.scene.ids[i]!.toLocaleLowerCase().includes(words)) continue
      found.push({
        text: this.scene.ids[i]!,
        about: 'image',
        rank: 1000,
        go: () => this.actions.select(i, true),
      })
    }
    return found.sort((a, b) => a.rank - b.rank).slice(0, MOST)
  }

  private show(asked: boolean): void {
    this.list.replaceChildren(
      ...this.found.map((one, i) => {
        const row = element(
          'li',
          { role: 'option', id: `found-${i}` },
          named(one.text, 60),
          element('span', { class: 'far' }, one.about),
        )
        row.setAttribute('aria-selected', String(i === this.at))
        row.addEventListener('pointerdown', (event) => {
          event.preventDefault()
          this.go(i)
        })
        return row
      }),
    )
    if (asked && this.found.length === 0) {
      this.list.append(element('li', { class: 'nothing' }, 'Nothing is called so.'))
    }
    this.list.hidden = !asked
    this.input.setAttribute('aria-expanded', String(asked))
    this.input.setAttribute(
      'aria-activedescendant',
      this.found.length > 0 ? `found-${this.at}` : '',
    )
  }

  private key(event: KeyboardEvent): void {
    const size = this.found.length
    if (event.key === 'ArrowDown' || event.key === 'ArrowUp') {
      const step = event.key === 'ArrowDown' ? 1 : size - 1
      this.at = size === 0 ? 0 : (this.at + step) % size
      this.show(this.input.value.trim() !== '')
      event.preventDefault()
    } else if (event.key === 'Enter' && size > 0) {
      this.go(this.at)
    } else if (event.key === 'Escape') {
      this.input.blur()
    }
    event.stopPropagation()
  }

  private go(index: number): void {
    this.found[index]!.go()
    this.close()
    this.input.blur()
  }

  private close(): void {
    this.list.hidden = true
    this.input.setAttribute('aria-expanded', 'false')
  }
}
