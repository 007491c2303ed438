// Draws points with WebGL2, each with a position, a colour code and a state.  Independent of clips, views and events.
//
//   xy      Float32Array, x and y for each point, in map coordinates
//   codes   Uint16Array, index of each point's colour in the palette; 0: no value
//   states  Uint8Array: BRIGHT, DIM or HIDDEN

export const BRIGHT = 0, DIM = 1, HIDDEN = 2;
const PALETTE_WIDTH = 256;

const VERTEX = `#version 300 es
layout(location = 0) in vec2 before;
layout(location = 1) in vec2 after;
layout(location = 2) in uint code;
layout(location = 3) in uint state;
uniform vec2 scale, offset;
uniform float size, moved;
uniform uint wanted;
uniform highp sampler2D palette;
flat out vec4 colour;
void main() {
  if (state != wanted) { gl_Position = vec4(2.0, 2.0, 2.0, 1.0); gl_PointSize = 0.0; return; }
  gl_Position = vec4(mix(before, after, moved) * scale + offset, 0.0, 1.0);
  gl_PointSize = size;
  colour = texelFetch(palette, ivec2(int(code) % ${PALETTE_WIDTH}, int(code) / ${PALETTE_WIDTH}), 0);
}`;

const FRAGMENT = `#version 300 es
precision highp float;
flat in vec4 colour;
uniform float alpha, size;
out vec4 drawn;
void main() {
  float cover = 1.0;
  if (size > 2.5) {                                    // smaller points are squares, indistinguishable from discs
    float away = length(gl_PointCoord - 0.5) * size;
    cover = clamp(size * 0.5 - away + 0.25, 0.0, 1.0);
    if (cover == 0.0) discard;
  }
  float strength = alpha * cover * colour.a;
  drawn = vec4(colour.rgb * strength, strength);
}`;

export class PointRenderer {
  constructor(canvas) {
    this.canvas = canvas;
    this.gl = canvas.getContext("webgl2", { antialias: false, powerPreference: "high-performance" });
    if (!this.gl) throw new Error("This browser has no WebGL 2, by which the map is drawn: turn on graphics acceleration, or use a current Firefox, Chrome or Safari.");
    this.count = 0;
    this.masked = false;
    this.kept = {};
    canvas.addEventListener("webglcontextlost", (event) => event.preventDefault());
    canvas.addEventListener("webglcontextrestored", () => { this.prepare(); this.restore(); });
    this.prepare();
  }

  prepare() {
    const gl = this.gl;
    const program = gl.createProgram();
    for (const [kind, source] of [[gl.VERTEX_SHADER, VERTEX], [gl.FRAGMENT_SHADER, FRAGMENT]]) {
      const shader = gl.createShader(kind);
      gl.shaderSource(shader, source);
      gl.compileShader(shader);
      gl.attachShader(program, shader);
    }
    gl.linkProgram(program);
    if (!gl.getProgramParameter(program, gl.LINK_STATUS) && !gl.isContextLost()) throw new Error(gl.getProgramInfoLog(program));
    gl.useProgram(program);
    this.at = Object.fromEntries(
      ["scale", "offset", "size", "moved", "wanted", "alpha"].map((name) => [name, gl.getUniformLocation(program, name)]));
    this.buffers = [0, 1, 2, 3].map((location) => {
      const buffer = gl.createBuffer();
      gl.bindBuffer(gl.ARRAY_BUFFER, buffer);
      gl.enableVertexAttribArray(location);
      if (location < 2) gl.vertexAttribPointer(location, 2, gl.FLOAT, false, 0, 0);
      else gl.vertexAttribIPointer(location, 1, location === 2 ? gl.UNSIGNED_SHORT : gl.UNSIGNED_BYTE, 0, 0);
      return buffer;
    });
    this.texture = gl.createTexture();
    gl.bindTexture(gl.TEXTURE_2D, this.texture);
    gl.texParameteri(gl.TEXTURE_2D, gl.TEXTURE_MIN_FILTER, gl.NEAREST);
    gl.texParameteri(gl.TEXTURE_2D, gl.TEXTURE_MAG_FILTER, gl.NEAREST);
    this.setPalette(new Uint8Array([120, 130, 145, 200]));           // until colours arrive
    gl.enable(gl.BLEND);
    gl.blendFunc(gl.ONE, gl.ONE_MINUS_SRC_ALPHA);
    gl.clearColor(0, 0, 0, 0);
  }

  restore() {
    const { before, after, codes, states, palette } = this.kept;
    if (after) this.setPoints(after, before);
    if (codes) this.setCodes(codes);
    if (palette) this.setPalette(palette);
    if (states) this.setStates(states);
    this.onrestored?.();
  }

  upload(location, data) {
    const gl = this.gl;
    gl.bindBuffer(gl.ARRAY_BUFFER, this.buffers[location]);
    gl.bufferData(gl.ARRAY_BUFFER, data, gl.STATIC_DRAW);
  }

  // `before`: starting positions when points move; of equal length.
  setPoints(after, before = null) {
    const count = after.length / 2;
    this.kept.after = after;
    this.kept.before = before;
    this.upload(1, after);
    this.upload(0, before ?? after);
    if (count !== this.count) {
      this.count = count;
      this.setCodes(new Uint16Array(count));
      this.setStates(null);
    }
  }

  setCodes(codes) {
    this.kept.codes = codes;
    this.upload(2, codes);
  }

  setStates(states) {
    this.masked = states !== null;
    this.kept.states = states;
    this.upload(3, states ?? new Uint8Array(this.count));
  }

  // Set the palette: a Uint8Array of RGBA, four bytes a colour.
  setPalette(palette) {
    const gl = this.gl, height = Math.max(1, Math.ceil(palette.length / 4 / PALETTE_WIDTH));
    const padded = new Uint8Array(4 * PALETTE_WIDTH * height);
    padded.set(palette);
    this.kept.palette = palette;
    gl.bindTexture(gl.TEXTURE_2D, this.texture);
    gl.texImage2D(gl.TEXTURE_2D, 0, gl.RGBA, PALETTE_WIDTH, height, 0, gl.RGBA, gl.UNSIGNED_BYTE, padded);
  }

  // scale and offset map coordinates to [-1, 1]; size is in device pixels; only the first `count` points are drawn.
  draw({ scale, offset, size, alpha, dim, moved = 1, count = this.count }) {
    const gl = this.gl;
    gl.viewport(0, 0, this.canvas.width, this.canvas.height);
    gl.clear(gl.COLOR_BUFFER_BIT);
    gl.uniform2f(this.at.scale, ...scale);
    gl.uniform2f(this.at.offset, ...offset);
    gl.uniform1f(this.at.moved, moved);
    for (const [wanted, strength, factor] of this.masked ? [[DIM, dim, 0.8], [BRIGHT, alpha, 1.15]] : [[BRIGHT, alpha, 1]]) {
      gl.uniform1ui(this.at.wanted, wanted);
      gl.uniform1f(this.at.alpha, strength);
      gl.uniform1f(this.at.size, Math.max(1, size * factor));
      gl.drawArrays(gl.POINTS, 0, Math.min(count, this.count));
    }
  }

  free() {
    this.gl.getExtension("WEBGL_lose_context")?.loseContext();
  }
}
