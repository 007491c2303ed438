// The map's search: matching points are brightened at once, and the panel lists songs and artists, found with typing errors too.
// Enter plays the first song, arrow down moves into the list, Escape clears.

import { askBytes, askJson, element } from "./player.js";
import { moveByArrows, songRow } from "./map_rows.js";

const TYPING_MS = 150;

export class Search {
  constructor(map) {
    this.map = map;
    this.section = map.find(".found");
    this.find = (selector) => this.section.querySelector(selector);
    this.input = map.find(".tools input");
    this.rows = null;                    // of the points that match; null without a search
    this.songs = [];
    this.looked = "";
    const { input } = this;
    input.addEventListener("input", () => { clearTimeout(this.typed); this.typed = setTimeout(() => this.look(), TYPING_MS); });
    input.addEventListener("keydown", (event) => {
      event.stopPropagation();           // keep typed keys from the page's own shortcuts
      if (event.key === "Enter") this.enter();
      else if (event.key === "Escape") this.clear();
      else if (event.key === "ArrowDown") this.section.querySelector("li button")?.focus();
      else return;
      event.preventDefault();
    });
    for (const list of this.section.querySelectorAll("ol, ul")) moveByArrows(list, input);
    this.section.addEventListener("keydown", (event) => { if (event.key === "Escape") { event.stopPropagation(); this.clear(); } });
    this.find(".close").onclick = () => this.clear();
    this.find(".all").onclick = () => this.map.showRows(this.rows);
  }

  async look() {
    const text = this.input.value.trim(), mine = this.map.restart("search"), { base } = this.map.data, by = `q=${encodeURIComponent(text)}`;
    this.looked = text;
    if (!text) { this.clear({ focus: false }); return; }
    const count = this.find(".count");
    this.section.hidden = false;
    delete this.section.dataset.answered;
    this.songs = [];
    count.textContent = "Searching";
    this.map.openPanel();
    // Names that contain the text are listed at once.  Misspelt ones may take longer: at first, names are indexed for that.
    const [literal, misspelt] = [0, 1].map((errors) => askJson(`${base}/find?${by}&misspelt=${errors}`, mine.signal));
    for (const answer of [literal, misspelt]) answer.catch(() => {});
    try {
      const { buffer } = await askBytes(`${base}/search?${by}`, mine.signal), rows = [...new Uint32Array(buffer)];
      this.list(await literal, rows);
      count.textContent = `${rows.length ? `${this.map.counted(rows.length)} found. ` : ""}Searching for similar names`;
      this.list(await misspelt, rows);
      count.textContent = this.rows.length ? `${this.map.counted(this.rows.length)} found`
        : `No song or artist on this map is named like “${text}”. Try fewer letters.`;
      this.section.dataset.answered = text;
    } catch (error) {
      if (error.name !== "AbortError") count.textContent = error.message;
    }
  }

  // Show songs and artists, and brighten their points and `rows`.
  list({ songs, artists }, rows) {
    this.songs = songs;
    this.rows = [...new Set([...rows, ...songs.map((song) => song.row)])];
    this.map.mask();
    const held = this.section.contains(this.section.getRootNode().activeElement);
    this.find(".artists").replaceChildren(...artists.map((artist) => this.artist(artist)));
    this.find(".songs").replaceChildren(...songs.map((song) => songRow(song, {
      play: () => this.map.play(song), pick: () => this.map.pick(song),
    })));
    if (held) (this.section.querySelector("li button") ?? this.input).focus();
    this.find(".all").hidden = this.rows.length < 2;
  }

  artist({ name, points }) {
    const about = element("span", { text: `Artist · ${this.map.counted(points)}` });
    const button = element("button", { type: "button", className: "main", children: [
      element("span", { className: "words", children: [element("b", { text: name }), about] })] });
    button.onclick = async () => {
      this.input.value = name;
      await this.look();
      this.map.showRows(this.rows);
    };
    return element("li", { children: [button] });
  }

  // Pick the first song that was found, and play it.
  async enter() {
    clearTimeout(this.typed);
    const listed = this.looked === this.input.value.trim() && (this.songs.length || this.section.dataset.answered === this.looked);
    if (!listed) await this.look();
    if (this.songs.length && !this.section.hidden) this.map.pick(this.songs[0]);
  }

  clear({ focus = true } = {}) {
    const searched = this.rows !== null;
    this.map.restart("search");
    clearTimeout(this.typed);
    this.input.value = this.looked = "";
    this.section.hidden = true;
    delete this.section.dataset.answered;
    [this.rows, this.songs] = [null, []];
    if (searched) this.map.mask();
    if (focus) this.map.stage.focus({ preventScroll: true });
  }
}
