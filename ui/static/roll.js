// A piano roll over the spectrogram of a clip.  Space plays, a click or the arrows seek, a drag moves, + and − zoom.

import { clock, element, joinPlayers, mountable, play } from "./player.js";
import { Spectrogram } from "./spectrogram.js";

const GUTTER = 46, AXIS = 18, LANE = 19; // pixels: names of pitches, times below, a row of labels above
const NAMES = ["C", "C♯", "D", "E♭", "E", "F", "F♯", "G", "A♭", "A", "B♭", "B"];
const SHORTEST_S = 1, LONGEST_S = 120;   // of the time that is shown at once
const STEPS_S = [0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 30, 60];
const STYLES = getComputedStyle;

export const pitchName = (pitch) => `${NAMES[((Math.round(pitch) % 12) + 12) % 12]}${Math.floor(Math.round(pitch) / 12) - 1}`;

class Roll {
  constructor(host) {
    const find = (selector) => host.querySelector(selector);
    this.root = find(".roll");
    [this.view, this.canvas, this.head, this.scroll] = [".view", "canvas", ".head", ".scroll"].map(find);
    this.audio = find("audio");
    joinPlayers(this.audio);
    this.at = 0;
    this.off = new Set();                // layers that are hidden
    this.spectrogram = new Spectrogram((parts) => { this.root.dataset.parts = String(parts); this.draw(); }, (sentence) => this.say(sentence));
    find(".play").onclick = () => this.toggle();
    find(".in").onclick = () => this.zoom(0.5);
    find(".out").onclick = () => this.zoom(2);
    this.scroll.oninput = () => this.show(Number(this.scroll.value));
    this.view.onkeydown = (event) => this.key(event);
    this.view.onpointerdown = (event) => this.press(event);
    this.view.onpointermove = (event) => this.point(event);
    this.view.onpointerleave = () => this.read(null);
    this.view.addEventListener("wheel", (event) => this.wheel(event), { passive: false });
    for (const kind of ["play", "pause", "ended", "seeked", "timeupdate"]) this.audio.addEventListener(kind, () => this.follow());
    this.resize = new ResizeObserver(() => this.data && this.draw());
    this.resize.observe(this.view);
  }

  update({ data }) {
    const text = JSON.stringify(data);
    if (text !== this.shown) {
      if (this.data?.clip !== data.clip) this.open(data);
      this.shown = text;
      this.data = data;
      this.span = Math.min(Math.max(this.span, SHORTEST_S), this.longest());
      this.legend();
    }
    this.theme();
    this.show(this.from);
    this.marks();
  }

  open(data) {
    this.audio.pause();
    this.audio.removeAttribute("src");
    delete this.audio.dataset.clip;
    this.spectrogram.open(data.clip, data.spectrogram);
    [this.at, this.from] = [0, 0];
    this.span = Math.min(data.duration, Math.max(4, (this.view.clientWidth || 900) / 75));
    this.say("");
  }

  longest() {
    return Math.max(Math.min(this.data.duration, LONGEST_S), Math.min(this.data.duration, SHORTEST_S));
  }

  say(sentence) {
    this.root.querySelector(".trouble").textContent = sentence;
  }

  // -- colours and legend

  theme() {
    const style = STYLES(this.root), one = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
    const bytes = (colour) => {
      one.fillStyle = "#000";
      one.fillStyle = colour;
      one.fillRect(0, 0, 1, 1);
      return [...one.getImageData(0, 0, 1, 1).data.slice(0, 3)];
    };
    const ground = bytes(style.getPropertyValue("--st-background-color").trim() || "#fff");
    const ink = bytes(style.getPropertyValue("--st-text-color").trim() || "#000");
    const dark = ground[0] * 0.3 + ground[1] * 0.6 + ground[2] * 0.1 < 128;
    this.root.classList.toggle("dark", dark);
    const [reference, predicted] = ["--reference", "--predicted"].map((name) => STYLES(this.root).getPropertyValue(name).trim());
    const key = [ground, ink].join();
    if (this.colours?.key !== key) this.spectrogram.colour(ground, ink, dark ? 0.7 : 0.6);
    this.colours = { key, ink, reference, predicted };
  }

  legend() {
    const layers = [];
    for (const side of this.data.sides) {
      const title = side.name === "reference" ? `Labels (${side.label})` : `Predicted (${side.label})`;
      layers.push([side.name, title, element("i", { className: `swatch ${side.name}` })]);
    }
    const has = (test) => this.data.sides.some(test);
    if (has((side) => side.beats.time.length)) layers.push(["beats", "Beats"]);
    if (has((side) => side.onsets.length)) layers.push(["onsets", "Onsets"]);
    if (has((side) => side.spans.length)) layers.push(["spans", "Chords, keys, sections"]);
    layers.push(["spectrogram", "Spectrogram"]);
    this.root.querySelector(".toggles").replaceChildren(...layers.map(([name, title, swatch]) => {
      const box = element("input", { type: "checkbox", checked: !this.off.has(name) });
      box.dataset.layer = name;
      box.onchange = () => { this.off[box.checked ? "delete" : "add"](name); this.draw(); };
      return element("label", { title, children: [box, ...(swatch ? [swatch] : []), element("span", { text: title })] });
    }));
  }

  // -- the part of the clip that is shown

  show(from) {
    this.from = Math.min(Math.max(from, 0), Math.max(0, this.data.duration - this.span));
    this.scroll.max = String(Math.max(0, this.data.duration - this.span));
    this.scroll.value = String(this.from);
    this.scroll.style.display = this.span < this.data.duration - 0.01 ? "" : "none";
    this.draw();
  }

  zoom(factor, around = this.at) {
    const share = around >= this.from && around <= this.from + this.span ? (around - this.from) / this.span : 0.5;
    const middle = this.from + share * this.span;
    this.span = Math.min(Math.max(this.span * factor, Math.min(SHORTEST_S, this.data.duration)), this.longest());
    this.show(middle - share * this.span);
  }

  wheel(event) {
    if (event.ctrlKey) this.zoom(event.deltaY > 0 ? 1.2 : 1 / 1.2, this.timeAt(event));
    else if (event.shiftKey || Math.abs(event.deltaX) > Math.abs(event.deltaY)) {
      this.show(this.from + (event.deltaX || event.deltaY) * this.span / this.width());
    } else return;
    event.preventDefault();
  }

  width() {
    return Math.max(1, this.view.clientWidth - GUTTER);
  }

  x(time) {
    return GUTTER + (time - this.from) / this.span * this.width();
  }

  timeAt(event) {
    const left = event.clientX - this.view.getBoundingClientRect().left - GUTTER;
    return Math.min(Math.max(this.from + left / this.width() * this.span, 0), this.data.duration);
  }

  // -- pointer and keys

  press(event) {
    if (event.button) return;
    const start = event.clientX, from = this.from;
    let moved = false;
    this.view.setPointerCapture(event.pointerId);
    const move = (next) => {
      moved ||= Math.abs(next.clientX - start) > 4;
      if (moved) this.show(from - (next.clientX - start) * this.span / this.width());
    };
    const stop = (last) => {
      for (const kind of ["pointermove", "pointerup", "pointercancel"]) this.view.removeEventListener(kind, kind === "pointermove" ? move : stop);
      if (!moved && last.type === "pointerup") this.seek(this.timeAt(last));
    };
    this.view.addEventListener("pointermove", move);
    for (const kind of ["pointerup", "pointercancel"]) this.view.addEventListener(kind, stop);
  }

  key(event) {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const step = { ArrowRight: 1, ArrowLeft: -1, ArrowUp: 1, ArrowDown: -1 }[event.key];
    if (step) this.seek(this.at + step * (event.shiftKey ? 5 : 1));
    else if (event.key === "PageUp" || event.key === "PageDown") this.seek(this.at + (event.key === "PageUp" ? 1 : -1) * this.span);
    else if (event.key === "Home") this.seek(0);
    else if (event.key === "End") this.seek(this.data.duration);
    else if (event.key === " ") this.toggle();
    else if (event.key === "+" || event.key === "=") this.zoom(0.5);
    else if (event.key === "-") this.zoom(2);
    else return;
    event.preventDefault();
    event.stopPropagation();
  }

  // -- playing

  toggle() {
    if (!this.audio.paused) return this.audio.pause();
    const from = this.at >= this.data.duration - 0.05 ? 0 : this.at;
    play(this.audio, this.data.clip, (sentence) => this.say(sentence));
    this.jump(from);
  }

  seek(time) {
    this.at = Math.min(Math.max(time, 0), this.data.duration);
    if (this.audio.dataset.clip === this.data.clip) this.jump(this.at);
    this.reveal();
    this.marks();
  }

  jump(time) {
    this.wanted = time;
    const go = () => { if (this.wanted === time) { this.audio.currentTime = time; this.wanted = null; } };
    if (this.audio.readyState > 0) go(); else this.audio.addEventListener("loadedmetadata", go, { once: true });
  }

  follow() {
    if (this.wanted == null && this.audio.dataset.clip === this.data?.clip) this.at = Math.min(this.audio.currentTime, this.data.duration);
    this.reveal();
    this.marks();
    cancelAnimationFrame(this.frame);
    if (!this.audio.paused) this.frame = requestAnimationFrame(() => this.follow());
  }

  // Turn the page when the playhead leaves it.
  reveal() {
    if (this.at < this.from || this.at > this.from + 0.97 * this.span) {
      if (this.at < this.from || this.from + this.span < this.data.duration - 0.01) this.show(this.at - 0.1 * this.span);
    }
  }

  marks() {
    const inside = this.at >= this.from - 0.01 && this.at <= this.from + this.span + 0.01, { duration } = this.data;
    this.head.style.display = inside ? "" : "none";
    this.head.style.transform = `translateX(${this.x(this.at).toFixed(1)}px)`;
    this.root.querySelector(".time").textContent = `${clock(this.at)} / ${clock(duration)}`;
    const button = this.root.querySelector(".play"), word = this.audio.paused ? "Play" : "Pause";
    button.textContent = this.audio.paused ? "▶" : "❚❚";
    button.setAttribute("aria-label", word);
    this.view.setAttribute("aria-valuemax", duration.toFixed(1));
    this.view.setAttribute("aria-valuenow", this.at.toFixed(1));
    this.view.setAttribute("aria-valuetext", `${clock(this.at)} of ${clock(duration)}`);
    this.root.dataset.at = this.at.toFixed(3);
    this.root.dataset.playing = String(!this.audio.paused);
  }

  // -- drawing

  // Rows of labels above the notes: one for each side and kind.
  lanes() {
    if (this.off.has("spans")) return [];
    return this.data.sides.filter((side) => !this.off.has(side.name)).flatMap((side) => side.spans.map((span) => ({ ...span, side: side.name })));
  }

  draw() {
    const width = this.view.clientWidth;
    if (!width || !this.colours) return;
    const lanes = this.lanes(), top = lanes.length * LANE, tall = this.data.height, scale = devicePixelRatio || 1;
    const height = top + tall + AXIS;
    if (this.canvas.width !== Math.round(width * scale) || this.canvas.height !== Math.round(height * scale)) {
      [this.canvas.width, this.canvas.height] = [Math.round(width * scale), Math.round(height * scale)];
      this.canvas.style.height = `${height}px`;
    }
    const pen = this.canvas.getContext("2d");
    pen.setTransform(scale, 0, 0, scale, 0, 0);
    pen.clearRect(0, 0, width, height);
    pen.font = `11px ${STYLES(this.root).fontFamily}`;
    pen.textBaseline = "middle";
    const { low, high } = this.data, row = tall / (high - low + 1), y = (pitch) => top + (high - pitch) * row;        // upper edge
    this.place = { top, row, y };
    const ink = `rgb(${this.colours.ink.join(" ")})`;
    pen.save();
    pen.beginPath();
    pen.rect(GUTTER, 0, width - GUTTER, height);
    pen.clip();
    pen.fillStyle = ink;
    pen.globalAlpha = 0.04;
    pen.fillRect(GUTTER, top, width, tall);
    pen.globalAlpha = 1;
    if (!this.off.has("spectrogram")) this.spectrogram.draw(pen, {
      low, high, top, row, from: this.from, until: this.from + this.span, x: (time) => this.x(time) });
    this.octaves(pen, width, row, y, ink);
    for (const side of this.data.sides) if (!this.off.has(side.name)) this.lines(pen, side, top, tall);
    let notes = 0;
    for (const side of this.data.sides) if (!this.off.has(side.name)) notes += this.notes(pen, side, row, y);
    lanes.forEach((lane, i) => this.lane(pen, lane, i * LANE));
    this.axis(pen, top + tall, width, ink);
    pen.restore();
    this.pitches(pen, row, y, ink);
    pen.globalAlpha = 0.75;
    pen.fillStyle = ink;
    pen.textAlign = "left";
    lanes.forEach((lane, i) => pen.fillText(lane.kind, 0, i * LANE + LANE / 2));
    pen.globalAlpha = 1;
    this.root.dataset.notes = String(notes);
    this.root.dataset.span = this.span.toFixed(2);
    this.marks();
  }

  octaves(pen, width, row, y, ink) {
    pen.fillStyle = ink;
    pen.globalAlpha = 0.18;
    for (let pitch = Math.ceil(this.data.low / 12) * 12; pitch <= this.data.high; pitch += 12) pen.fillRect(GUTTER, y(pitch) + row, width, 1);
    pen.globalAlpha = 1;
  }

  pitches(pen, row, y, ink) {
    pen.fillStyle = ink;
    pen.textAlign = "right";
    const step = row >= 11 ? 1 : row * 12 >= 11 ? 12 : 24;
    for (let pitch = Math.ceil(this.data.low / step) * step; pitch <= this.data.high; pitch += step) {
      pen.globalAlpha = pitch % 12 ? 0.55 : 0.9;
      pen.fillText(pitchName(pitch), GUTTER - 5, y(pitch) + row / 2);
    }
    pen.globalAlpha = 1;
  }

  lines(pen, side, top, tall) {
    const end = this.from + this.span;
    pen.strokeStyle = this.colours[side.name];
    pen.setLineDash(side.name === "predicted" ? [5, 4] : []);
    if (!this.off.has("beats")) {
      side.beats.time.forEach((time, i) => {
        if (time < this.from || time > end) return;
        pen.lineWidth = side.beats.down[i] ? 2 : 1;
        pen.globalAlpha = side.beats.down[i] ? 0.75 : 0.45;
        pen.beginPath();
        pen.moveTo(this.x(time), top);
        pen.lineTo(this.x(time), top + tall);
        pen.stroke();
      });
    }
    pen.setLineDash([]);
    pen.globalAlpha = 1;
    pen.fillStyle = this.colours[side.name];
    if (!this.off.has("onsets")) {
      const base = side.name === "predicted" ? top : top + tall - 10;          // predicted above, labels below
      for (const time of side.onsets) if (time >= this.from && time <= end) pen.fillRect(this.x(time) - 1, base, 2, 10);
    }
  }

  // Labels are outlined boxes, predictions are thin bars within them: distinguishable without colour as well.
  notes(pen, side, row, y) {
    const { start, end, pitch } = side.notes, until = this.from + this.span, colour = this.colours[side.name];
    const outlined = side.name === "reference";
    let drawn = 0;
    pen.fillStyle = pen.strokeStyle = colour;
    pen.lineWidth = 1.5;
    for (let i = 0; i < start.length && start[i] <= until; i++) {
      if (end[i] < this.from) continue;
      const left = this.x(start[i]), wide = Math.max(2, this.x(end[i]) - left), upper = y(pitch[i]);
      drawn++;
      if (outlined) {
        pen.globalAlpha = 0.25;
        pen.fillRect(left, upper + 0.5, wide, Math.max(2, row - 1));
        pen.globalAlpha = 1;
        pen.strokeRect(left + 0.75, upper + 0.75, Math.max(0.5, wide - 1.5), Math.max(1, row - 1.5));
      } else {
        const high = Math.max(2.5, row * 0.42);
        pen.globalAlpha = 0.9;
        pen.fillRect(left, upper + (row - high) / 2, wide, high);
      }
    }
    pen.globalAlpha = 1;
    return drawn;
  }

  lane(pen, lane, top) {
    const colour = this.colours[lane.side], until = this.from + this.span;
    pen.textAlign = "left";
    for (let i = 0; i < lane.start.length; i++) {
      if (lane.end[i] < this.from || lane.start[i] > until) continue;
      const left = this.x(lane.start[i]), right = this.x(lane.end[i]), begin = Math.max(left, GUTTER);
      pen.save();
      pen.beginPath();
      pen.rect(begin, top, Math.max(1, right - begin), LANE);
      pen.clip();
      pen.globalAlpha = lane.side === "predicted" ? 0.12 : 0.2;
      pen.fillStyle = colour;
      pen.fillRect(left, top + 1, right - left, LANE - 2);
      pen.globalAlpha = 1;
      pen.fillRect(left, top + 1, 1.5, LANE - 2);
      pen.fillStyle = `rgb(${this.colours.ink.join(" ")})`;
      pen.fillText(lane.words[i], begin + 4, top + LANE / 2);
      pen.restore();
    }
  }

  axis(pen, top, width, ink) {
    const step = STEPS_S.find((one) => one / this.span * this.width() >= 60) ?? 60;
    pen.fillStyle = ink;
    pen.textAlign = "center";
    pen.globalAlpha = 0.75;
    for (let number = Math.ceil(this.from / step); number * step <= this.from + this.span; number++) {
      const x = this.x(number * step);
      if (x < GUTTER + 14 || x > width - 16) continue;
      pen.fillRect(x, top, 1, 4);
      pen.fillText(step < 1 ? clock(number * step) : clock(number * step).replace(/\.\d$/, ""), x, top + 11);
    }
    pen.globalAlpha = 1;
  }

  // -- the note below the pointer, in words

  point(event) {
    const time = this.timeAt(event), { top, row } = this.place ?? {};
    const pitch = this.data.high - Math.floor((event.clientY - this.view.getBoundingClientRect().top - top) / row);
    this.read(time, pitch);
  }

  read(time, pitch) {
    const found = [];
    if (time != null) {
      for (const side of this.data.sides) {
        if (this.off.has(side.name)) continue;
        const { start, end, pitch: pitches, words } = side.notes;
        for (let i = 0; i < start.length && start[i] <= time; i++) {
          if (end[i] < time || Math.abs(pitches[i] - pitch) > 0.5) continue;
          found.push(`${pitchName(pitches[i])}  ${clock(start[i])} to ${clock(end[i])}  ${[words[i], side.label].filter(Boolean).join(", ")}`);
        }
      }
      if (!found.length) found.push(`${pitchName(pitch)}  ${clock(time)}`);
    }
    this.root.querySelector(".readout").textContent = found.join("   ·   ");
  }

  free() {
    this.resize.disconnect();
    cancelAnimationFrame(this.frame);
    this.audio.pause();
  }
}

export const { mount, unmount } = mountable(Roll);
