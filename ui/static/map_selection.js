// The selection in the panel: the songs within the lasso, to play, queue, save, and filter the other pages by.

import { askJson, enqueue, playAll } from "./player.js";
import { moveByArrows, songRow } from "./map_rows.js";

export class Selection {
  constructor(map) {
    this.map = map;
    this.section = map.find(".chosen");
    this.find = (selector) => this.section.querySelector(selector);
    this.songs = [];
    this.find(".play").onclick = () => playAll(this.songs);
    this.find(".enqueue").onclick = () => {
      const added = enqueue(this.songs);
      this.find(".about").textContent = `${added.toLocaleString()} added to the queue.`;
    };
    this.find(".close").onclick = () => this.map.unselect();
    moveByArrows(this.find(".songs"));
  }

  // `lasso`: corners of the polygon, in map coordinates; fewer than three select nothing.
  async show(lasso) {
    const mine = this.map.restart("chosen"), { base } = this.map.data;
    this.section.hidden = lasso.length < 3;
    delete this.section.dataset.answered;
    if (this.section.hidden) return;
    const within = `within=${lasso.flat().map((value) => Number(value.toPrecision(6))).join("_")}`;
    this.map.openPanel();
    try {
      const { songs, clips, shown } = await askJson(`${base}/selected?${within}`, mine.signal);
      this.songs = shown;
      const counted = `${songs.toLocaleString()} ${songs === 1 ? "song" : "songs"}`;
      this.find(".count").textContent = songs === clips ? `Selected: ${counted}` : `Selected: ${counted}, ${clips.toLocaleString()} clips`;
      this.find(".about").textContent = (songs > shown.length ? `The first ${shown.length.toLocaleString()} are listed; the files contain all. ` : "")
        + (songs ? "The other pages offer this selection as a filter." : "No point is within the line. Draw around some points.");
      for (const [name, file] of [["playlist", "selected.m3u8"], ["table", "selected.csv"], ["manifest", "manifest.csv"]]) {
        this.find(`.${name}`).href = `${base}/${file}?${within}`;
      }
      for (const part of this.section.querySelectorAll(".actions > *")) part.hidden = !songs;
      this.find(".songs").replaceChildren(...shown.map((song) => songRow(song, {
        play: () => this.map.play(song), pick: () => this.map.pick(song),
      })));
      this.section.dataset.answered = String(clips);
      this.section.dataset.songs = String(songs);
    } catch (error) {
      if (error.name !== "AbortError") this.find(".about").textContent = error.message;
    }
  }
}
