// The one box: songs, artists and albums as you type, words for a sound, or a file that is dropped or chosen.
// Data: {text, hint, heard, space, beside}.  Sends `choose`: {kind: "song", value: clip id}, "artist", "album", "words" (their text),
// "heard" (an upload's token) or "nothing" (the box was cleared).  Keys: arrows, Enter, Escape; "/" moves to the box.

import { askJson, element, joinPlayers, mountable, typing } from "./player.js";

const WAIT_MS = 120;                     // after the last key press
const SLOW_MS = 900;                     // after which a search says that it is still at work
const LARGEST = 200 * 2 ** 20;           // bytes of an upload
const KINDS = { song: "Song", artist: "Artist", album: "Album", words: "Sound" };

class Finder {
  constructor(host) {
    this.root = host.querySelector(".finder");
    this.input = host.querySelector("[role=combobox]");
    this.list = host.querySelector("ul");
    this.said = host.querySelector(".said");
    this.clear = host.querySelector(".clear");
    this.file = host.querySelector("input[type=file]");
    [this.options, this.at, this.known, this.wantsFirst] = [[], -1, "", false];
    this.input.addEventListener("input", () => this.typed());
    this.input.addEventListener("keydown", (event) => this.key(event));
    this.input.addEventListener("focus", () => { if (!this.warmed) askJson("/tonelake/suggest").catch(() => {}); this.warmed = true; });
    this.input.addEventListener("blur", () => setTimeout(() => this.close(), 150));
    this.clear.onclick = () => this.empty();
    host.querySelector(".file").onclick = () => this.file.click();
    this.file.onchange = () => { if (this.file.files[0]) this.upload(this.file.files[0]); this.file.value = ""; };
    this.stop = new AbortController();
    const signal = this.stop.signal;
    const holdsFile = (event) => [...(event.dataTransfer?.types ?? [])].includes("Files");
    window.addEventListener("dragover", (event) => { if (holdsFile(event)) { event.preventDefault(); this.root.classList.add("over"); } }, { signal });
    window.addEventListener("dragleave", (event) => { if (!event.relatedTarget) this.root.classList.remove("over"); }, { signal });
    window.addEventListener("drop", (event) => {
      if (!holdsFile(event)) return;
      event.preventDefault();
      this.root.classList.remove("over");
      if (event.dataTransfer.files[0]) this.upload(event.dataTransfer.files[0]);
    }, { signal });
    window.addEventListener("keydown", (event) => {
      if (event.key !== "/" || typing(event)) return;
      event.preventDefault();
      this.input.focus();
    }, { signal });
  }

  update({ data, setTriggerValue }) {
    this.send = setTriggerValue;
    this.data = data;
    this.input.placeholder = data.hint;
    this.input.setAttribute("aria-label", data.hint);
    if (data.text !== this.given) this.input.value = this.given = data.text;
    this.clear.hidden = !this.input.value;
    if (!this.busy) this.say("");
    this.offer();
    this.root.dataset.ready = "yes";
  }

  // -- suggestions

  typed() {
    this.clear.hidden = !this.input.value;
    this.wantsFirst = false;
    clearTimeout(this.timer);
    if (!this.input.value.trim()) { this.known = ""; this.close(); this.say(""); return; }
    this.timer = setTimeout(() => this.ask(), WAIT_MS);
  }

  async ask() {
    const text = this.input.value.trim();
    this.asking?.abort();
    this.asking = new AbortController();
    const { signal } = this.asking;
    const slow = setTimeout(() => this.say("Searching. The first search of a large lake makes a list of its names …"), SLOW_MS);
    try {
      this.show(text, await askJson(`/tonelake/suggest?q=${encodeURIComponent(text)}`, signal));
    } catch (error) {
      if (!signal.aborted) this.say(error.message, true);
    } finally { clearTimeout(slow); }
  }

  show(text, answer) {
    if (text !== this.input.value.trim()) return;
    const songs = answer.songs.map((song) => ({ kind: "song", value: song.clip_id, title: song.title, about: [song.artist, song.album, song.file].filter(Boolean).join(" · ") }));
    const values = answer.values.map((one) => ({ kind: one.column, value: one.value, title: one.value, about: [one.artist, `${one.songs.toLocaleString("en")} ${one.songs === 1 ? "song" : "songs"}`].filter(Boolean).join(" · ") }));
    const words = answer.words ? [{ kind: "words", value: text, title: `Songs that sound like “${text}”`, about: `by the words, in ${answer.words}` }] : [];
    this.options = answer.values_first ? [...values, ...songs, ...words] : [...songs, ...values, ...words];
    [this.known, this.at] = [text, -1];
    this.list.replaceChildren(...this.options.map((option, i) => {
      const row = element("li", { id: `finder-${i}`, children: [
        element("div", { children: [element("b", { text: option.title }), ...(option.about ? [element("span", { text: option.about })] : [])] }),
        element("small", { text: KINDS[option.kind] })] });
      row.setAttribute("role", "option");
      row.setAttribute("aria-selected", "false");
      row.dataset.kind = option.kind;
      row.onpointerdown = (event) => event.preventDefault();        // the box keeps the focus
      row.onclick = () => this.choose(i);
      return row;
    }));
    this.list.hidden = !this.options.length;
    this.input.setAttribute("aria-expanded", String(!this.list.hidden));
    this.say(this.options.length ? "" : `Nothing in this lake is called “${text}”. Check the spelling, or choose from the songs below.`);
    if (this.wantsFirst && this.options.length) this.choose(0);
    this.wantsFirst = false;
  }

  move(step) {
    if (this.list.hidden) { this.list.hidden = !this.options.length; if (!this.options.length) return; }
    const count = this.options.length;
    this.at = this.at < 0 && step < 0 ? count - 1 : (this.at + step + count) % count;
    [...this.list.children].forEach((row, i) => row.setAttribute("aria-selected", String(i === this.at)));
    this.list.children[this.at].scrollIntoView({ block: "nearest" });
    this.input.setAttribute("aria-activedescendant", `finder-${this.at}`);
    this.input.setAttribute("aria-expanded", "true");
  }

  key(event) {
    if (event.isComposing) return;
    if (event.key === "ArrowDown" || event.key === "ArrowUp") this.move(event.key === "ArrowDown" ? 1 : -1);
    else if (event.key === "Enter") {
      if (this.at >= 0) this.choose(this.at);
      else if (this.known === this.input.value.trim() && this.known) { if (this.options.length) this.choose(0); }
      else if (this.input.value.trim()) { clearTimeout(this.timer); this.ask(); this.wantsFirst = true; }
    } else if (event.key === "Escape") {
      if (!this.list.hidden) this.close(); else this.input.value = "";
      this.clear.hidden = !this.input.value;
    } else return;
    event.preventDefault();
  }

  choose(i) {
    const { kind, value } = this.options[i];
    this.close();
    this.input.value = kind === "words" ? value : "";
    this.given = kind === "words" ? value : undefined;
    this.send("choose", { kind, value });
  }

  close() {
    this.list.hidden = true;
    this.at = -1;
    this.input.setAttribute("aria-expanded", "false");
    this.input.removeAttribute("aria-activedescendant");
  }

  empty() {
    this.input.value = "";
    this.clear.hidden = true;
    this.close();
    this.say("");
    this.input.focus();
    if (this.data.text) this.send("choose", { kind: "nothing", value: "" });
  }

  // -- files

  async upload(file) {
    if (file.size > LARGEST) { this.say(`${file.name}: larger than 200 MB. Drop a shorter or compressed file.`, true); return; }
    this.busy = true;
    this.root.dataset.busy = "yes";
    this.say(`Listening to ${file.name} …`);
    try {
      const query = new URLSearchParams({ name: file.name, ...(this.data.space ? { space: this.data.space } : {}), ...(this.data.beside ? { beside: this.data.beside } : {}) });
      const answer = await fetch(`/tonelake/heard?${query}`, { method: "POST", body: file, headers: { "Content-Type": "application/octet-stream" } });
      const found = await answer.json().catch(() => ({}));
      if (!answer.ok || !found.token) throw new Error(found.error ?? `The app answered with status ${answer.status}.`);
      this.say("");
      URL.revokeObjectURL(this.kept?.url);
      this.kept = { token: found.token, name: file.name, url: URL.createObjectURL(file) };
      this.send("choose", { kind: "heard", value: found.token });
    } catch (error) {
      this.say(error instanceof TypeError ? "The app does not answer. Check that `tonelake ui` is still running." : error.message, true);
    } finally {
      this.busy = false;
      this.root.dataset.busy = "";
    }
  }

  // Let the visitor hear the file again: the browser has kept it, the server has not.
  offer() {
    const wanted = this.kept && this.kept.token === this.data.heard ? this.kept.url : "";
    if (wanted === (this.own?.src ?? "")) return;
    this.own?.remove();
    this.own = null;
    if (!wanted) return;
    this.own = element("audio", { controls: true, src: wanted });
    this.own.setAttribute("aria-label", `Your file ${this.kept.name}`);
    joinPlayers(this.own);
    this.root.append(this.own);
  }

  say(sentence, trouble = false) {
    this.said.textContent = sentence;
    this.said.classList.toggle("trouble", trouble);
  }

  free() { this.own?.pause(); URL.revokeObjectURL(this.kept?.url); this.stop.abort(); this.asking?.abort(); clearTimeout(this.timer); }
}

export const { mount, unmount } = mountable(Finder);
