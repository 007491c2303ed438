// Which names are written on the map: of clusters, closer up of artists, and of single songs where few points are in view.

import { askJson, titleOf } from "./parts.js";

const ARTISTS_FROM = 1.5;                // zoom, relative to the whole map, from which artists are named
const MOST_NAMED_SONGS = 60;            // points in view up to which songs are named
const ROOM_PX = 9_000;                   // area a name
const GAP_PX = 6;

const STYLES = {                         // size in px, weight, distance above the point in px
  cluster: [13, 600, 0], artist: [12, 500, 0], song: [11.5, 400, 13],
};

const fontOf = (kind, family) => `${STYLES[kind][1]} ${STYLES[kind][0]}px ${family}`;

export class Names {
  constructor(map) {
    this.map = map;
    this.places = [];                    // clusters and artists: {kind, name, points, x, y}
    this.clear();
  }

  clear() {
    this.songs = [];                     // in view, if they are few
    this.placed = [];                    // names that are written
  }

  async load(signal) {
    const { map } = this;
    try {
      this.places = await askJson(`${map.data.base}/places`, signal);
      if (map.legend.legend) map.legend.describe(this.ofClusters(map.legend.legend));
      map.settle();
    } catch (error) {
      if (error.name !== "AbortError") this.places = [];
    }
  }

  // Names of clusters for the legend: a Map of number, as text -> name and characteristic labels with their shares.
  ofClusters({ column }) {
    const clusters = column === "cluster" ? this.places.filter((place) => place.kind === "cluster") : [];
    return new Map(clusters.map((one) => [String(one.cluster), {
      name: one.name ?? `Cluster ${one.cluster + 1}`, about: one.labels.join(", "),
    }]));
  }

  // Decide which names are written in this view.
  place() {
    const { map } = this, shown = map.find(".names").getAttribute("aria-pressed") === "true";
    const candidates = [...this.places.filter((place) => place.name), ...this.songs];
    this.placed = shown ? placeLabels(map.overlay, map.view, candidates, map.look.font) : [];
    map.root.dataset.labels = String(this.placed.length);
  }

  // Name single songs where few are in view.
  async nameSongs() {
    const { map } = this, wanted = map.rowsInView(MOST_NAMED_SONGS) ?? [], known = this.songs.map((one) => one.row);
    if (wanted.length === known.length && wanted.every((row) => known.includes(row))) return;
    const mine = map.restart("names");
    try {
      const songs = wanted.length ? await askJson(`${map.data.base}/rows?rows=${wanted.join(",")}`, mine.signal) : [];
      if (mine.signal.aborted) return;
      this.songs = songs.map((song) => ({
        kind: "song", name: titleOf(song), row: song.row, x: map.xy[2 * song.row], y: map.xy[2 * song.row + 1],
      }));
      this.place();
      map.drawAbove();
    } catch { /* without names; the next movement asks again */ }
  }
}

// Return the candidates to be written, in map coordinates, without overlap: the earlier ones first.  A candidate has kind, name, x, y.
function placeLabels(context, view, candidates, family) {
  const most = Math.max(4, Math.round(view.width * view.height / ROOM_PX)), taken = [], placed = [];
  for (const one of candidates) {
    if (placed.length >= most) break;
    if (one.kind === "artist" && view.zoom < ARTISTS_FROM * view.home) continue;
    const [x, at] = view.toScreen(one.x, one.y), y = at - STYLES[one.kind][2];
    if (x < 0 || y < 0 || x > view.width || y > view.height) continue;
    context.font = fontOf(one.kind, family);
    const name = shortened(one.name), half = context.measureText(name).width / 2 + GAP_PX;
    const high = STYLES[one.kind][0] / 2 + GAP_PX;
    const box = [x - half, y - high, x + half, y + high];
    if (box[0] < 0 || box[2] > view.width) continue;
    if (taken.some((other) => box[0] < other[2] && box[2] > other[0] && box[1] < other[3] && box[3] > other[1])) continue;
    taken.push(box);
    placed.push({ ...one, name });
  }
  return placed;
}

const shortened = (name) => (name.length > 34 ? `${name.slice(0, 32)}…` : name);

// Write placed names, each with a halo in the colour of the background.
export function drawLabels(context, view, placed, { ink, ground, font }) {
  context.textAlign = "center";
  context.textBaseline = "middle";
  context.lineJoin = "round";
  for (const one of placed) {
    const [x, at] = view.toScreen(one.x, one.y), y = at - STYLES[one.kind][2];
    if (x < -200 || y < -20 || x > view.width + 200 || y > view.height + 20) continue;
    context.font = fontOf(one.kind, font);
    context.strokeStyle = ground;
    context.lineWidth = 4;
    context.globalAlpha = 0.92;
    context.strokeText(one.name, x, y);
    context.globalAlpha = 1;
    context.fillStyle = ink;
    context.fillText(one.name, x, y);
  }
}
