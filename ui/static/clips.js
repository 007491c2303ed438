// A list of playable clips: each row has player, spectrogram, score and layer profile.  Arrows move, space plays, Enter opens.

import { element, joinPlayers, mountable, pictureOf, placeOf, play, titleOf, typing } from "./player.js";

const PICTURED_S = 30;                   // duration shown in a spectrogram
const WORDS = {                          // labels and titles of a row's buttons; the pressed one and its clip are sent to Python
  open: ["similar", "Find similar clips (Enter)"],
  more: ["+", "Add this clip to the query"],
  less: ["−", "Subtract this clip from the query"],
  map: ["map", "Show it on the map"],
};

class ClipList {
  constructor(host) {
    this.root = host.querySelector(".clips");
    this.audio = host.querySelector("audio");
    joinPlayers(this.audio);
    this.current = -1;
    this.shown = "";
    this.listener = (event) => this.key(event);
    document.addEventListener("keydown", this.listener);
    for (const kind of ["play", "pause", "ended"]) this.audio.addEventListener(kind, () => this.marks());
    this.audio.addEventListener("timeupdate", () => this.progress());
  }

  update({ data, setTriggerValue }) {
    this.tell = setTriggerValue;
    const text = JSON.stringify(data);
    if (text === this.shown) return;     // a change of theme, or a rerun of the page
    this.shown = text;
    this.data = data;
    this.current = data.clips.findIndex((clip) => clip.clip_id === this.audio.dataset.clip);
    this.root.style.setProperty("--profile", data.layers?.length > 1 ? "110px" : "0px");
    this.root.replaceChildren(...data.clips.map((clip, i) => this.row(clip, i)));
    this.root.dataset.count = String(data.clips.length);
    this.marks();
  }

  row(clip, i) {
    const button = element("button", { type: "button", className: "play", text: "▶" });
    button.setAttribute("aria-label", `Play ${titleOf(clip)}`);
    button.onclick = () => this.toggle(i);
    const picture = element("div", { className: "sound", title: "Click to play from here", children: [
      element("img", { src: pictureOf(clip.clip_id), alt: "", loading: "lazy" }), element("i")] });
    picture.querySelector("img").onerror = (event) => event.target.remove();
    picture.onclick = (event) => this.seek(i, event.offsetX / picture.clientWidth);
    const words = element("div", { className: "words", children: [
      element("b", { text: titleOf(clip) }), element("span", { text: placeOf(clip) }),
      ...(clip.note ? [element("span", { className: "note", text: clip.note })] : []),
      ...(clip.tags?.length ? [element("span", { className: "tags", text: clip.tags.join(", ") })] : []),
      element("span", { className: "trouble" })] });
    words.title = [titleOf(clip), placeOf(clip), clip.tags?.join(", "), clip.source, clip.clip_id].filter(Boolean).join("\n");
    const actions = (this.data.actions ?? []).map((action) => {
      const made = element("button", { type: "button", text: WORDS[action][0], title: WORDS[action][1] });
      made.onclick = () => this.tell(action, clip.clip_id);
      made.dataset.action = action;
      return made;
    });
    const row = element("div", { className: "row", children: [
      button, element("span", { className: "rank", text: clip.rank ?? i + 1 }), words, picture, this.profile(clip),
      element("span", { className: "score", text: typeof clip.score === "number" ? clip.score.toFixed(3) : clip.score ?? "" }),
      element("div", { className: "actions", children: actions })] });
    row.dataset.clip = clip.clip_id;
    row.onclick = (event) => { if (!event.target.closest("button, .sound")) this.choose(i); };
    return row;
  }

  // Draw the cosine to the query at every layer, for the clip and for an average clip.
  profile(clip) {
    const place = element("div", { className: "profile" });
    if (!clip.profile || clip.profile.length < 2) return place;
    const all = [...clip.profile, ...this.data.usual], low = Math.min(...all), high = Math.max(...all);
    const x = (i) => 3 + i * 104 / (clip.profile.length - 1), y = (value) => 31 - 28 * (value - low) / (high - low || 1);
    const line = (values) => values.map((value, i) => `${x(i).toFixed(1)},${y(value).toFixed(1)}`).join(" ");
    const space = "http://www.w3.org/2000/svg", svg = document.createElementNS(space, "svg");
    for (const [kind, values] of [["usual", this.data.usual], ["own", clip.profile]]) {
      const drawn = document.createElementNS(space, "polyline");
      drawn.setAttribute("class", kind);
      drawn.setAttribute("points", line(values));
      svg.append(drawn);
    }
    const at = this.data.layers.indexOf(this.data.layer);
    if (at >= 0) {
      const dot = document.createElementNS(space, "circle");
      for (const [name, value] of [["cx", x(at)], ["cy", y(clip.profile[at])], ["r", 3]]) dot.setAttribute(name, value);
      svg.append(dot);
    }
    const title = document.createElementNS(space, "title");
    title.textContent = "By layer: " + this.data.layers.map((name, i) => `${name} ${clip.profile[i].toFixed(2)} (usual ${this.data.usual[i].toFixed(2)})`).join(", ");
    svg.append(title);
    place.append(svg);
    return place;
  }

  listen(i) {
    const { clip_id: clip } = this.data.clips[i], row = this.root.children[i];
    play(this.audio, clip, (sentence) => { row.querySelector(".trouble").textContent = sentence; });
  }

  toggle(i) {
    this.choose(i);
    if (this.audio.dataset.clip === this.data.clips[i].clip_id && !this.audio.paused) this.audio.pause();
    else if (this.audio.dataset.clip === this.data.clips[i].clip_id && this.audio.currentTime > 0 && !this.audio.ended) this.audio.play().catch(() => {});
    else this.listen(i);
  }

  seek(i, share) {
    this.choose(i);
    const from = share * Math.min(PICTURED_S, this.data.clips[i].duration_s ?? PICTURED_S);
    if (this.audio.dataset.clip !== this.data.clips[i].clip_id || this.audio.paused) this.listen(i);
    const go = () => { this.audio.currentTime = from; };
    if (this.audio.readyState > 0) go(); else this.audio.addEventListener("loadedmetadata", go, { once: true });
  }

  choose(i) {
    this.current = i;
    this.marks();
    this.root.children[i]?.scrollIntoView({ block: "nearest" });
  }

  marks() {
    [...this.root.children].forEach((row, i) => {
      const mine = this.data.clips[i].clip_id === this.audio.dataset.clip;
      row.classList.toggle("current", i === this.current);
      row.querySelector(".play").textContent = mine && !this.audio.paused ? "❚❚" : "▶";
      if (!mine) row.querySelector(".sound i").style.display = "none";
    });
    this.root.dataset.playing = this.audio.paused ? "" : this.audio.dataset.clip ?? "";
  }

  progress() {
    const i = this.data.clips.findIndex((clip) => clip.clip_id === this.audio.dataset.clip);
    if (i < 0) return;
    const share = this.audio.currentTime / Math.min(PICTURED_S, this.data.clips[i].duration_s ?? PICTURED_S);
    const mark = this.root.children[i].querySelector(".sound i");
    mark.style.display = share <= 1 ? "block" : "none";
    mark.style.left = `${100 * share}%`;
  }

  key(event) {
    if (typing(event) || !this.root.isConnected || !this.data?.clips.length) return;
    const inside = event.composedPath().includes(this.root), idle = event.composedPath()[0] === document.body;
    if (!inside && !(idle && this.data.keys)) return;
    const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
    if (step) this.choose(Math.min(Math.max(this.current + step, 0), this.data.clips.length - 1));
    else if (event.key === " ") this.toggle(Math.max(this.current, 0));
    else if (event.key === "Enter" && this.current >= 0 && this.data.actions?.includes("open")) this.tell("open", this.data.clips[this.current].clip_id);
    else return;
    event.preventDefault();
  }

  free() {
    document.removeEventListener("keydown", this.listener);
    this.audio.pause();
  }
}

export const { mount, unmount } = mountable(ClipList);
