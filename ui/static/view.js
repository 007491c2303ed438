// The view: its centre in map coordinates, and pixels per unit.  Also draws the overlay above the points.

import { drawLabels } from "./map_labels.js";

export class View {
  constructor() { this.x = 0; this.y = 0; this.zoom = 1; this.width = 1; this.height = 1; this.home = 1; }

  fit({ left, right, low, high }, margin = 0.06) {
    const room = 1 - 2 * margin;
    this.zoom = Math.min(this.width * room / Math.max(right - left, 1e-6), this.height * room / Math.max(high - low, 1e-6));
    this.x = (left + right) / 2;
    this.y = (low + high) / 2;
  }

  toScreen(x, y) { return [this.width / 2 + (x - this.x) * this.zoom, this.height / 2 - (y - this.y) * this.zoom]; }
  toMap(px, py) { return [this.x + (px - this.width / 2) / this.zoom, this.y - (py - this.height / 2) / this.zoom]; }
  moveBy(dx, dy) { this.x -= dx / this.zoom; this.y += dy / this.zoom; }

  zoomAt(px, py, factor) {
    const [x, y] = this.toMap(px, py);
    this.zoom = Math.min(Math.max(this.zoom * factor, this.home * 0.3), this.home * 3000);
    this.x = x - (px - this.width / 2) / this.zoom;
    this.y = y + (py - this.height / 2) / this.zoom;
  }

  // Whether a place is in view, and not at its very edge.
  shows(x, y) {
    const [px, py] = this.toScreen(x, y);
    return px > 20 && py > 20 && px < this.width - 20 && py < this.height - 20;
  }

  // Scale and offset for the renderer: map coordinates to [-1, 1].
  transform() {
    const scale = [2 * this.zoom / this.width, 2 * this.zoom / this.height];
    return { scale, offset: [-this.x * scale[0], -this.y * scale[1]] };
  }
}

// Size and opacity of points: the more of them on one screen, the smaller and more transparent.
export function pointStyle(count, view, ratio) {
  const nearer = view.zoom / view.home;
  const size = Math.min(Math.max(60 / Math.max(count, 1) ** 0.28, 1.2) * Math.max(1, nearer) ** 0.35, 13);
  const shown = count / Math.max(1, nearer) ** 2, room = 0.2 * view.width * view.height;
  const alpha = Math.min(0.9, Math.max(0.22, room / Math.max(shown * size * size, 1)));
  return { size: Math.min(size, 9 + nearer) * ratio, alpha };
}

// Draw rings, lines, names and the lasso, without redrawing the points.
export function drawOverlay(context, view, ratio, { picked, near, hovered, sounding, labels, lasso, ink, ground, accent, font }) {
  context.setTransform(ratio, 0, 0, ratio, 0, 0);
  context.clearRect(0, 0, view.width, view.height);
  if (picked && near.length) {
    context.strokeStyle = accent;
    context.globalAlpha = 0.35;
    context.lineWidth = 1;
    context.beginPath();
    for (const one of near) { context.moveTo(...view.toScreen(...picked)); context.lineTo(...view.toScreen(...one)); }
    context.stroke();
    context.globalAlpha = 1;
  }
  const ring = (place, radius, width, colour) => {
    for (const [stroke, thick] of [[ground, width + 2], [colour, width]]) {
      context.beginPath();
      context.arc(...view.toScreen(...place), radius, 0, 2 * Math.PI);
      context.strokeStyle = stroke;
      context.lineWidth = thick;
      context.stroke();
    }
  };
  for (const one of near) ring(one, 5, 1.5, accent);
  if (hovered) ring(hovered, 6, 1.5, ink);
  if (sounding) ring(sounding, 12, 2, ink);
  if (picked) ring(picked, 8, 2.5, accent);
  drawLabels(context, view, labels, { ink, ground, font });
  if (lasso.length > 1) {
    context.beginPath();
    lasso.forEach((corner, i) => context[i ? "lineTo" : "moveTo"](...view.toScreen(...corner)));
    context.closePath();
    context.globalAlpha = 0.12;
    context.fillStyle = accent;
    context.fill();
    context.globalAlpha = 1;
    context.strokeStyle = accent;
    context.lineWidth = 1.5;
    context.setLineDash([5, 4]);
    context.stroke();
    context.setLineDash([]);
  }
}
