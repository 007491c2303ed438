// The map: fetches and draws points (songs or clips), and handles picks, keys and selections in the browser.  Picks and selections
// are sent to Python, which decides which map to show.  The panel beside the points (on a phone: below) never covers them.

import { Selection } from "./map_selection.js";
import { isDark, paletteOf } from "./colours.js";
import { Search } from "./map_search.js";
import { Tips } from "./map_tips.js";
import { listenToPointers } from "./map_gestures.js";
import { boundsOf, fewer, Grid, within } from "./grid.js";
import { listenToKeys } from "./map_keys.js";
import { Names } from "./map_labels.js";
import { Links } from "./map_links.js";
import { Legend } from "./legend.js";
import { loadColours, loadPoints } from "./map_loading.js";
import { Neighbours } from "./neighbours.js";
import { BRIGHT, DIM, HIDDEN, PointRenderer } from "./points.js";
import { askJson, mountable, playing, playNow } from "./player.js";
import { markSounding, moveByArrows, songRow } from "./map_rows.js";
import { drawOverlay, pointStyle, View } from "./view.js";

const MAX_WHILE_MOVING = 200_000;        // points drawn while the view moves; rows are shuffled, so they are a random sample
const SETTLE_MS = 180;                   // time after the last movement until all points and new names are drawn
const GLIDE_MS = 700;                    // duration of the move from one layer to the next
const LASSO_PX = 1.5;                    // tolerance when simplifying a lasso
const MOST_LISTED = 50;                  // songs in view
const LEAST_HEIGHT = 340;                // px; a lower window scrolls

class ClipMap {
  constructor(host) {
    this.root = host.querySelector(".map");
    this.find = (selector) => this.root.querySelector(selector);
    this.stage = this.find(".stage");
    Object.assign(this, { view: new View(), lasso: [], hovered: -1, sounding: -1 });
    Object.assign(this, { picked: null, told: [], chosenBeside: null, pending: {}, cleanups: [], dragging: false });
    this.view.fitted = false;
    this.ratio = Math.min(window.devicePixelRatio || 1, 2);
    try {
      this.renderer = new PointRenderer(this.find("canvas.points"));
    } catch (error) {
      this.say(error.message);
      return;
    }
    this.renderer.onrestored = () => this.draw();
    this.overlay = this.find("canvas.overlay").getContext("2d");
    this.legend = new Legend(this.find(".legend"), {
      recoloured: () => this.recolour(), changed: ({ linked }) => { this.mask(); if (linked) this.links.legend(); },
    });
    this.names = new Names(this);
    this.tips = new Tips(this);
    this.neighbours = new Neighbours(this);
    this.search = new Search(this);
    this.selection = new Selection(this);
    this.listen();
    this.root.screenOf = (row) => this.view.toScreen(this.xy[2 * row], this.xy[2 * row + 1]);
  }

  say(sentence) { this.find(".sentence").textContent = sentence; }
  counted(points) { const one = this.data.points === "songs" ? "song" : "clip"; return `${points.toLocaleString()} ${one}${points === 1 ? "" : "s"}`; }

  // -- updates from Python

  update({ data, setStateValue, setTriggerValue }) {
    if (!this.renderer) return;
    this.tell = setStateValue;
    this.ask = setTriggerValue;
    const before = this.data ?? {};
    this.data = data;
    this.fill();
    const style = getComputedStyle(this.root), take = (name, other) => style.getPropertyValue(name).trim() || other;
    this.look = {
      ink: take("--st-text-color", "#333"), ground: take("--st-background-color", "#fff"),
      accent: take("--st-primary-color", "#ff4b4b"), font: take("--st-font", "sans-serif"),
    };
    this.legend.theme(isDark(getComputedStyle(this.stage).backgroundColor));
    const other = data.base !== before.base || data.stamp !== before.stamp;
    if (other) loadPoints(this);
    else if (data.colour !== before.colour) loadColours(this);
    if (!other && (data.near !== before.near || data.notSame !== before.notSame) && this.picked) this.neighbours.ask(this.picked);
    if (other || JSON.stringify(data.lasso ?? []) !== JSON.stringify(this.lasso)) {
      this.lasso = data.lasso ?? [];
      if (!other) { this.mask(); this.links.selection(); }
      this.selection.show(this.lasso);
    }
    if (data.pick !== before.pick && !this.returned(data.pick) && data.pick !== this.picked?.clip_id) this.pickClip(data.pick);
    this.drawAbove();
  }

  tellPick(clipId) {
    this.told.push(clipId);
    this.tell("pick", clipId);
  }

  // Whether Python returns a pick that this map sent.  It may be late, when the next one has been made here already.
  returned(clipId) {
    const sent = this.told.indexOf(clipId ?? null);
    this.told.splice(0, sent + 1);
    return sent >= 0;
  }

  recolour() {
    this.renderer.setPalette(paletteOf(this.legend.legend, this.legend.slots, this.legend.dark));
    if (this.xy) this.draw();
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

  // -- size: the map fills the window between its place on the page and the player

  fill() {
    const bar = document.querySelector("#tonelake-player")?.shadowRoot?.querySelector(".bar")?.offsetHeight ?? 0;
    const page = this.root.closest?.(".stMain") ?? document.querySelector("[data-testid=stMain]");
    const top = this.root.getBoundingClientRect().top + (page?.scrollTop ?? 0);
    const height = Math.max(LEAST_HEIGHT, Math.floor(window.innerHeight - top - bar - 8));
    if (height !== this.height) this.root.style.setProperty("--height", `${(this.height = height)}px`);
    this.resize();
  }

  resize() {
    const { clientWidth: width, clientHeight: height } = this.stage;
    if (!width || !height || (width === this.view.width && height === this.view.height)) return;
    const old = this.view.width > 1 && this.view.fitted ? Math.min(width / this.view.width, height / this.view.height) : 1;
    const whole = this.view.fitted && this.view.zoom === this.view.home;
    Object.assign(this.view, { width, height, zoom: this.view.zoom * old, home: this.view.home * old });
    for (const canvas of this.root.querySelectorAll("canvas")) {
      canvas.width = width * this.ratio;
      canvas.height = height * this.ratio;
    }
    if (!this.xy) return;
    if (whole) this.home();
    this.draw();
    this.settle();
  }

  openPanel(open = true) {
    this.root.classList.toggle("opened", open);
    this.find(".handle").setAttribute("aria-expanded", String(open));
  }

  home() {
    this.bounds ??= this.grid ? this.grid.bounds : boundsOf(this.xy);
    this.view.fit(this.bounds);
    this.view.home = this.view.zoom;
    this.view.fitted = true;
  }

  // -- drawing

  draw(moving = false, moved = 1) {
    const count = moving ? Math.min(this.renderer.count, MAX_WHILE_MOVING) : this.renderer.count;
    const style = pointStyle(this.renderer.count, this.view, this.ratio);
    const alpha = Math.min(0.9, style.alpha * Math.sqrt(this.renderer.count / Math.max(count, 1)));
    this.renderer.draw({ ...this.view.transform(), size: style.size, alpha, dim: Math.min(0.14, alpha * 0.3), moved, count });
    this.drawAbove();
    clearTimeout(this.settling);
    if (moving && !this.dragging) this.settling = setTimeout(() => this.settle(), SETTLE_MS);
  }

  // Runs at most once a frame, however many events request it.
  drawSoon() {
    this.waiting ??= requestAnimationFrame(() => { this.waiting = null; this.draw(true); });
  }

  // Draw everything, now that the view is still, and decide which names fit.
  settle() {
    clearTimeout(this.settling);
    if (!this.xy || !this.look) return;
    this.names.place();
    this.draw();
    this.names.nameSongs();
  }

  // Rows in view and not hidden; null if there are more than `most`.
  rowsInView(most) {
    const [left, high] = this.view.toMap(0, 0), [right, low] = this.view.toMap(this.view.width, this.view.height);
    const rows = this.index()?.inside({ left, right, low, high }, most);
    return rows && rows.filter((row) => this.states?.[row] !== HIDDEN);
  }

  glide(begun = performance.now()) {
    cancelAnimationFrame(this.gliding);
    const step = () => {
      const share = Math.min(1, (performance.now() - begun) / GLIDE_MS);
      this.draw(share < 1, share * share * (3 - 2 * share));
      if (share < 1) this.gliding = requestAnimationFrame(step); else this.settle();
    };
    step();
  }

  drawAbove() {
    if (!this.xy || !this.look) return;
    const place = (row) => (row === null || row === undefined || row < 0 ? null : [this.xy[2 * row], this.xy[2 * row + 1]]);
    drawOverlay(this.overlay, this.view, this.ratio, {
      ...this.look, picked: place(this.picked?.row), hovered: place(this.hovered), sounding: place(this.sounding), lasso: this.lasso,
      near: this.neighbours.hits.map((hit) => place(hit.row)).filter(Boolean), labels: this.names.placed,
    });
  }

  // Whether each point is selected, here or on the map beside; null without a selection.
  inside() { return this.lasso.length > 2 ? within(this.xy, this.lasso) : this.chosenBeside; }

  // Brighten the points that the legend shows, the search found and the lasso contains.
  mask() {
    if (!this.xy) return;
    const count = this.xy.length / 2, { codes } = this, hidden = codes ? this.legend.hiddenCodes() : null;
    const inside = this.inside();
    let found = null;
    if (this.search.rows?.length) { found = new Uint8Array(count); for (const row of this.search.rows) found[row] = 1; }
    if (!hidden && !inside && !found) {
      this.states = null;
    } else {
      this.states = new Uint8Array(count);
      for (let i = 0; i < count; i++) {
        if (hidden && hidden[codes[i]]) this.states[i] = HIDDEN;
        else this.states[i] = (!inside || inside[i]) && (!found || found[i]) ? BRIGHT : DIM;
      }
    }
    this.renderer.setStates(this.states);
    this.root.dataset.bright = String(this.states ? this.states.reduce((sum, state) => sum + (state === BRIGHT), 0) : count);
    this.draw();
  }

  // Fit the view to these points.
  showRows(rows) {
    if (!rows?.length) return;
    const some = new Float32Array(2 * rows.length);
    rows.forEach((row, i) => some.set(this.xy.subarray(2 * row, 2 * row + 2), 2 * i));
    this.view.fit(boundsOf(some), 0.2);
    this.view.zoom = Math.min(this.view.zoom, this.view.home * 30);
    this.settle();
  }

  // -- user input

  listen() {
    const on = (target, kind, act, options) => {
      target.addEventListener(kind, act, options);
      this.cleanups.push(() => target.removeEventListener(kind, act, options));
    };
    listenToPointers(this, this.find("canvas.points"), on);
    listenToKeys(this, on);
    this.links = new Links(this, on);
    on(window, "resize", () => this.fill());
    on(window, "tonelake:queue", () => this.fill());
    on(window, "tonelake:playing", () => this.markPlaying());
    on(this.find(".select"), "click", () => this.arm(!this.selecting()));
    on(this.find(".names"), "click", (event) => {
      const shown = event.currentTarget.getAttribute("aria-pressed") !== "true";
      event.currentTarget.setAttribute("aria-pressed", String(shown));
      this.settle();
    });
    on(this.find(".nearer"), "click", () => this.zoom(1.6));
    on(this.find(".farther"), "click", () => this.zoom(1 / 1.6));
    on(this.find(".whole"), "click", () => { this.home(); this.settle(); });
    on(this.find(".handle"), "click", () => this.openPanel(!this.root.classList.contains("opened")));
    on(this.find(".view"), "click", () => this.listInView());
    moveByArrows(this.find(".hint .songs"));
    const watch = new ResizeObserver(() => this.fill());
    watch.observe(this.stage);
    watch.observe(document.documentElement);
    this.cleanups.push(() => watch.disconnect());
  }

  zoom(factor) { this.view.zoomAt(this.view.width / 2, this.view.height / 2, factor); this.drawSoon(); }
  selecting() { return this.root.classList.contains("lassoing"); }

  arm(selecting) {
    this.root.classList.toggle("lassoing", selecting);
    this.find(".select").setAttribute("aria-pressed", String(selecting));
  }

  hover(x, y, reach) {
    const row = this.at(x, y, reach);
    this.root.classList.toggle("over", row >= 0);
    if (row !== this.hovered) { this.mark(row); this.links.send({ row }); }
    this.tips.moveTo(x, y);
  }

  at(x, y, reach) {
    const [mapX, mapY] = this.view.toMap(x, y);
    return this.index()?.nearest(mapX, mapY, reach / this.view.zoom, (row) => this.states?.[row] !== HIDDEN) ?? -1;
  }

  // Mark a point as hovered and show its names; -1: none.  `show`: bring it into view instead.
  mark(row, { show = false } = {}) {
    this.hovered = row;
    if (show && row >= 0) this.bringIntoView(row);
    this.drawAbove();
    this.tips.show(show ? -1 : row);
  }

  bringIntoView(row) {
    if (!this.xy) return;                // the song was known before the points; they bring it into view when they come
    const [x, y] = [this.xy[2 * row], this.xy[2 * row + 1]];
    if (this.view.shows(x, y)) return;
    Object.assign(this.view, { x, y });
    this.settle();
  }

  async click(x, y, reach) {
    const row = this.at(x, y, reach);
    if (row < 0) return;
    try {
      this.pick(await this.tips.clipAt(row));
    } catch (error) {
      this.say(error.message);
    }
  }

  play(song) {
    playNow(song);
    this.mark(song.row ?? -1, { show: true });
  }

  // Show a song, play it, list its neighbours; then notify Python and the other maps, whose work would delay the answer.
  async pick(clip, { silent = false } = {}) {
    this.picked = clip;
    if (!silent) this.openPanel();
    if (clip.row !== null && clip.row >= 0) this.bringIntoView(clip.row);
    this.drawAbove();
    await this.neighbours.show(clip, { silent });
    if (!silent && this.picked === clip) {
      this.tellPick(clip.clip_id);
      this.links.send({ clip: clip.clip_id });
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
    const known = this.picked;
    this.picked = null;
    this.neighbours.close();
    if (!silent && known) this.tellPick(null);
    if (!silent) this.arm(false);
    this.drawAbove();
  }

  drawLasso(at, first = false) {
    if (!at) this.lasso = [];
    else if (first) this.lasso = [this.view.toMap(...at)];
    else this.lasso.push(this.view.toMap(...at));
    this.drawAbove();
  }

  select(drawn) {
    const corners = drawn ? fewer(this.lasso, LASSO_PX / this.view.zoom) : [];
    this.lasso = corners.length > 2 ? corners.map((corner) => corner.map((value) => Number(value.toPrecision(5)))) : [];
    this.arm(false);
    this.chosenBeside = null;
    this.mask();
    this.links.selection();
    this.selection.show(this.lasso);
    this.tell("lasso", this.lasso.length ? this.lasso : null);
  }

  unselect() {
    this.lasso = [];
    this.select(false);
    this.stage.focus({ preventScroll: true });
  }

  // List the songs in view: what the points are, for those who cannot see them.
  async listInView() {
    const place = this.find(".hint .songs"), all = this.rowsInView(this.xy.length) ?? [], rows = all.sort((a, b) => a - b).slice(0, MOST_LISTED);
    this.find(".view").textContent = `In view: ${this.counted(all.length)}. List again`;
    if (!rows.length) { place.replaceChildren(); return; }
    const songs = await askJson(`${this.data.base}/rows?rows=${rows.join(",")}`).catch((error) => { this.say(error.message); return []; });
    place.replaceChildren(...songs.map((song) => songRow(song, { play: () => this.play(song), pick: () => this.pick(song) })));
  }

  async markPlaying() {
    const clip = playing();
    markSounding(this.root, clip);
    this.neighbours.sounds();
    const known = [this.picked, ...this.neighbours.hits].find((one) => one?.clip_id === clip);
    this.sounding = known?.row ?? -1;
    this.drawAbove();
    if (!clip || known || !this.data) return;
    const found = await askJson(`${this.data.base}/point?clip=${encodeURIComponent(clip)}`).catch(() => null);
    if (found && playing() === clip) { this.sounding = found.row; this.drawAbove(); }
  }

  free() {
    this.cleanups.forEach((undo) => undo());
    Object.values(this.pending).forEach((asked) => asked.abort());
    this.renderer?.free();
  }
}

export const { mount, unmount } = mountable(ClipMap);
