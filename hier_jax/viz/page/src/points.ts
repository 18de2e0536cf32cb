// All images as points: by WebGL2, or where there is none on a plain canvas.

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

export interface Frame {
  // Pixels of the canvas, and of the radius of the disk.
  readonly width: number
  readonly height: number
  readonly radius: number
  // Diameters of points at the edge and in the center.
  readonly sizes: readonly [number, number]
}

export interface Points {
  paint(rgb: Uint8Array, alpha: Uint8Array, hollow: Uint8Array<ArrayBuffer>): void
  draw(places: Float32Array, frame: Frame): void
}

export function points(canvas: HTMLCanvasElement, count: number): Points {
  const gl = canvas.getContext('webgl2', {
    alpha: true,
    antialias: false,
    depth: false,
    premultipliedAlpha: true,
  })
  if (gl === null) return new Plain(canvas.getContext('2d')!, count)
  return new Fast(gl, count)
}

class Fast implements Points {
  private program: WebGLProgram | null = null
  private buffers: WebGLBuffer[] = []
  private colors: Uint8Array<ArrayBuffer> = new Uint8Array(0)
  private hollow: Uint8Array<ArrayBuffer> = new Uint8Array(0)

  constructor(
    private readonly gl: WebGL2RenderingContext,
    private readonly count: number,
  ) {
    const canvas = gl.canvas as HTMLCanvasElement
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

  paint(rgb: Uint8Array, alpha: Uint8Array, hollow: Uint8Array<ArrayBuffer>): void {
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

class Plain implements Points {
  private colors: string[] = []
  private alpha: Uint8Array = new Uint8Array(0)

  constructor(
    private readonly context: CanvasRenderingContext2D,
    private readonly count: number,
  ) {}

  paint(rgb: Uint8Array, alpha: Uint8Array): void {
    this.alpha = alpha
    this.colors = Array.from(
      { length: this.count },
      (_, i) => `rgb(${rgb.subarray(3 * i, 3 * i + 3).join(' ')})`,
    )
  }

  draw(places: Float32Array, frame: Frame): void {
    const { context } = this
    const { width, height, radius, sizes } = frame
    context.clearRect(0, 0, width, height)
    for (let i = 0; i < this.count; i++) {
      const x = places[2 * i]!
      const y = places[2 * i + 1]!
      const near = Math.sqrt(Math.max(0, 1 - x * x - y * y))
      const size = Math.max(sizes[0], sizes[1] * near)
      context.globalAlpha = this.alpha[i]! / 255
      context.fillStyle = this.colors[i]!
      context.fillRect(
        width / 2 + radius * x - size / 2,
        height / 2 - radius * y - size / 2,
        size,
        size,
      )
    }
  }
}
