// The bar of the player at the foot of the window: title, position, buttons, volume and the queue.  One for the window, outside of
// Streamlit's pages, so that page changes do not redraw it; the component on the page brings the markup and the theme's colours.

import * as player from "./player.js";

const { element, icon, minutes } = player;
const COLOURS = ["background-color", "secondary-background-color", "text-color", "primary-color", "border-color", "font"];
const READY_AFTER_MS = 1500;             // by then the page has been drawn; the server prepares for the first sound
let bar = null;

class Bar {
  constructor(template) {
    this.host = element("div", { id: "tonelake-player" });
    const root = this.host.attachShadow({ mode: "open" });
    root.append(element("link", { rel: "stylesheet", href: "/tonelake/static/bar.css" }), template.content.cloneNode(true));
    this.find = (selector) => root.querySelector(selector);
    this.root = this.find(".bar");
    this.button(".controls", "previous", "Previous song", player.previous);
    this.button(".controls", "play", "Play", player.toggle);
    this.button(".controls", "next", "Next song", player.next);
    this.button(".rest", "queue", "Queue", () => this.open(this.find(".panel").hidden)).append(element("span", { className: "count" }));
    this.button(".rest", "mute", "Mute", () => this.mute());
    this.find(".rest").append(this.find(".volume"));
    this.button(".panel header", "save", "Save the queue as a playlist (M3U)", () => this.save(), "M3U");
    this.button(".panel header", "empty", "Clear the queue", player.clear, "Clear");
    this.button(".panel header", "close", "Close the queue", () => this.open(false));
    this.find(".position").oninput = (event) => player.seekTo(Number(event.target.value));
    this.find(".volume").oninput = (event) => { player.setVolume(Number(event.target.value)); this.sound(); };
    this.find(".queue").setAttribute("aria-expanded", "false");
    this.find(".panel").onkeydown = (event) => { if (event.key === "Escape") { this.open(false); this.find(".queue").focus(); } };
    window.addEventListener("tonelake:playing", () => this.draw());
    window.addEventListener("tonelake:queue", () => this.draw());
    window.addEventListener("tonelake:time", () => this.time());
    document.body.append(this.host);
    this.sound();
    this.draw();
  }

  // A button with an icon, or with `text`.
  button(place, name, label, action, text) {
    const made = element("button", { type: "button", className: name, title: label, children: [text ?? icon(name)] });
    made.setAttribute("aria-label", label);
    made.onclick = action;
    this.find(place).append(made);
    return made;
  }

  // The theme's variables are set on the component alone.
  theme(from) {
    const style = getComputedStyle(from);
    for (const name of COLOURS) this.host.style.setProperty(`--st-${name}`, style.getPropertyValue(`--st-${name}`));
  }

  draw() {
    const { songs, at, message } = player.queue(), song = songs[at], sounding = !player.paused();
    this.root.hidden = !song;
    document.documentElement.classList.toggle("tonelake-playing", Boolean(song));
    Object.assign(this.root.dataset, { clip: song?.clip_id ?? "", playing: String(Boolean(song) && sounding), count: String(songs.length) });
    this.find(".trouble").textContent = message;
    if (!song) return this.open(false);
    this.find(".title").textContent = song.title;
    this.find(".from").textContent = [song.artist, song.album].filter(Boolean).join(" · ");
    const play = this.find(".play");
    play.replaceChildren(icon(sounding ? "pause" : "play"));
    play.setAttribute("aria-label", sounding ? "Pause" : "Play");
    play.title = `${sounding ? "Pause" : "Play"} (Space)`;
    this.find(".next").disabled = at + 1 >= songs.length;
    this.find(".count").textContent = String(songs.length);
    this.find(".queue").setAttribute("aria-label", `Queue, ${songs.length} song${songs.length === 1 ? "" : "s"}`);
    if (!this.find(".panel").hidden) this.list();
    this.time();
  }

  time() {
    const { time_s, end_s } = player.place(), position = this.find(".position");
    position.max = String(end_s || 1);
    position.value = String(time_s);
    position.setAttribute("aria-valuetext", `${minutes(time_s)} of ${minutes(end_s)}`);
    this.find(".at").textContent = minutes(time_s);
    this.find(".end").textContent = end_s ? minutes(end_s) : "";
    this.root.dataset.at = time_s.toFixed(2);
  }

  open(wanted) {
    this.find(".panel").hidden = !wanted;
    this.find(".queue").setAttribute("aria-expanded", String(wanted));
    if (wanted) this.list();
  }

  list() {
    const { songs, at } = player.queue(), focus = this.find(".panel").getRootNode().activeElement?.dataset.does;
    this.find(".panel ol").replaceChildren(...songs.map((song, i) => {
      const line = element("li", { className: i === at ? "current" : "", children: [
        this.does(i, "song", `Play ${song.title}`, () => player.jump(i), [element("b", { text: song.title }), element("span", { text: song.artist })]),
        this.does(i, "up", `Move ${song.title} up`, () => player.reorder(i, i - 1), [icon("up")], i === 0),
        this.does(i, "down", `Move ${song.title} down`, () => player.reorder(i, i + 1), [icon("down")], i === songs.length - 1),
        this.does(i, "close", `Remove ${song.title} from the queue`, () => player.remove(i), [icon("close")]),
      ] });
      if (i === at) line.setAttribute("aria-current", "true");
      return line;
    }));
    if (focus) this.find(`[data-does="${focus}"]`)?.focus();
  }

  does(i, name, label, action, children, disabled = false) {
    const made = element("button", { type: "button", className: name, title: label, disabled, children });
    made.setAttribute("aria-label", label);
    made.dataset.does = `${name} ${i}`;
    made.onclick = action;
    return made;
  }

  mute() {
    if (player.volume()) [this.loud, ] = [player.volume(), player.setVolume(0)]; else player.setVolume(this.loud || 1);
    this.sound();
  }

  sound() {
    const share = player.volume(), mute = this.find(".mute");
    this.find(".volume").value = String(share);
    mute.replaceChildren(icon(share ? "loud" : "mute"));
    mute.setAttribute("aria-label", share ? "Mute" : "Unmute");
    mute.title = share ? "Mute" : "Unmute";
  }

  save() {
    player.savePlaylist(player.queue().songs).catch((error) => { this.find(".trouble").textContent = error.message; });
  }
}

// On a phone the drawer covers the page, and Streamlit leaves it open when one of its links has been chosen.
function closeDrawer(event) {
  if (innerWidth > 768 || !event.target.closest?.("[data-testid=stSidebarNavLink]")) return;
  setTimeout(() => document.querySelector("[data-testid=stSidebar][data-collapsed=false] [data-testid=stSidebarCollapseButton] button")?.click(), 50);
}

export function mount(component) {
  const place = component.parentElement;
  if (!bar) {
    document.addEventListener("click", closeDrawer);
    setTimeout(() => fetch("/tonelake/ready", { method: "POST" }).catch(() => {}), READY_AFTER_MS);
  }
  bar ??= new Bar(place.querySelector("template"));
  bar.theme(place.querySelector("template"));
}

export function unmount() {}             // the bar stays when a page is left
