// Elements, whose text is never HTML.

type Child = Node | string | null

export function element<K extends keyof HTMLElementTagNameMap>(
  name: K,
  attributes: Record<string, string> = {},
  ...children: Child[]
): HTMLElementTagNameMap[K] {
  const made = document.createElement(name)
  for (const [key, value] of Object.entries(attributes)) {
    made.setAttribute(key, value)
  }
  for (const child of children) if (child !== null) made.append(child)
  return made
}

export function button(
  text: string,
  action: () => void,
  attributes: Record<string, string> = {},
): HTMLButtonElement {
  const made = element('button', { type: 'button', ...attributes }, text)
  made.addEventListener('click', action)
  return made
}

// A stranger's text, alone in its direction and short enough for a label.
export function short(text: string, most = 80): string {
  const letters = Array.from(text.slice(0, 4 * most))
  return letters.length > most ? `${letters.slice(0, most).join('')}…` : text
}

// A name in an element of its own, so that its direction ends with it.
export function named(text: string, most = 120): HTMLElement {
  const made = element('bdi', {}, short(text, most))
  if (text.length > most) made.title = short(text, 1000)
  return made
}

export function percent(share: number): string {
  return `${Math.round(100 * share)} %`
}

export function counted(number: number, noun: string): string {
  return `${number.toLocaleString('en')} ${noun}${number === 1 ? '' : 's'}`
}

export function download(name: string, blob: Blob): void {
  const url = URL.createObjectURL(blob)
  element('a', { href: url, download: name }).click()
  setTimeout(() => URL.revokeObjectURL(url), 10_000)
}
