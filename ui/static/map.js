// The map of clips: fetches and draws points, and handles clicks, keys and the lasso in the browser.  Picks and selections are
// sent to Python, which decides which map to show.

import { paletteOf } from "./colours.js";
import { boundsOf, fewer, Grid, within } from "./grid.js";
import { Legend } from "./legend.js";
import { Neighbours } from "./neighbours.js";
import { BRIGHT, DIM, HIDDEN, PointRenderer } from "./points.js";
import { askBytes, askJson, element, mountable, placeOf, titleOf, typing } from "./player.js";
import { drawOverlay, pointStyle, View } from "./view.js";

const MAX_WHILE_MOVING = 200_000;        // points drawn while the view moves; rows are shuffled, so they are a random sample
const SETTLE_MS = 180;                   // time after the last wheel event until all points are drawn again
const GLIDE_MS = 700;                    // duration of the move from one layer to the next, for up to MAX_GLIDING points
const MAX_GLIDING = 300_000;
const REACH_PX = 9;                      // largest distance of the pointer from a point it selects
const LASSO_PX = 1.5;                    // tolerance when simplifying a lasso
const LINK = "tonelake:linked";          // event that links maps shown side by side

class ClipMap {
  constructor(host) {
    this.root = host.querySelector(".map");
    this.find = (selector) => this.root.querySelector(selector);
    this.view = new View();
    this.view.fitted = false;
    this.lasso = [];
    this.places = [];
    this.tips = new Map();               // tooltip promises by row
    this.hovered = -1;
    this.picked = null;
    this.pending = {};
    this.cleanups = [];
    this.ratio = Math.min(window.devicePixelRatio || 1, 2);
    try {
      this.renderer = new PointRenderer(this.find("canvas.points"));
    } catch (error) {
      this.say(error.message);
      return;
    }
    this.renderer.onrestored = () => this.draw();
    this.overlay = this.find("canvas.overlay").getContext("2d");
    this.legend = new Legend(this.find(".legend"), () => this.mask());
    this.neighbours = new Neighbours(this);
    this.listen();
    this.root.screenOf = (row) => this.view.toScreen(this.xy[2 * row], this.xy[2 * row + 1]);
  }

  say(sentence) { this.find(".sentence").textContent = sentence; }

  // -- updates from Python

  update({ data, setStateValue }) {
    if (!this.renderer) return;
    this.tell = setStateValue;
    const before = this.data ?? {};
    this.data = data;
    this.root.style.setProperty("--height", `${data.height}px`);
    this.resize();
    const style = getComputedStyle(this.root), take = (name, other) => style.getPropertyValue(name).trim() || other;
    this.look = {
      ink: take("--st-text-color", "#333"), ground: take("--st-secondary-background-color", "#fff"),
      accent: take("--st-primary-color", "#ff4b4b"), font: take("--st-font", "sans-serif"),
    };
    const other = data.base !== before.base || data.stamp !== before.stamp;
    if (other) this.load();
    else if (data.colour !== before.colour) this.colour();
    if (!other && (data.near !== before.near || data.notSame !== before.notSame) && this.picked) this.neighbours.ask(this.picked);
    if (JSON.stringify(data.lasso ?? []) !== JSON.stringify(this.lasso)) { this.lasso = data.lasso ?? []; this.mask(); }
    if (data.pick !== this.picked?.clip_id && data.pick !== before.pick) this.pickClip(data.pick);
    this.drawAbove();
  }

  async load() {
    const { base } = this.data;
    const mine = this.restart("load");
    try {
      const early = globalThis.tonelakeEarly?.get(base + this.data.stamp);
      globalThis.tonelakeEarly?.set(base + this.data.stamp, null);
      const { buffer, order } = await askBytes(early ?? `${base}/points`, mine.signal);
      if (mine.signal.aborted) return;
      const xy = new Float32Array(buffer);
      const glides = order === this.order && this.xy && xy.length / 2 <= MAX_GLIDING
        && !window.matchMedia("(prefers-reduced-motion: reduce)").matches;
      const before = glides ? this.xy : null;
      if (order !== this.order) { this.codes = null; this.tips.clear(); }
      [this.xy, this.order, this.grid] = [xy, order, null];
      this.renderer.setPoints(xy, before);
      this.say(xy.length ? "" : "This map has no points.");
      this.bounds = null;
      if (this.data.pick) this.find(".side").classList.add("open");      // open it first, so that the view is fitted beside it
      if (!this.view.fitted) this.home();
      if (before) this.glide(); else this.draw();
      requestAnimationFrame(() => requestAnimationFrame(() => {      // the second callback runs after the first frame was shown
        this.root.dataset.points = String(xy.length / 2);
        this.root.dataset.layer = this.data.layer;
        performance.mark("tonelake:points", { detail: { points: xy.length / 2 } });
        setTimeout(() => this.index(), 0);
      }));
      this.picked = this.picked && { ...this.picked, row: null };
      this.colour();
      this.namePlaces(mine.signal);
      if (this.data.pick) this.pickClip(this.data.pick);
    } catch (error) {
      if (error.name !== "AbortError") this.say(error.message);
    }
  }

  async colour() {
    const { base, colour } = this.data, mine = this.restart("colour");
    try {
      const by = `column=${encodeURIComponent(colour)}`;
      const [legend, { buffer }] = await Promise.all([
        askJson(`${base}/legend?${by}`, mine.signal), askBytes(`${base}/colours?${by}`, mine.signal)]);
      const codes = new Uint16Array(buffer);
      if (codes.length !== this.renderer.count) return;              // belongs to a map that was replaced meanwhile
      this.codes = codes;
      this.renderer.setCodes(codes);
      this.renderer.setPalette(paletteOf(legend));
      this.legend.show(legend);
      this.root.dataset.colour = colour;
      this.mask();
    } catch (error) {
      if (error.name !== "AbortError") this.say(error.message);
    }
  }

  async namePlaces(signal) {
    try {
      const found = await askJson(`${this.data.base}/clusters`, signal);
      this.places = found.map((place) => ({ ...place, name: place.labels[0] ?? "" })).filter((place) => place.name);
      this.drawAbove();
    } catch (error) {
      if (error.name !== "AbortError") this.places = [];
    }
  }

  // Abort a pending request of this kind, and return a controller for the new one.
  restart(kind) {
    this.pending[kind]?.abort();
    return (this.pending[kind] = new AbortController());
  }

  index() {
    if (!this.grid && this.xy) this.grid = new Grid(this.xy);
    return this.grid;
  }

  // -- drawing

  resize() {
    const { clientWidth: width, clientHeight: height } = this.root;
    if (!width || !height || (width === this.view.width && height === this.view.height)) return;
    const old = this.view.width > 1 && this.view.fitted ? Math.min(width / this.view.width, height / this.view.height) : 1;
    Object.assign(this.view, { width, height, zoom: this.view.zoom * old, home: this.view.home * old });
    for (const canvas of this.root.querySelectorAll("canvas")) {
      canvas.width = width * this.ratio;
      canvas.height = height * this.ratio;
    }
    if (this.xy) this.draw();
  }

  home() {
    const { grid } = this;
    this.bounds ??= grid ? grid.bounds : boundsOf(this.xy);
    const card = this.find(".side.open"), wide = this.view.width > 2.5 * (card?.offsetWidth ?? 0);
    this.view.fit(this.bounds, 0.06, card && wide ? card.offsetWidth + 16 : 0);
    this.view.home = this.view.zoom;
    this.view.fitted = true;
  }

  draw(moving = false, moved = 1) {
    const count = moving ? Math.min(this.renderer.count, MAX_WHILE_MOVING) : this.renderer.count;
    const style = pointStyle(this.renderer.count, this.view, this.ratio);
    const alpha = Math.min(0.9, style.alpha * Math.sqrt(this.renderer.count / Math.max(count, 1)));
    this.renderer.draw({ ...this.view.transform(), size: style.size, alpha, dim: Math.min(0.1, alpha * 0.25), moved, count });
    this.drawAbove();
    clearTimeout(this.settling);
    if (moving && count < this.renderer.count && !this.drag) this.settling = setTimeout(() => this.draw(), SETTLE_MS);
  }

  // Runs at most once a frame, however many events request it.
  drawSoon() {
    this.waiting ??= requestAnimationFrame(() => { this.waiting = null; this.draw(true); });
  }

  glide(begun = performance.now()) {
    cancelAnimationFrame(this.gliding);
    const step = () => {
      const share = Math.min(1, (performance.now() - begun) / GLIDE_MS);
      this.draw(share < 1, share * share * (3 - 2 * share));
      if (share < 1) this.gliding = requestAnimationFrame(step);
    };
    step();
  }

  drawAbove() {
    if (!this.xy || !this.look) return;
    const place = (row) => (row === null || row === undefined || row < 0 ? null : [this.xy[2 * row], this.xy[2 * row + 1]]);
    drawOverlay(this.overlay, this.view, this.ratio, {
      ...this.look, picked: place(this.picked?.row), hovered: place(this.hovered), lasso: this.lasso,
      near: this.neighbours.hits.map((hit) => place(hit.row)).filter(Boolean),
      places: this.find(".names").getAttribute("aria-pressed") === "true" ? this.places : [],
    });
  }

  // Brighten the points that the legend shows, the search found and the lasso contains.
  mask() {
    if (!this.xy) return;
    const count = this.xy.length / 2, hidden = this.legend.hidden, codes = this.codes;
    const inside = this.lasso.length > 2 ? within(this.xy, this.lasso) : null;
    if (!hidden.size && !inside && !this.found) {
      this.states = null;
    } else {
      this.states = new Uint8Array(count);
      for (let i = 0; i < count; i++) {
        if (hidden.size && codes && hidden.has(codes[i])) this.states[i] = HIDDEN;
        else this.states[i] = (!inside || inside[i]) && (!this.found || this.found[i]) ? BRIGHT : DIM;
      }
    }
    this.renderer.setStates(this.states);
    this.root.dataset.bright = String(this.states ? this.states.reduce((sum, state) => sum + (state === BRIGHT), 0) : count);
    this.draw();
  }

  // -- user input

  listen() {
    const canvas = this.find("canvas.points");
    const at = (event) => { const box = canvas.getBoundingClientRect(); return [event.clientX - box.left, event.clientY - box.top]; };
    const on = (target, kind, act, options) => {
      target.addEventListener(kind, act, options);
      this.cleanups.push(() => target.removeEventListener(kind, act, options));
    };
    on(canvas, "pointerdown", (event) => {
      if (event.button !== 0) return;
      canvas.setPointerCapture(event.pointerId);
      this.root.focus({ preventScroll: true });
      const [x, y] = at(event);
      this.drag = { x, y, far: 0, selects: event.shiftKey || this.root.classList.contains("lassoing") };
      if (this.drag.selects) this.lasso = [this.view.toMap(x, y)];
    });
    on(canvas, "pointermove", (event) => {
      const [x, y] = at(event), { drag } = this;
      if (!drag) { this.hover(x, y); return; }
      drag.far = Math.max(drag.far, Math.hypot(x - drag.x, y - drag.y));
      if (drag.selects) {
        this.lasso.push(this.view.toMap(x, y));
        this.drawAbove();
      } else if (drag.far > 3) {
        this.root.classList.add("moving");
        this.tip(-1);
        this.view.moveBy(x - (drag.lastX ?? drag.x), y - (drag.lastY ?? drag.y));
        this.drawSoon();
      }
      [drag.lastX, drag.lastY] = [x, y];
    });
    on(canvas, "pointerup", (event) => {
      const { drag } = this;
      this.drag = null;
      this.root.classList.remove("moving");
      if (!drag) return;
      if (drag.selects) this.select(drag.far > 5);
      else if (drag.far > 3) this.draw();              // draw all points, now that the view is still
      else {
        performance.mark("tonelake:click", { startTime: event.timeStamp });
        this.click(...at(event));
      }
    });
    on(canvas, "pointercancel", () => { this.drag = null; });
    on(canvas, "pointerleave", () => this.tip(-1));
    on(canvas, "wheel", (event) => {
      event.preventDefault();
      this.view.zoomAt(...at(event), Math.exp(-event.deltaY * (event.deltaMode ? 0.05 : 0.0016)));
      this.drawSoon();
    }, { passive: false });
    on(canvas, "dblclick", (event) => { this.view.zoomAt(...at(event), 2); this.drawSoon(); });
    on(document, "keydown", (event) => this.key(event));
    on(window, LINK, (event) => this.follow(event.detail));
    const input = this.find("input");
    on(input, "input", () => { clearTimeout(this.typed); this.typed = setTimeout(() => this.search(input.value), 150); });
    on(input, "keydown", (event) => {
      event.stopPropagation();           // keep typed keys from the page's own shortcuts
      if (event.key === "Enter") this.showFound();
      if (event.key === "Escape") { input.value = ""; this.search(""); this.root.focus(); }
    });
    on(this.find(".select"), "click", () => this.arm(!this.root.classList.contains("lassoing")));
    on(this.find(".names"), "click", (event) => {
      const shown = event.currentTarget.getAttribute("aria-pressed") !== "true";
      event.currentTarget.setAttribute("aria-pressed", String(shown));
      this.drawAbove();
    });
    on(this.find(".whole"), "click", () => { this.home(); this.draw(); });
    on(this.find(".close"), "click", () => this.clear());
    const watch = new ResizeObserver(() => this.resize());
    watch.observe(this.root);
    this.cleanups.push(() => watch.disconnect());
  }

  arm(selecting) {
    this.root.classList.toggle("lassoing", selecting);
    this.find(".select").setAttribute("aria-pressed", String(selecting));
  }

  at(x, y) {
    const [mapX, mapY] = this.view.toMap(x, y);
    return this.index()?.nearest(mapX, mapY, REACH_PX / this.view.zoom, (row) => this.states?.[row] !== HIDDEN) ?? -1;
  }

  hover(x, y) {
    const row = this.at(x, y);
    this.root.classList.toggle("over", row >= 0);
    if (row !== this.hovered) { this.tip(row); this.link({ row }); }
    const tip = this.find(".tip");
    tip.style.left = `${Math.min(x + 14, this.view.width - 220)}px`;
    tip.style.top = `${Math.min(y + 14, this.view.height - 60)}px`;
  }

  async tip(row) {
    this.hovered = row;
    this.drawAbove();
    const tip = this.find(".tip");
    if (row < 0) { tip.style.display = "none"; return; }
    try {
      const clip = await this.clipAt(row);
      if (this.hovered !== row) return;
      tip.replaceChildren(element("b", { text: titleOf(clip) }), element("span", { text: placeOf(clip) }));
      tip.style.display = "block";
    } catch { /* no tooltip for this point; the next request may succeed */ }
  }

  async clipAt(row) {
    if (!this.tips.has(row)) {           // keep the promise, so that a click reuses the request made on hover
      const answer = askJson(`${this.data.base}/point?row=${row}`);
      answer.catch(() => this.tips.delete(row));
      this.tips.set(row, answer);
    }
    return this.tips.get(row);
  }

  async click(x, y) {
    const row = this.at(x, y);
    if (row < 0) return;
    try {
      this.pick(await this.clipAt(row));
    } catch (error) {
      this.say(error.message);
    }
  }

  // Show a clip, play it, list its neighbours; then notify Python and the other maps, whose work would delay the answer.
  async pick(clip, { silent = false } = {}) {
    this.picked = clip;
    this.drawAbove();
    await this.neighbours.show(clip, { silent });
    if (!silent && this.picked === clip) {
      this.tell("pick", clip.clip_id);
      this.link({ clip: clip.clip_id });
    }
  }

  // Pick a clip named by Python, another map or the address bar.
  async pickClip(clipId) {
    if (!clipId) { this.clear({ silent: true }); return; }
    try {
      this.pick(await askJson(`${this.data.base}/point?clip=${encodeURIComponent(clipId)}`), { silent: true });
    } catch {
      this.clear({ silent: true });      // it is not on this map
    }
  }

  clear({ silent = false } = {}) {
    this.picked = null;
    this.neighbours.close();
    if (!silent) {
      this.tell("pick", null);
      if (this.lasso.length) { this.lasso = []; this.mask(); this.tell("lasso", null); }
      this.arm(false);
    }
    this.drawAbove();
  }

  select(drawn) {
    const corners = drawn ? fewer(this.lasso, LASSO_PX / this.view.zoom) : [];
    this.lasso = corners.length > 2 ? corners.map((corner) => corner.map((value) => Number(value.toFixed(4)))) : [];
    this.arm(false);
    this.mask();
    this.tell("lasso", this.lasso.length ? this.lasso : null);
  }

  async search(text) {
    const said = this.find(".found"), mine = this.restart("search");
    if (!text.trim()) {
      said.textContent = "";
      this.found = null;
      this.mask();
      return;
    }
    try {
      const { buffer } = await askBytes(`${this.data.base}/search?q=${encodeURIComponent(text)}`, mine.signal);
      const rows = new Uint32Array(buffer);
      this.found = new Uint8Array(this.xy.length / 2);
      for (const row of rows) this.found[row] = 1;
      this.foundRows = rows;
      said.textContent = `${rows.length.toLocaleString()} found`;
      this.mask();
    } catch (error) {
      if (error.name !== "AbortError") said.textContent = error.message;
    }
  }

  showFound() {
    if (!this.found || !this.foundRows.length) return;
    const some = new Float32Array(2 * this.foundRows.length);
    this.foundRows.forEach((row, i) => some.set(this.xy.subarray(2 * row, 2 * row + 2), 2 * i));
    this.view.fit(boundsOf(some), 0.2);
    this.view.zoom = Math.min(this.view.zoom, this.view.home * 30);
    this.draw();
  }

  key(event) {
    if (typing(event) || !this.root.isConnected) return;
    const inside = event.composedPath().includes(this.root), idle = event.composedPath()[0] === document.body;
    if (!inside && !(idle && this.data.keys)) return;
    const step = 60, pan = { ArrowLeft: [step, 0], ArrowRight: [-step, 0], ArrowUp: [0, step], ArrowDown: [0, -step] }[event.key];
    const grow = { "+": 1.4, "=": 1.4, "-": 1 / 1.4 }[event.key];
    if (event.key === " " && this.picked) this.neighbours.toggle();
    else if (event.key === "Escape") this.clear();
    else if (event.key === "/") this.find("input").focus();
    else if (event.key === "0") { this.home(); this.draw(); }
    else if (grow) { this.view.zoomAt(this.view.width / 2, this.view.height / 2, grow); this.drawSoon(); }
    else if (event.key === "Enter" && this.picked) this.neighbours.follow();
    else if (pan && this.picked && pan[0] === 0) this.neighbours.move(event.key === "ArrowDown" ? 1 : -1);
    else if (pan) { this.view.moveBy(...pan); this.drawSoon(); }
    else return;
    event.preventDefault();
  }

  // -- maps side by side

  link(what) { window.dispatchEvent(new CustomEvent(LINK, { detail: { ...what, order: this.order, from: this } })); }

  follow({ from, order, row, clip }) {
    if (from === this || !this.xy) return;
    if (clip !== undefined) this.pickClip(clip);
    else if (order === this.order) { this.hovered = row; this.drawAbove(); }
  }

  free() {
    this.cleanups.forEach((undo) => undo());
    Object.values(this.pending).forEach((asked) => asked.abort());
    this.find("audio").pause();
    this.renderer?.free();
  }
}

export const { mount, unmount } = mountable(ClipMap);
