// Nearest-point lookup: points are sorted into square cells once; each query then scans a few cells.

const POINTS_A_CELL = 8;

export class Grid {
  constructor(xy) {
    const count = xy.length / 2;
    this.xy = xy;
    this.side = Math.max(1, Math.min(2048, Math.ceil(Math.sqrt(count / POINTS_A_CELL))));
    this.bounds = boundsOf(xy);
    this.cell = Math.max(this.bounds.right - this.bounds.left, this.bounds.high - this.bounds.low, 1e-9) / this.side * 1.000001;
    const cells = new Uint32Array(count);
    this.starts = new Uint32Array(this.side * this.side + 1);
    for (let i = 0; i < count; i++) {
      cells[i] = this.row(xy[2 * i + 1]) * this.side + this.column(xy[2 * i]);
      this.starts[cells[i] + 1]++;
    }
    for (let i = 0; i < this.side * this.side; i++) this.starts[i + 1] += this.starts[i];
    const next = this.starts.slice();
    this.order = new Uint32Array(count);
    for (let i = 0; i < count; i++) this.order[next[cells[i]]++] = i;
  }

  column(x) { return Math.min(this.side - 1, Math.max(0, Math.floor((x - this.bounds.left) / this.cell))); }
  row(y) { return Math.min(this.side - 1, Math.max(0, Math.floor((y - this.bounds.low) / this.cell))); }

  // Return the point nearest to (x, y) within a radius for which `allowed` is true, or -1.
  nearest(x, y, radius, allowed = () => true) {
    let found = -1, best = radius * radius;
    const last = this.column(x + radius), top = this.row(y + radius);
    for (let row = this.row(y - radius); row <= top; row++) {
      for (let column = this.column(x - radius); column <= last; column++) {
        const cell = row * this.side + column;
        for (let i = this.starts[cell]; i < this.starts[cell + 1]; i++) {
          const point = this.order[i], dx = this.xy[2 * point] - x, dy = this.xy[2 * point + 1] - y;
          const away = dx * dx + dy * dy;
          if (away < best && allowed(point)) { best = away; found = point; }
        }
      }
    }
    return found;
  }

  // Points within a rectangle, in no order; null if there are more than `most`.
  inside({ left, right, low, high }, most) {
    const found = [], last = this.column(right), top = this.row(high);
    for (let row = this.row(low); row <= top; row++) {
      for (let column = this.column(left); column <= last; column++) {
        const cell = row * this.side + column;
        for (let i = this.starts[cell]; i < this.starts[cell + 1]; i++) {
          const point = this.order[i], x = this.xy[2 * point], y = this.xy[2 * point + 1];
          if (x >= left && x <= right && y >= low && y <= high && found.push(point) > most) return null;
        }
      }
    }
    return found;
  }
}

// Bounding box of points.
export function boundsOf(xy) {
  let left = Infinity, right = -Infinity, low = Infinity, high = -Infinity;
  for (let i = 0; i < xy.length; i += 2) {
    if (xy[i] < left) left = xy[i];
    if (xy[i] > right) right = xy[i];
    if (xy[i + 1] < low) low = xy[i + 1];
    if (xy[i + 1] > high) high = xy[i + 1];
  }
  return xy.length ? { left, right, low, high } : { left: -1, right: 1, low: -1, high: 1 };
}

// Simplify a line to within `close` of the original (Ramer 1972; Douglas and Peucker 1973).
export function fewer(line, close) {
  if (line.length < 3) return line;
  const [first, last] = [line[0], line.at(-1)], dx = last[0] - first[0], dy = last[1] - first[1], length = Math.hypot(dx, dy);
  let far = -1, at = 0;
  for (let i = 1; i < line.length - 1; i++) {
    const [x, y] = [line[i][0] - first[0], line[i][1] - first[1]];
    const away = length ? Math.abs(x * dy - y * dx) / length : Math.hypot(x, y);
    if (away > far) [far, at] = [away, i];
  }
  if (far <= close) return [first, last];
  return [...fewer(line.slice(0, at + 1), close).slice(0, -1), ...fewer(line.slice(at), close)];
}

// Points inside a polygon ([[x, y], …]) as a Uint8Array of 0 and 1, by counting the edges to the right of each point.
export function within(xy, polygon) {
  const inside = new Uint8Array(xy.length / 2), corners = polygon.length;
  const xs = polygon.map((corner) => corner[0]), ys = polygon.map((corner) => corner[1]);
  const left = Math.min(...xs), right = Math.max(...xs), low = Math.min(...ys), high = Math.max(...ys);
  for (let i = 0; i < inside.length; i++) {
    const x = xy[2 * i], y = xy[2 * i + 1];
    if (x < left || x > right || y < low || y > high) continue;
    let odd = 0;
    for (let a = 0, b = corners - 1; a < corners; b = a++) {
      if (ys[a] > y !== ys[b] > y && x < (xs[b] - xs[a]) * (y - ys[a]) / (ys[b] - ys[a]) + xs[a]) odd ^= 1;
    }
    inside[i] = odd;
  }
  return inside;
}
