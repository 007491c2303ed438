// The spectrogram of a clip over pitch: parts are requested as they come into view, and drawn from the page's colour to the text's.

import { askBytes, element } from "./player.js";

const KEPT_PARTS = 24;
const RANGE = 50 * 127.5 / 40;           // levels in 50 dB, which are shown below the loudest
const QUIETEST = 95;                     // level of -50 dB; quieter clips are not raised to full contrast

export class Spectrogram {
  // `changed` receives the number of parts that have arrived, `say` a message if one cannot be had.
  constructor(changed, say) {
    [this.changed, this.say] = [changed, say];
    this.parts = new Map();
  }

  // `grid`: sizes of the parts, as of `pitch_spectrogram.grid_of`.
  open(clip, grid) {
    this.parts.clear();
    [this.clip, this.grid, this.loudest] = [clip, grid, QUIETEST];
  }

  colour(ground, ink, strength) {
    Object.assign(this, { ground, ink, strength });
    this.fade();
  }

  // Discard the pictures, whose colours have changed.
  fade() {
    for (const part of this.parts.values()) part.picture = null;
  }

  // Draw the pitches from `low` to `high`, `row` pixels each, below `top`; `x` places a time.
  draw(pen, { low, high, top, row, from, until, x }) {
    const { grid } = this, first = Math.floor(from / grid.part_s), last = Math.min(grid.parts - 1, Math.floor(until / grid.part_s));
    const above = grid.highest - high, skipped = Math.max(0, above) * grid.per_pitch;
    const rows = grid.bins - skipped - Math.max(0, low - grid.lowest) * grid.per_pitch;
    if (rows <= 0) return;
    for (let number = first; number <= last; number++) {
      const part = this.part(number);
      if (!part.columns) continue;
      part.picture ??= this.picture(part);
      const start = x(number * grid.part_s), end = x(number * grid.part_s + part.columns * grid.column_s);
      pen.drawImage(part.picture, 0, skipped, part.columns, rows, start, top + Math.max(0, -above) * row, end - start, rows / grid.per_pitch * row);
    }
  }

  // One part, which is requested the first time.  The part that was used least recently is dropped.
  part(number) {
    const { clip } = this, part = this.parts.get(number) ?? {}, known = this.parts.delete(number);
    this.parts.set(number, part);
    if (known) return part;
    if (this.parts.size > KEPT_PARTS) this.parts.delete(this.parts.keys().next().value);
    askBytes(`/tonelake/roll/${encodeURIComponent(clip)}/${number}`).then(({ buffer }) => {
      if (this.clip !== clip) return;
      part.levels = new Uint8Array(buffer);
      part.columns = part.levels.length / this.grid.bins;
      const loudest = percentile(part.levels, 0.998);
      if (loudest > this.loudest) {
        this.loudest = loudest;
        this.fade();
      }
      this.changed([...this.parts.values()].filter((one) => one.levels).length);
    }).catch((error) => { if (this.clip === clip) this.say(error.message); });
    return part;
  }

  // Levels as a picture; the highest bin is at the top.
  picture({ levels, columns }) {
    const { bins } = this.grid, palette = new Uint32Array(256), bytes = new Uint8Array(palette.buffer);
    for (let level = 0; level < 256; level++) {
      const share = this.strength * Math.min(Math.max((level - this.loudest + RANGE) / RANGE, 0), 1) ** 1.5;
      bytes.set([...this.ground.map((value, i) => Math.round(value + (this.ink[i] - value) * share)), 255], 4 * level);
    }
    const made = element("canvas", { width: columns, height: bins }), pen = made.getContext("2d");
    const image = pen.createImageData(columns, bins), pixels = new Uint32Array(image.data.buffer);
    for (let column = 0; column < columns; column++) {
      for (let bin = 0; bin < bins; bin++) pixels[(bins - 1 - bin) * columns + column] = palette[levels[column * bins + bin]];
    }
    pen.putImageData(image, 0, 0);
    return made;
  }
}

function percentile(levels, share) {
  const counts = new Uint32Array(256);
  for (const level of levels) counts[level]++;
  let rest = (1 - share) * levels.length;
  for (let level = 255; level > 0; level--) if ((rest -= counts[level]) < 0) return level;
  return 0;
}
