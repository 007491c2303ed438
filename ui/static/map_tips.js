// The names beside a point under the pointer.

import { askJson, element, placeOf, titleOf } from "./parts.js";

const WIDTH_PX = 220, HEIGHT_PX = 60;    // room that is kept for a tip at the edges

export class Tips {
  constructor(map) {
    this.map = map;
    this.tip = map.find(".tip");
    this.known = new Map();              // promises of clips, by row
  }

  clear() { this.known.clear(); }

  // The clip of a row.  The promise is kept, so that a click uses the request that was made on hover.
  async clipAt(row) {
    if (!this.known.has(row)) {
      const answer = askJson(`${this.map.data.base}/point?row=${row}`);
      answer.catch(() => this.known.delete(row));
      this.known.set(row, answer);
    }
    return this.known.get(row);
  }

  async show(row) {
    const { map, tip } = this;
    if (row < 0) { tip.style.display = "none"; return; }
    try {
      const clip = await this.clipAt(row);
      if (map.hovered !== row) return;
      tip.replaceChildren(element("b", { text: titleOf(clip) }), element("span", { text: placeOf(clip) }));
      tip.style.display = map.root.classList.contains("over") ? "block" : "none";
    } catch { /* no names for this point; the next request may succeed */ }
  }

  moveTo(x, y) {
    this.tip.style.left = `${Math.max(0, Math.min(x + 14, this.map.view.width - WIDTH_PX))}px`;
    this.tip.style.top = `${Math.max(0, Math.min(y + 14, this.map.view.height - HEIGHT_PX))}px`;
  }
}
