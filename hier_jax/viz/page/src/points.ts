// All images as points: by WebGL2 where a GPU draws, else pixel by pixel, which
// is several times as fast as a GPU that the browser imitates.

const VERTEX = `#version 300 es
in vec2 place;
in vec4 color;
in float hollow;
uniform vec2 scale;
uniform vec2 sizes;
out vec4 ink;
flat out float ring;
flat out float pixels;
void main() {
  gl_Position = vec4(place * scale, 0.0, 1.0);
  float near = max(0.0, 1.0 - dot(place, place));
  pixels = max(sizes.x, sizes.y * sqrt(near));
  gl_PointSize = pixels + 1.0;
  ink = color;
  ring = hollow;
}`
const FRAGMENT = `#version 300 es
precision mediump float;
in vec4 ink;
flat in float ring;
flat in float pixels;
out vec4 color;
void main() {
  float far = length(gl_PointCoord - 0.5) * (pixels + 1.0);
  float radius = 0.5 * pixels;
  float cover = clamp(radius + 0.5 - far, 0.0, 1.0);
  if (ring > 0.5) cover *= clamp(far - radius * 0.45 + 0.5, 0.0, 1.0);
  float alpha = cover * ink.a;
  if (alpha < 0.01) discard;
  color = vec4(ink.rgb * alpha, alpha);
}`

type Bytes = Uint8Array<ArrayBuffer>

export interface Frame {
  // Pixels of the canvas, and of the radius of the disk.
  readonly width: number
  readonly height: number
  readonly radius: number
  // Diameters of points at the edge and in the center.
  readonly sizes: readonly [number, number]
}

export interface Points {
  // What they are drawn into.
  readonly canvas: HTMLCanvasElement
  paint(rgb: Bytes, alpha: Bytes, hollow: Bytes): void
  draw(places: Float32Array, frame: Frame): void
}

export function points(count: number): Points {
  const canvas = document.createElement('canvas')
  const gl = canvas.getContext('webgl2', {
    alpha: true,
    antialias: false,
    depth: false,
    premultipliedAlpha: true,
    failIfMajorPerformanceCaveat: true,
  })
  if (gl !== null && !imitated(gl)) return new Fast(canvas, gl, count)
  return new Plain(document.createElement('canvas'), count)
}

// Whether no GPU is behind WebGL.
function imitated(gl: WebGL2RenderingContext): boolean {
  const about = gl.getExtension('WEBGL_debug_renderer_info')
  const name = gl.getParameter(about?.UNMASKED_RENDERER_WEBGL ?? gl.RENDERER)
  return /swiftshader|llvmpipe|softpipe|software|basic render/i.test(name)
}

class Fast implements Points {
  private program: WebGLProgram | null = null
  private buffers: WebGLBuffer[] = []
  private colors: Bytes = new Uint8Array(0)
  private hollow: Bytes = new Uint8Array(0)

  constructor(
    readonly canvas: HTMLCanvasElement,
    private readonly gl: WebGL2RenderingContext,
    private readonly count: number,
  ) {
    canvas.addEventListener('webglcontextlost', (event) => {
      event.preventDefault()
      this.program = null
    })
    canvas.addEventListener('webglcontextrestored', () => this.prepare())
    this.prepare()
  }

  private prepare(): void {
    const { gl } = this
    const program = gl.createProgram()!
    for (const [kind, text] of [
      [gl.VERTEX_SHADER, VERTEX],
      [gl.FRAGMENT_SHADER, FRAGMENT],
    ] as const) {
      const shader = gl.createShader(kind)!
      gl.shaderSource(shader, text)
      gl.compileShader(shader)
      gl.attachShader(program, shader)
    }
    for (const [i, name] of ['place', 'color', 'hollow'].entries()) {
      gl.bindAttribLocation(program, i, name)
    }
    gl.linkProgram(program)
    if (!gl.getProgramParameter(program, gl.LINK_STATUS)) {
      throw new Error(gl.getProgramInfoLog(program) ?? 'WebGL cannot link')
    }
    gl.useProgram(program)
    gl.enable(gl.BLEND)
    gl.blendFunc(gl.ONE, gl.ONE_MINUS_SRC_ALPHA)
    this.buffers = [
      this.attribute(0, 2, gl.FLOAT, false),
      this.attribute(1, 4, gl.UNSIGNED_BYTE, true),
      this.attribute(2, 1, gl.UNSIGNED_BYTE, false),
    ]
    this.program = program
    this.upload()
  }

  private attribute(
    index: number,
    size: number,
    type: number,
    normalized: boolean,
  ): WebGLBuffer {
    const { gl } = this
    const buffer = gl.createBuffer()!
    gl.bindBuffer(gl.ARRAY_BUFFER, buffer)
    gl.enableVertexAttribArray(index)
    gl.vertexAttribPointer(index, size, type, normalized, 0, 0)
    return buffer
  }

  paint(rgb: Bytes, alpha: Bytes, hollow: Bytes): void {
    this.colors = new Uint8Array(4 * this.count)
    for (let i = 0; i < this.count; i++) {
      this.colors.set(rgb.subarray(3 * i, 3 * i + 3), 4 * i)
      this.colors[4 * i + 3] = alpha[i]!
    }
    this.hollow = hollow
    this.upload()
  }

  private upload(): void {
    if (this.program === null) return
    const { gl } = this
    const data = [null, this.colors, this.hollow]
    for (const [i, values] of data.entries()) {
      if (values === null) continue
      gl.bindBuffer(gl.ARRAY_BUFFER, this.buffers[i]!)
      gl.bufferData(gl.ARRAY_BUFFER, values, gl.STATIC_DRAW)
    }
  }

  draw(places: Float32Array, frame: Frame): void {
    if (this.program === null) return
    const { gl } = this
    gl.viewport(0, 0, frame.width, frame.height)
    gl.clearColor(0, 0, 0, 0)
    gl.clear(gl.COLOR_BUFFER_BIT)
    if (this.count === 0) return
    gl.bindBuffer(gl.ARRAY_BUFFER, this.buffers[0]!)
    gl.bufferData(
      gl.ARRAY_BUFFER,
      places.subarray(0, 2 * this.count),
      gl.DYNAMIC_DRAW,
    )
    gl.uniform2f(
      gl.getUniformLocation(this.program, 'scale'),
      (2 * frame.radius) / frame.width,
      (2 * frame.radius) / frame.height,
    )
    gl.uniform2f(gl.getUniformLocation(this.program, 'sizes'), ...frame.sizes)
    gl.drawArrays(gl.POINTS, 0, this.count)
  }
}

// A disk of some diameter: how far each pixel is covered, row by row.
interface Stamp {
  readonly side: number
  readonly cover: Float32Array
}

function stamp(diameter: number, hollow: boolean): Stamp {
  const side = Math.ceil(diameter) + 1
  const cover = new Float32Array(side * side)
  const radius = diameter / 2
  for (let i = 0; i < cover.length; i++) {
    const x = (i % side) + 0.5 - side / 2
    const y = Math.floor(i / side) + 0.5 - side / 2
    const far = Math.hypot(x, y)
    const within = Math.min(1, Math.max(0, radius + 0.5 - far))
    const hole = Math.min(1, Math.max(0, far - radius * 0.45 + 0.5))
    cover[i] = hollow ? within * hole : within
  }
  return { side, cover }
}

class Plain implements Points {
  private rgb = new Uint8Array(0)
  private alpha = new Uint8Array(0)
  private hollow = new Uint8Array(0)
  private image: ImageData | null = null
  // The image's, as bytes and as whole pixels: r, g, b, alpha from low to high.
  private bytes = new Uint8ClampedArray(0)
  private pixels = new Uint32Array(0)
  private stride = 0
  // By twice the diameter, and 1 for rings.
  private readonly stamps = new Map<number, Stamp>()

  private readonly context: CanvasRenderingContext2D

  constructor(
    readonly canvas: HTMLCanvasElement,
    private readonly count: number,
  ) {
    this.context = canvas.getContext('2d')!
  }

  paint(rgb: Bytes, alpha: Bytes, hollow: Bytes): void {
    this.rgb = rgb
    this.alpha = alpha
    this.hollow = hollow
  }

  draw(places: Float32Array, frame: Frame): void {
    const { width, height, radius, sizes } = frame
    if (this.image?.width !== width || this.image.height !== height) {
      this.image = this.context.createImageData(width, height)
      this.bytes = this.image.data
      this.pixels = new Uint32Array(this.bytes.buffer)
      this.stride = width
    }
    this.pixels.fill(0)
    for (let i = 0; i < this.count; i++) {
      const x = places[2 * i]!
      const y = places[2 * i + 1]!
      const near = Math.sqrt(Math.max(0, 1 - x * x - y * y))
      const size = Math.max(sizes[0], sizes[1] * near)
      const one = this.stamp(size, this.hollow[i]!)
      const left = Math.round(width / 2 + radius * x - one.side / 2)
      const top = Math.round(height / 2 - radius * y - one.side / 2)
      if (left < 0 || left + one.side > width) continue
      if (top < 0 || top + one.side > height) continue
      this.press(one, top * width + left, i)
    }
    this.context.putImageData(this.image, 0, 0)
  }

  private stamp(size: number, hollow: number): Stamp {
    const key = 2 * Math.round(2 * size) + hollow
    let found = this.stamps.get(key)
    if (found === undefined) {
      found = stamp(Math.round(2 * size) / 2, hollow === 1)
      this.stamps.set(key, found)
    }
    return found
  }

  private press({ side, cover }: Stamp, start: number, item: number): void {
    const { pixels, bytes, stride } = this
    const r = this.rgb[3 * item]!
    const g = this.rgb[3 * item + 1]!
    const b = this.rgb[3 * item + 2]!
    const full = this.alpha[item]!
    const ink = r | (g << 8) | (b << 16)
    for (let row = 0; row < side; row++) {
      let to = start + row * stride
      for (let i = row * side; i < (row + 1) * side; i++, to++) {
        const alpha = (cover[i]! * full) | 0
        if (alpha === 0) continue
        const below = pixels[to]! >>> 24
        // Most pixels are covered whole, or the first there.
        if (alpha === 255 || below === 0) pixels[to] = ink | (alpha << 24)
        else {
          const seen = alpha + below * (1 - alpha / 255)
          const share = alpha / seen
          const at = 4 * to
          bytes[at] = bytes[at]! + (r - bytes[at]!) * share
          bytes[at + 1] = bytes[at + 1]! + (g - bytes[at + 1]!) * share
          bytes[at + 2] = bytes[at + 2]! + (b - bytes[at + 2]!) * share
          bytes[at + 3] = seen
        }
      }
    }
  }
}
