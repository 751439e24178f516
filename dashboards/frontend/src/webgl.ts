/** Points by the graphics card: positions are uploaded once, and moving the view changes six numbers. */
import type { Range } from "./scale";

const VERTEX = `#version 300 es
precision highp float;
in float x; in float y; in float c;
uniform vec4 view;      // centre and half width of both axes
uniform vec2 logs;      // 1 where an axis is logarithmic
uniform vec2 colors;    // low and high of the colour, equal where there is none
uniform float size;
out float shade;
float place(float v, float isLog) { return isLog > 0.5 ? log(v) / 2.302585093 : v; }
void main() {
  vec2 p = vec2(place(x, logs.x), place(y, logs.y));
  bool bad = (logs.x > 0.5 && x <= 0.0) || (logs.y > 0.5 && y <= 0.0);
  gl_Position = bad ? vec4(2.0, 2.0, 0.0, 1.0) : vec4((p - view.xy) / view.zw, 0.0, 1.0);
  gl_PointSize = size;
  shade = colors.y > colors.x ? clamp((c - colors.x) / (colors.y - colors.x), 0.0, 1.0) : -1.0;
}`;

const FRAGMENT = `#version 300 es
precision mediump float;
in float shade;
uniform vec4 plain;
out vec4 color;
vec3 scale(float t) {   // dark blue, teal, yellow
  vec3 a = vec3(0.23, 0.20, 0.62); vec3 b = vec3(0.10, 0.62, 0.60); vec3 d = vec3(0.98, 0.80, 0.18);
  return t < 0.5 ? mix(a, b, t * 2.0) : mix(b, d, t * 2.0 - 1.0);
}
void main() {
  vec2 p = gl_PointCoord * 2.0 - 1.0;
  float r = dot(p, p);
  if (r > 1.0) discard;
  vec3 rgb = shade < 0.0 ? plain.rgb : scale(shade);
  float alpha = plain.a * smoothstep(1.0, 0.6, r);
  color = vec4(rgb * alpha, alpha);
}`;

export const SCALE_COLORS = ["rgb(59,51,158)", "rgb(26,158,153)", "rgb(250,204,46)"];

export interface Columns {
  x: Float32Array;
  y: Float32Array;
  c: Float32Array;
}

export interface View {
  x: Range;
  y: Range;
  xLog: boolean;
  yLog: boolean;
  colors: [number, number];
  size: number;
  plain: [number, number, number, number];
  /** Left, bottom, width and height of the plotting area in device pixels. */
  area: [number, number, number, number];
}

/** The numbers below n in an order that looks random and is always the same. */
function shuffled(n: number): Uint32Array {
  const order = Uint32Array.from({ length: n }, (_, i) => i);
  let state = 1;
  for (let i = n - 1; i > 0; i--) {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    const other = Math.floor((state / 2 ** 32) * (i + 1));
    const kept = order[i]!;
    order[i] = order[other]!;
    order[other] = kept;
  }
  return order;
}

export class PointRenderer {
  private readonly gl: WebGL2RenderingContext;
  private readonly program: WebGLProgram;
  private readonly buffers: WebGLBuffer[] = [];
  private readonly places: Record<string, WebGLUniformLocation | null> = {};
  count = 0;

  /** Null where the browser has no WebGL 2. */
  static on(canvas: HTMLCanvasElement): PointRenderer | null {
    const gl = canvas.getContext("webgl2", { antialias: false, premultipliedAlpha: true });
    return gl ? new PointRenderer(gl) : null;
  }

  private constructor(gl: WebGL2RenderingContext) {
    this.gl = gl;
    this.program = gl.createProgram();
    for (const [kind, source] of [
      [gl.VERTEX_SHADER, VERTEX],
      [gl.FRAGMENT_SHADER, FRAGMENT],
    ] as const) {
      const shader = gl.createShader(kind);
      if (!shader) continue;
      gl.shaderSource(shader, source);
      gl.compileShader(shader);
      gl.attachShader(this.program, shader);
    }
    gl.linkProgram(this.program);
    gl.useProgram(this.program);
    for (const name of ["x", "y", "c"]) {
      const buffer = gl.createBuffer();
      const at = gl.getAttribLocation(this.program, name);
      gl.bindBuffer(gl.ARRAY_BUFFER, buffer);
      gl.enableVertexAttribArray(at);
      gl.vertexAttribPointer(at, 1, gl.FLOAT, false, 0, 0);
      this.buffers.push(buffer);
    }
    for (const name of ["view", "logs", "colors", "size", "plain"]) this.places[name] = gl.getUniformLocation(this.program, name);
    gl.enable(gl.BLEND);
    gl.blendFunc(gl.ONE, gl.ONE_MINUS_SRC_ALPHA);
    gl.enable(gl.SCISSOR_TEST);
  }

  load(columns: Columns): void {
    const { gl } = this;
    this.count = columns.x.length;
    const order = shuffled(this.count);
    [columns.x, columns.y, columns.c].forEach((values, i) => {
      gl.bindBuffer(gl.ARRAY_BUFFER, this.buffers[i] ?? null);
      gl.bufferData(gl.ARRAY_BUFFER, Float32Array.from(order, (place) => values[place]!), gl.STATIC_DRAW);
    });
  }

  /** Draws at most so many points: the first ones, which are a random sample of all. */
  draw(view: View, most: number): void {
    const { gl } = this;
    const at = (name: string) => this.places[name] ?? null;
    gl.scissor(0, 0, gl.drawingBufferWidth, gl.drawingBufferHeight);
    gl.clearColor(0, 0, 0, 0);
    gl.clear(gl.COLOR_BUFFER_BIT);
    if (!this.count) return;
    const [left, bottom, width, height] = view.area;
    gl.viewport(left, bottom, width, height);
    gl.scissor(left, bottom, width, height);
    const half = (r: Range) => (r.high - r.low) / 2;
    gl.uniform4f(at("view"), view.x.low + half(view.x), view.y.low + half(view.y), half(view.x), half(view.y));
    gl.uniform2f(at("logs"), view.xLog ? 1 : 0, view.yLog ? 1 : 0);
    gl.uniform2f(at("colors"), ...view.colors);
    gl.uniform1f(at("size"), view.size);
    gl.uniform4f(at("plain"), ...view.plain);
    gl.drawArrays(gl.POINTS, 0, Math.min(this.count, most));
  }

  /** Gives the context back: browsers allow few of them. */
  release(): void {
    this.gl.getExtension("WEBGL_lose_context")?.loseContext();
  }
}
