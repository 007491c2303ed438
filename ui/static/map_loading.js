// Fetching the points of a map and their colours.  A newer request aborts an older one, and a failure becomes a sentence on the map.

import { askBytes, askJson } from "./parts.js";

const MAX_GLIDING = 300_000;             // points up to which they glide from one layer to the next

// Fetch the points of the layer that Python chose, and show them.  `map`: a ClipMap.
export async function loadPoints(map) {
  const { base } = map.data;
  const mine = map.restart("load");
  try {
    const early = globalThis.tonelakeEarly?.get(base + map.data.stamp);
    globalThis.tonelakeEarly?.set(base + map.data.stamp, null);
    const { buffer, order } = await askBytes(early ?? `${base}/points`, mine.signal);
    if (mine.signal.aborted) return;
    const xy = new Float32Array(buffer);
    const glides = order === map.order && map.xy && xy.length / 2 <= MAX_GLIDING
      && !window.matchMedia("(prefers-reduced-motion: reduce)").matches;
    const before = glides ? map.xy : null;
    if (order !== map.order) { map.codes = null; map.states = null; map.search.clear({ focus: false }); }
    map.tips.clear();                 // the clip that a song is drawn at can be another
    map.names.clear();
    map.hovered = -1;
    [map.xy, map.order, map.grid] = [xy, order, null];
    map.renderer.setPoints(xy, before);
    map.say(xy.length ? "" : "This map has no points. `tonelake map` lays out the clips that are embedded.");
    map.bounds = null;
    if (!map.view.fitted) map.home();
    if (before) map.glide(); else map.draw();
    requestAnimationFrame(() => requestAnimationFrame(() => {      // the second callback runs after the first frame was shown
      map.root.dataset.points = String(xy.length / 2);
      map.root.dataset.layer = map.data.layer;
      map.find(".hint .about").textContent = `${map.counted(xy.length / 2)} in layer ${map.data.layer}`;
      performance.mark("tonelake:points", { detail: { points: xy.length / 2 } });
      setTimeout(() => { map.index(); map.settle(); }, 0);
    }));
    map.picked = map.picked && { ...map.picked, row: null };
    loadColours(map);
    map.names.load(mine.signal);
    if (map.data.pick) map.pickClip(map.data.pick);
    map.markPlaying();
    map.links.send({ asks: "selection" });
  } catch (error) {
    if (error.name !== "AbortError") map.say(error.message);
  }
}

// Fetch the colour of each point and the legend.
export async function loadColours(map) {
  const { base, colour } = map.data, mine = map.restart("colour");
  try {
    const by = `column=${encodeURIComponent(colour)}`;
    const [legend, { buffer, order }] = await Promise.all([
      askJson(`${base}/legend?${by}`, mine.signal), askBytes(`${base}/colours?${by}`, mine.signal)]);
    if (order !== map.order) return;                              // belongs to a map that was replaced meanwhile
    map.codes = new Uint16Array(buffer);
    map.renderer.setCodes(map.codes);
    map.legend.about = map.names.ofClusters(legend);
    map.legend.show(legend, `${base}/legend?${by}`);
    map.recolour();
    map.root.dataset.colour = colour;
    map.mask();
  } catch (error) {
    if (error.name !== "AbortError") map.say(error.message);
  }
}
