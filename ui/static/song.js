// The chosen song: its name and labels, the spectrum of the whole recording with its best moments, and songs asked for beside it.
// Data: {song, ids: clips of the song, moments: [{clip_id, start_s, duration_s}], facts: [[label, text]], tags, asked: [{clip_id,
// title, artist, minus}], trouble}.  Sends `act`: {do: "artist", "album", "map", "remove" or "nothing", value}.

import { element, enqueue, icon, minutes, mountable, paused, playNow, playing, seekTo, titleOf, toggle } from "./player.js";

const STEP_S = 5;                        // an arrow key on the picture

class Song {
  constructor(host) {
    this.root = host.querySelector(".song");
    [this.shown, this.length_s] = ["", 0];
    this.stop = new AbortController();
    const { signal } = this.stop;
    window.addEventListener("tonelake:playing", () => this.marks(), { signal });
    window.addEventListener("tonelake:time", (event) => this.progress(event.detail), { signal });
    this.sizes = new ResizeObserver(() => this.paint());
  }

  update({ data, setTriggerValue }) {
    this.send = setTriggerValue;
    const text = JSON.stringify(data), ink = getComputedStyle(this.root).color;
    if (text === this.shown) {
      if (ink !== this.ink) this.paint();
      return;
    }
    const same = this.data?.song.clip_id === data.song.clip_id;
    [this.shown, this.data] = [text, data];
    if (!same) [this.levels, this.length_s] = [null, 0];
    this.draw();
    if (!same) this.fetchPicture();
  }

  draw() {
    const { song, facts, tags, asked, moments, trouble } = this.data;
    const act = (what, value) => () => this.send("act", { do: what, value });
    this.play = button("", () => this.toggle(), "play");
    const by = [
      ...(song.artist ? [button(song.artist, act("artist", song.artist), "", `Songs by ${song.artist}`)] : []),
      ...(song.album ? [button(song.album, act("album", song.album), "", `Songs of the album ${song.album}`)] : []),
    ];
    const queued = button("Add to queue", () => { enqueue([{ ...song, start_s: 0 }]); queued.textContent = "In the queue"; });
    this.picture = element("div", { className: "picture", children: [element("canvas"), ...moments.map(() => element("u")), element("i"), element("p", { text: "Reading the recording …" })] });
    const canvas = this.picture.querySelector("canvas");
    canvas.tabIndex = 0;
    canvas.setAttribute("role", "slider");
    canvas.setAttribute("aria-label", `Place in ${titleOf(song)}. Click to play from there, arrows move.`);
    canvas.setAttribute("aria-valuemin", "0");
    canvas.setAttribute("aria-valuenow", "0");
    canvas.setAttribute("aria-valuetext", "0:00");
    this.picture.onclick = (event) => {
      const box = this.picture.getBoundingClientRect();
      if (this.length_s) this.playFrom((event.clientX - box.left) / box.width * this.length_s);
    };
    canvas.onkeydown = (event) => {
      const way = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
      if (!way && event.key !== "Enter") return;
      event.preventDefault();
      event.stopPropagation();
      if (way && this.mine()) seekTo((this.time_s ?? 0) + way * STEP_S); else this.playFrom(this.time_s ?? 0);
    };
    const parts = [
      element("div", { className: "head", children: [
        this.play,
        element("div", { children: [element("h2", { text: titleOf(song) }), element("div", { className: "by", children: by })] }),
        element("div", { className: "actions", children: [queued, button("Show on the map", act("map", song.clip_id)), button("Start over", act("nothing"))] })] }),
      element("ul", { className: "facts", children: [
        ...facts.map(([label, value]) => element("li", { children: [element("span", { text: `${label} ` }), value] })),
        ...(tags.length ? [element("li", { children: [element("span", { text: "Sounds " }), tags.join(", ")] })] : [])] }),
      this.picture,
    ];
    if (moments.length) {
      parts.push(element("div", { className: "moments", children: [
        element("span", { text: "Best moments, most like the songs below:" }),
        ...[...moments].sort((a, b) => a.start_s - b.start_s).map((one) => button(minutes(one.start_s), () => this.playFrom(one.start_s), "moment", `Play from ${minutes(one.start_s)}`, "play"))] }));
    }
    if (asked.length) {
      parts.push(element("div", { className: "asked", children: asked.map((one) => button(`${one.minus ? "Less like" : "Also like"} ${one.title}  ✕`, act("remove", one.clip_id), one.minus ? "minus" : "", `Remove ${one.title} from the query`)) }));
    }
    parts.push(element("p", { className: "trouble", text: trouble ?? "" }));
    this.root.replaceChildren(...parts);
    this.root.dataset.song = song.clip_id;
    this.sizes.disconnect();
    this.sizes.observe(this.picture);
    this.place();
    this.marks();
    this.paint();
  }

  // -- playing

  mine() { return this.data.ids.includes(playing() ?? ""); }

  toggle() {
    if (this.mine()) toggle(); else this.playFrom(0);
  }

  playFrom(at_s) { playNow({ ...this.data.song, start_s: at_s }, at_s); }

  marks() {
    if (!this.play) return;
    const sounds = this.mine() && !paused();
    this.play.replaceChildren(icon(sounds ? "pause" : "play"));
    this.play.setAttribute("aria-label", `${sounds ? "Pause" : "Play"} ${titleOf(this.data.song)}`);
    this.root.dataset.playing = sounds ? "yes" : "";
    if (!this.mine()) this.progress({ clip_id: null });
  }

  progress({ clip_id, time_s }) {
    const line = this.picture?.querySelector("i"), shown = clip_id && this.data.ids.includes(clip_id) && this.length_s;
    if (!line) return;
    line.style.display = shown ? "block" : "none";
    if (!shown) return;
    this.time_s = time_s;
    line.style.left = `${100 * Math.min(time_s / this.length_s, 1)}%`;
    const canvas = this.picture.querySelector("canvas");
    canvas.setAttribute("aria-valuenow", String(Math.round(time_s)));
    canvas.setAttribute("aria-valuetext", minutes(time_s));
  }

  // -- the picture

  async fetchPicture() {
    const clip = this.data.song.clip_id, say = (text) => { const place = this.picture.querySelector("p"); if (place) place.textContent = text; };
    try {
      const answer = await fetch(`/tonelake/picture/${encodeURIComponent(clip)}`, { signal: this.stop.signal });
      if (!answer.ok) throw new Error((await answer.json().catch(() => ({}))).error ?? `The app answered with status ${answer.status}.`);
      const levels = new Uint8Array(await answer.arrayBuffer());
      if (this.data.song.clip_id !== clip) return;
      [this.levels, this.bands, this.length_s] = [levels, Number(answer.headers.get("X-Bands")), Number(answer.headers.get("X-Length"))];
      say("");
      this.root.dataset.pictured = clip;
      this.picture.querySelector("canvas").setAttribute("aria-valuemax", String(Math.round(this.length_s)));
      this.place();
      this.paint();
    } catch (error) {
      if (this.data.song.clip_id === clip && !this.stop.signal.aborted) say(error.message);
    }
  }

  place() {
    [...(this.picture?.querySelectorAll("u") ?? [])].forEach((mark, i) => {
      const { start_s, duration_s } = this.data.moments[i];
      mark.style.display = this.length_s ? "block" : "none";
      mark.style.left = `${100 * start_s / this.length_s}%`;
      mark.style.width = `${100 * Math.min(duration_s, this.length_s - start_s) / this.length_s}%`;
    });
  }

  // Levels from transparent to the colour of the text.
  paint() {
    const canvas = this.picture?.querySelector("canvas");
    if (!canvas || !this.levels) return;
    this.ink = getComputedStyle(this.root).color;
    const columns = this.levels.length / this.bands, [red, green, blue] = this.ink.match(/[\d.]+/g).map(Number);
    this.picture.querySelector("p").textContent = "";
    [canvas.width, canvas.height] = [columns, this.bands];
    const pen = canvas.getContext("2d"), image = pen.createImageData(columns, this.bands);
    for (let column = 0; column < columns; column++) {
      for (let band = 0; band < this.bands; band++) {
        const level = this.levels[column * this.bands + band] / 255;
        image.data.set([red, green, blue, Math.round(215 * level ** 1.8)], 4 * ((this.bands - 1 - band) * columns + column));
      }
    }
    pen.putImageData(image, 0, 0);
  }

  free() {
    this.stop.abort();
    this.sizes.disconnect();
  }
}

function button(text, action, kind = "", title = "", picture = "") {
  const made = element("button", { type: "button", className: kind, title, onclick: action, children: [...(picture ? [icon(picture)] : []), text] });
  if (title) made.setAttribute("aria-label", title);
  return made;
}

export const { mount, unmount } = mountable(Song);
