// Builds src/ into one HTML file without any link: built/page.html.
import { createHash } from 'node:crypto'
import { defineConfig } from 'vite'

const hash = (text) =>
  `'sha256-${createHash('sha256').update(text).digest('base64')}'`

// Scripts and styles go into the page, and its policy names their hashes: the
// browser runs nothing else, and the page reaches no network.
const inlined = {
  name: 'inlined',
  enforce: 'post',
  generateBundle(_, bundle) {
    const parts = Object.values(bundle)
    const html = parts.find((part) => part.fileName.endsWith('.html'))
    const code = parts.find((part) => part.type === 'chunk').code.trim()
    const style = parts
      .find((part) => part.fileName.endsWith('.css'))
      .source.toString()
      .trim()
    if (code.includes('</script') || style.includes('</style')) {
      throw new Error('the code would end its own element')
    }
    const policy = [
      "default-src 'none'",
      `script-src ${hash(code)}`,
      `style-src ${hash(style)}`,
      'img-src data: blob:',
      "base-uri 'none'",
      "form-action 'none'",
    ].join('; ')
    html.source = html.source
      .toString()
      .replace(/\s*<script type="module"[^>]*><\/script>/, '')
      .replace(/\s*<link rel="stylesheet"[^>]*>/, '')
      .replace('POLICY', () => policy)
      .replace('</head>', () => `  <style>${style}</style>\n  </head>`)
      .replace('</body>', () => `  <script>${code}</script>\n  </body>`)
    html.fileName = 'page.html'
    for (const part of parts) {
      if (part !== html) delete bundle[part.fileName]
    }
  },
}

export default defineConfig({
  plugins: [inlined],
  build: {
    outDir: 'built',
    emptyOutDir: true,
    target: 'es2022',
    modulePreload: false,
    cssCodeSplit: false,
    rollupOptions: { output: { format: 'iife' } },
  },
})
