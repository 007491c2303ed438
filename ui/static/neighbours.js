// The picked song in the panel: its names and picture, and the songs nearest to it.

import { askJson, current, enqueue, paused, pictureOf, placeOf, playing, playNow, titleOf, toggle } from "./player.js";
import { moveByArrows, songRow } from "./map_rows.js";

export class Neighbours {
  constructor(map) {
    this.map = map;
    this.card = map.find(".side");
    this.find = (selector) => this.card.querySelector(selector);
    this.list = this.find("ol");
    this.hits = [];
    this.current = -1;                   // index of the hit that is shown; -1: the picked song itself
    moveByArrows(this.list);
    this.find(".play").onclick = () => (playing() === this.clip?.clip_id ? toggle() : playNow(this.clip));
    this.find(".enqueue").onclick = () => enqueue([this.clip]);
    this.find(".listen").onclick = () => map.ask("open", this.clip.clip_id);
    this.find(".close").onclick = () => map.clear();
  }

  async show(clip, { silent }) {
    this.card.hidden = false;
    this.clip = clip;
    this.current = -1;
    this.find(".title").textContent = titleOf(clip);
    this.find(".place").textContent = placeOf(clip);
    this.find("img").removeAttribute("src");
    this.card.dataset.clip = clip.clip_id;
    const answer = this.ask(clip);
    if (!silent) playNow(clip);
    this.sounds();
    await answer;
    if (this.clip === clip) this.find("img").src = pictureOf(clip.clip_id);
  }

  async ask(clip) {
    const { near, k, notSame, layer, points } = this.map.data, mine = this.map.restart("near"), about = this.find(".about");
    about.textContent = `Nearest in layer ${layer}`;
    this.hits = [];
    try {
      const by = new URLSearchParams({ k, not_same: notSame ?? "", points });
      this.hits = await askJson(`${near}/${encodeURIComponent(clip.clip_id)}?${by}`, mine.signal);
      this.list.replaceChildren(...this.hits.map((hit, i) => songRow(hit, {
        score: hit.score, play: () => this.choose(i), pick: hit.row === null ? null : () => this.map.pick(hit),
      })));
      if (!this.hits.length) about.textContent = "No other song to compare with.";
      this.card.dataset.answered = clip.clip_id;
      this.card.dataset.layer = layer;
      requestAnimationFrame(() => performance.mark("tonelake:answer"));
      this.map.drawAbove();
    } catch (error) {
      if (error.name === "AbortError") return;
      this.list.replaceChildren();
      about.textContent = error.message;
    }
  }

  // Play the i-th hit, or the picked song for -1, and mark it on the map.
  choose(i) {
    this.current = i;
    const clip = i < 0 ? this.clip : this.hits[i];
    playNow(clip);
    [...this.list.children].forEach((row, number) => row.classList.toggle("current", number === i));
    this.list.children[i]?.scrollIntoView({ block: "nearest" });
    this.map.mark(clip.row ?? -1);
  }

  move(step) { if (this.hits.length) this.choose(Math.min(Math.max(this.current + step, -1), this.hits.length - 1)); }

  // Make the hit that is shown the picked song.
  follow() {
    const hit = this.hits[this.current];
    if (hit && hit.row !== null) this.map.pick(hit);
    return Boolean(hit);
  }

  sounds() {
    const sounding = current() && playing() === this.clip?.clip_id && !paused();
    this.find(".play").textContent = sounding ? "Pause" : "Play";
  }

  close() {
    this.map.restart("near");
    this.hits = [];
    this.card.hidden = true;
    delete this.card.dataset.answered;
    delete this.card.dataset.clip;
  }
}
