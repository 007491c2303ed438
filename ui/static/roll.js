// A piano roll over the spectrogram of a clip.  It plays through the app's player: Space plays, a click or the arrows seek, a drag moves, + and −
// zoom.  Times are seconds from the start of the clip; the player's are from the start of the recording.

import { clock, element, icon, mountable, paused, pause, place, playNow, playing, seekTo, toggle } from "./player.js";
import { drawRoll, GUTTER, notesAt, noteWidth, xOf } from "./roll_drawing.js";
import { Spectrogram } from "./spectrogram.js";

const SHORTEST_S = 1, LONGEST_S = 120;   // of the time that is shown at once
const STYLES = getComputedStyle;
const PIXELS_A_SECOND = 75;              // of a view that is opened

class Roll {
  constructor(host) {
    const find = (selector) => host.querySelector(selector);
    this.root = find(".roll");
    [this.view, this.canvas, this.head, this.scroll] = [".view", "canvas", ".head", ".scroll"].map(find);
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
    this.listener = () => this.data && this.follow();
    for (const kind of ["tonelake:playing", "tonelake:time"]) window.addEventListener(kind, this.listener);
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
    this.follow();
  }

  open(data) {
    this.spectrogram.open(data.clip, data.spectrogram);
    [this.at, this.from] = [0, 0];
    this.span = Math.min(data.duration, Math.max(4, (this.view.clientWidth || 900) / PIXELS_A_SECOND));
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

  scene() {
    return {
      data: this.data, off: this.off, from: this.from, span: this.span, width: this.view.clientWidth, colours: this.colours,
      font: STYLES(this.root).fontFamily, spectrogram: this.spectrogram,
    };
  }

  width() {
    return noteWidth({ width: this.view.clientWidth });
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

  // -- playing, by the app's player

  mine() {
    return playing() === this.data.clip;
  }

  sounding() {
    return this.mine() && !paused();
  }

  toggle() {
    if (this.sounding()) return pause();
    const from = this.at >= this.data.duration - 0.05 ? 0 : this.at, time_s = this.data.song.start_s + from;
    if (!this.mine() || Math.abs(place().time_s - time_s) > 0.05) playNow(this.data.song, time_s);
    else toggle();
  }

  seek(time) {
    this.at = Math.min(Math.max(time, 0), this.data.duration);
    if (this.mine()) seekTo(this.data.song.start_s + this.at);
    this.reveal();
    this.marks();
  }

  // Follow the player.  It plays the whole recording: before and after the clip the playhead waits at the clip's ends.
  follow() {
    cancelAnimationFrame(this.frame);
    if (this.mine()) {
      this.at = Math.min(Math.max(place().time_s - this.data.song.start_s, 0), this.data.duration);
      if (this.sounding()) {
        this.reveal();
        this.frame = requestAnimationFrame(() => this.follow());
      }
    }
    this.marks();
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
    this.head.style.transform = `translateX(${xOf({ from: this.from, span: this.span, width: this.view.clientWidth }, this.at).toFixed(1)}px)`;
    this.root.querySelector(".time").textContent = `${clock(this.at)} / ${clock(duration)}`;
    const button = this.root.querySelector(".play"), word = this.sounding() ? "Pause" : "Play";
    if (button.getAttribute("aria-label") !== word || !button.firstElementChild) {
      button.replaceChildren(icon(word.toLowerCase()));
      button.setAttribute("aria-label", word);
    }
    this.view.setAttribute("aria-valuemax", duration.toFixed(1));
    this.view.setAttribute("aria-valuenow", this.at.toFixed(1));
    this.view.setAttribute("aria-valuetext", `${clock(this.at)} of ${clock(duration)}`);
    this.root.dataset.at = this.at.toFixed(3);
    this.root.dataset.playing = String(this.sounding());
  }

  draw() {
    if (!this.view.clientWidth || !this.colours) return;
    const { top, row, notes } = drawRoll(this.canvas, this.scene());
    this.place = { top, row };
    this.root.dataset.notes = String(notes);
    this.root.dataset.span = this.span.toFixed(2);
    this.marks();
  }

  // -- the note below the pointer, in words

  point(event) {
    const time = this.timeAt(event), { top, row } = this.place ?? {};
    const pitch = this.data.high - Math.floor((event.clientY - this.view.getBoundingClientRect().top - top) / row);
    this.read(time, pitch);
  }

  read(time, pitch) {
    this.root.querySelector(".readout").textContent = time == null ? "" : notesAt(this.data, this.off, time, pitch).join("   ·   ");
  }

  free() {
    this.resize.disconnect();
    cancelAnimationFrame(this.frame);
    for (const kind of ["tonelake:playing", "tonelake:time"]) window.removeEventListener(kind, this.listener);
  }
}

export const { mount, unmount } = mountable(Roll);
