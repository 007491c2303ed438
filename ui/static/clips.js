// A list of playable songs: each row has play, title, artist, moment, score, layer profile and actions.  Up and down move, Space plays
// the row, Enter opens it.  The player at the foot of the window plays it; rows mark the song that sounds.

import { byOf, element, enqueue, icon, loadPicture, mountable, paused, pictureOf, placeOf, playing, playNow, place, titleOf, toggle, typing } from "./player.js";

const PICTURED_S = 30;                   // duration shown in a spectrogram
const ACTIONS = {                        // icon, label and title of a row's buttons; all but "queue" are sent to Python with the clip
  open: ["open", "Open", "Open this song (Enter)"],
  queue: ["queue", "Queue", "Add to the queue"],
  more: ["plus", "More like", "More like this song: add it to the query"],
  less: ["minus", "Less like", "Less like this song: subtract it from the query"],
  map: ["map", "Map", "Show it on the map"],
};

// Only a list of moments shows times.
const about = (clip) => (typeof clip.moment_s === "number" ? placeOf(clip, clip.moment_s) : byOf(clip));

class ClipList {
  constructor(host) {
    this.root = host.querySelector(".clips");
    this.current = -1;
    this.shown = "";
    this.listeners = [
      [document, "keydown", (event) => this.key(event)], [document, "pointerdown", (event) => this.shut(event)],
      [window, "tonelake:playing", () => this.marks()], [window, "tonelake:time", () => this.progress()],
    ];
    for (const [on, kind, listener] of this.listeners) on.addEventListener(kind, listener);
  }

  update({ data, setTriggerValue }) {
    this.tell = setTriggerValue;
    const text = JSON.stringify(data);
    if (text === this.shown) return;     // a change of theme, or a rerun of the page
    this.shown = text;
    this.data = data;
    this.current = data.clips.findIndex((clip) => clip.clip_id === playing());
    const scores = data.clips.map((clip) => clip.score).filter((score) => typeof score === "number");
    this.scale = Array.isArray(data.bar) ? data.bar : [Math.min(...scores), Math.max(...scores)];
    this.root.style.setProperty("--profile", data.layers?.length > 1 ? "110px" : "0px");
    this.root.style.setProperty("--bar", data.bar ? "120px" : "56px");
    this.root.replaceChildren(...data.clips.map((clip, i) => this.row(clip, i)));
    this.root.dataset.count = String(data.clips.length);
    this.marks();
    requestAnimationFrame(() => performance.mark("tonelake:list"));
  }

  row(clip, i) {
    const play = element("button", { type: "button", className: "play", children: [icon("play")] });
    play.onclick = () => this.toggle(i);
    const picture = element("div", { className: "sound", title: "Click to play from here", children: [
      element("img", { alt: "" }), element("i")] });
    const image = picture.querySelector("img");
    image.onerror = () => image.remove();
    loadPicture(image, pictureOf(clip.clip_id));
    picture.onclick = (event) => this.seek(i, event.offsetX / picture.clientWidth);
    const actions = this.data.actions ?? [], opens = actions.includes("open");
    const title = element(opens ? "button" : "b", { className: "title", text: titleOf(clip) });
    if (opens) Object.assign(title, { type: "button", onclick: () => this.act("open", i) });
    const words = element("div", { className: "words", children: [
      title, element("span", { className: "place", text: about(clip) }),
      ...["why", "note"].filter((name) => clip[name]).map((name) => element("span", { className: name, text: clip[name] })),
      ...(clip.tags?.length ? [element("span", { className: "tags", text: clip.tags.join(", ") })] : []),
      element("span", { className: "trouble" })] });
    words.title = [titleOf(clip), about(clip), clip.why, clip.tags?.join(", ")].filter(Boolean).join("\n");
    const menu = element("button", { type: "button", className: "menu", children: [icon("more")] });
    menu.setAttribute("aria-label", `Actions for ${titleOf(clip)}`);
    menu.setAttribute("aria-expanded", "false");
    const list = element("div", { className: "actions", children: actions.map((action) => this.action(action, clip, i)) });
    menu.onclick = () => {
      const open = !list.classList.contains("open");
      this.shut();
      list.classList.toggle("open", open);
      menu.setAttribute("aria-expanded", String(open));
    };
    const row = element("div", { className: actions.length ? "row" : "row single", children: [
      play, element("span", { className: "rank", text: clip.rank ?? i + 1 }), words, picture, this.profile(clip), this.score(clip),
      ...(actions.length ? [menu] : []), list] });
    row.setAttribute("role", "listitem");
    row.dataset.clip = clip.clip_id;
    row.onclick = (event) => { if (!event.target.closest("button, .sound")) this.choose(i); };
    return row;
  }

  action(action, clip, i) {
    const [picture, text, title] = ACTIONS[action];
    const made = element("button", { type: "button", title, children: [icon(picture), element("span", { className: "word", text })] });
    made.setAttribute("aria-label", `${text}: ${titleOf(clip)}`);
    made.dataset.action = action;
    made.onclick = () => this.act(action, i);
    return made;
  }

  act(action, i) {
    if (action !== "queue") {
      this.shut();
      return this.tell(action, this.data.clips[i].clip_id);
    }
    const added = enqueue([this.data.clips[i]]), button = this.root.children[i].querySelector("[data-action=queue]");
    button.classList.add("done");
    button.querySelector(".word").textContent = added ? "Added to the queue" : "Already in the queue";
    setTimeout(() => {
      button.classList.remove("done");
      button.querySelector(".word").textContent = ACTIONS.queue[1];
      this.shut();
    }, 1200);
  }

  // The song as a row plays it: from its moment in a list of moments, else from the beginning.
  song(i) {
    const clip = this.data.clips[i];
    return { ...clip, start_s: clip.moment_s ?? 0 };
  }

  score(clip) {
    const number = typeof clip.score === "number", [low, high] = this.scale, place = element("span", { className: "score" });
    if (number && this.data.bar) {
      const share = high > low ? (clip.score - low) / (high - low) : 1, fill = element("i");
      fill.style.width = `${100 * Math.min(Math.max(Array.isArray(this.data.bar) ? share : 0.15 + 0.85 * share, 0), 1)}%`;
      place.append(element("span", { className: "bar", children: [fill] }));
    }
    place.append(element("b", { text: number ? clip.score.toFixed(3) : clip.score ?? "" }));
    return place;
  }

  // Draw the cosine to the query at every layer, for the clip and for an average clip.
  profile(clip) {
    const place = element("div", { className: "profile" });
    if (!clip.profile || clip.profile.length < 2) return place;
    const all = [...clip.profile, ...this.data.usual], low = Math.min(...all), high = Math.max(...all);
    const x = (i) => 3 + i * 104 / (clip.profile.length - 1), y = (value) => 31 - 28 * (value - low) / (high - low || 1);
    const line = (values) => values.map((value, i) => `${x(i).toFixed(1)},${y(value).toFixed(1)}`).join(" ");
    const space = "http://www.w3.org/2000/svg", svg = document.createElementNS(space, "svg");
    svg.setAttribute("class", "layers");
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

  toggle(i) {
    this.choose(i);
    if (playing() === this.data.clips[i].clip_id) toggle(); else playNow(this.song(i));
  }

  seek(i, share) {
    const { duration_s, start_s } = this.data.clips[i];
    this.choose(i);
    playNow(this.song(i), (start_s ?? 0) + share * Math.min(PICTURED_S, duration_s ?? PICTURED_S));
  }

  choose(i) {
    this.current = i;
    this.marks();
    this.root.children[i]?.scrollIntoView({ block: "nearest" });
  }

  // Close open menus, but not the one that holds the event's target.
  shut(event) {
    for (const list of this.root.querySelectorAll(".actions.open")) {
      if (event?.composedPath().some((at) => at === list || at === list.previousElementSibling)) continue;
      list.classList.remove("open");
      list.previousElementSibling.setAttribute("aria-expanded", "false");
    }
  }

  marks() {
    if (!this.data) return;
    const sounding = paused() ? null : playing();
    [...this.root.children].forEach((row, i) => {
      const clip = this.data.clips[i], mine = clip.clip_id === playing(), on = clip.clip_id === sounding, button = row.querySelector(".play");
      row.classList.toggle("current", i === this.current);
      row.classList.toggle("sounding", on);
      if (button.dataset.on !== String(on)) {
        button.dataset.on = String(on);
        button.replaceChildren(icon(on ? "pause" : "play"));
        button.setAttribute("aria-label", `${on ? "Pause" : "Play"} ${titleOf(clip)}`);
      }
      if (!mine) row.querySelector(".sound i").style.display = "none";
    });
    this.root.dataset.playing = sounding ?? "";
  }

  progress() {
    const i = this.data?.clips.findIndex((clip) => clip.clip_id === playing()) ?? -1;
    if (i < 0) return;
    const { start_s, duration_s } = this.data.clips[i], share = (place().time_s - (start_s ?? 0)) / Math.min(PICTURED_S, duration_s ?? PICTURED_S);
    const mark = this.root.children[i].querySelector(".sound i");
    mark.style.display = share >= 0 && share <= 1 ? "block" : "none";
    mark.style.left = `${100 * share}%`;
  }

  key(event) {
    if (event.key === "Escape") this.shut();
    if (typing(event) || !this.root.isConnected || !this.data?.clips.length) return;
    const inside = event.composedPath().includes(this.root), idle = event.composedPath()[0] === document.body && this.data.keys;
    if (!inside && !idle) return;
    const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
    if (step) this.choose(Math.min(Math.max(this.current + step, 0), this.data.clips.length - 1));
    else if (event.key === " " && (inside || !playing())) this.toggle(Math.max(this.current, 0));
    else if (event.key === "Enter" && this.current >= 0 && this.data.actions?.includes("open")) this.tell("open", this.data.clips[this.current].clip_id);
    else return;
    event.preventDefault();
  }

  free() {
    for (const [on, kind, listener] of this.listeners) on.removeEventListener(kind, listener);
  }
}

export const { mount, unmount } = mountable(ClipList);
