// The card beside the map: the picked clip, its player, and similar clips.

import { askJson, element, joinPlayers, pictureOf, placeOf, play, titleOf } from "./player.js";

export class Neighbours {
  constructor(map) {
    this.map = map;
    this.card = map.find(".side");
    this.audio = map.find("audio");
    this.list = map.find("ol");
    this.hits = [];
    this.current = -1;                   // index of the playing hit; -1: the picked clip itself
    joinPlayers(this.audio);
    this.audio.addEventListener("playing", () => performance.mark("tonelake:sound"));
  }

  trouble(sentence) { this.map.find(".trouble").textContent = sentence; }

  async show(clip, { silent }) {
    this.card.classList.add("open");
    this.introduce(clip);
    this.map.find("img").removeAttribute("src");
    this.card.dataset.clip = clip.clip_id;
    this.clip = clip;
    this.current = -1;
    const answer = this.ask(clip);
    if (silent) {
      this.audio.removeAttribute("src");
      this.audio.dataset.clip = "";
    } else this.listen(clip);
    await answer;
    if (this.clip === clip && this.current < 0) this.picture(clip);
  }

  introduce(clip) {
    this.map.find("h4").textContent = titleOf(clip);
    this.map.find(".place").textContent = placeOf(clip);
  }

  picture(clip) { this.map.find("img").src = pictureOf(clip.clip_id); }

  listen(clip) { play(this.audio, clip.clip_id, (sentence) => this.trouble(sentence)); }

  async ask(clip) {
    const { near, k, notSame, layer } = this.map.data, mine = this.map.restart("near");
    const about = this.map.find(".about");
    about.textContent = `Nearest in layer ${layer}`;
    this.hits = [];
    try {
      const by = new URLSearchParams({ k, not_same: notSame ?? "" });
      this.hits = await askJson(`${near}/${encodeURIComponent(clip.clip_id)}?${by}`, mine.signal);
      this.list.replaceChildren(...this.hits.map((hit, i) => this.row(hit, i)));
      if (!this.hits.length) about.textContent = "No other clip to compare with.";
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

  row(hit, i) {
    const words = element("span", { className: "words", children: [
      element("b", { text: titleOf(hit) }), element("span", { text: placeOf(hit) })] });
    const go = element("button", { type: "button", text: "→", title: hit.row === null ? "Not on this map. `tonelake map` adds new clips" : "Show its neighbours (Enter)" });
    go.disabled = hit.row === null;
    go.onclick = (event) => { event.stopPropagation(); this.choose(i); this.follow(); };
    const row = element("li", { children: [words, element("span", { className: "score", text: hit.score.toFixed(3) }), go] });
    row.dataset.clip = hit.clip_id;
    row.onclick = () => this.choose(i);
    return row;
  }

  // Play the i-th hit, or the picked clip for -1.
  choose(i) {
    this.current = i;
    const clip = i < 0 ? this.clip : this.hits[i];
    this.introduce(clip);
    this.picture(clip);
    this.listen(clip);
    [...this.list.children].forEach((row, number) => row.classList.toggle("current", number === i));
    this.list.children[i]?.scrollIntoView({ block: "nearest" });
    this.map.hovered = clip.row ?? -1;
    this.map.drawAbove();
  }

  move(step) { if (this.hits.length) this.choose(Math.min(Math.max(this.current + step, -1), this.hits.length - 1)); }

  // Make the playing hit the picked clip.
  follow() {
    const hit = this.hits[this.current];
    if (hit && hit.row !== null) this.map.pick(hit);
  }

  toggle() {
    if (this.audio.paused) { if (this.audio.dataset.clip) this.audio.play().catch(() => {}); else this.listen(this.clip); }
    else this.audio.pause();
  }

  close() {
    this.map.restart("near");
    this.audio.pause();
    this.hits = [];
    this.card.classList.remove("open");
    delete this.card.dataset.answered;
    delete this.card.dataset.clip;
  }
}
