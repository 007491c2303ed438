// The legend: values with their colours.  Each can be hidden, or shown alone; a value without a colour of its own is found by the
// search and takes the colour of the least frequent one.

import { css, MOST_COLOURS, otherCss, scaleCss, slotColour } from "./colours.js";
import { askJson, element } from "./parts.js";

const MISSING = 0, OTHER = -1;           // codes of rows that are not values

export class Legend {
  // `recoloured` is called after values got other colours, `changed` after the set of shown values has changed.
  constructor(place, { recoloured, changed }) {
    Object.assign(this, { place, recoloured, changed, hidden: new Set(), slots: [], swapped: new Set(), about: new Map(), dark: false });
  }

  // `address`: of the legend's route, which finds values.
  show(legend, address) {
    const same = this.legend?.column === legend.column;
    Object.assign(this, { legend, address, found: null });
    if (!same) this.hidden = new Set();
    this.names = new Map((legend.names ?? []).map((name, i) => [i + 1, { name, count: legend.counts[i] }]));
    this.slots = legend.kind === "scale" ? [] : [...this.names.keys()].slice(0, MOST_COLOURS);
    this.swapped = new Set();
    this.render();
  }

  // Set names of values and what is known of them: a Map of value -> {name, about}.
  describe(about) {
    this.about = about;
    if (this.legend) this.render();
  }

  theme(dark) {
    if (dark === this.dark) return;
    this.dark = dark;
    if (this.legend) { this.render(); this.recoloured(); }
  }

  // Whether each code is hidden, as a Uint8Array; null if none is.
  hiddenCodes() {
    if (!this.hidden.size) return null;
    const found = new Uint8Array(this.legend.codes + 1).fill(this.hidden.has(OTHER) ? 1 : 0);
    found[MISSING] = this.hidden.has(MISSING) ? 1 : 0;
    for (const code of this.slots) found[code] = this.hidden.has(code) ? 1 : 0;
    if (this.legend.kind === "scale") found.fill(0, 1);
    return found;
  }

  render() {
    const { legend } = this, typed = this.place.querySelector("input"), focused = typed?.getRootNode().activeElement;
    const held = focused && this.place.contains(focused) ? focused.dataset.hold : null;
    const title = legend.column === "cluster" ? "Clusters" : legend.column;
    const head = element("h2", { className: "column", text: title });
    const rows = [];
    if (legend.kind === "scale") {
      const bar = element("div", { className: "scale" });
      bar.style.background = scaleCss(this.dark);
      rows.push(bar, element("div", { className: "ends", children: [
        element("span", { text: this.number(legend.low) }), element("span", { text: this.number(legend.high) })] }));
    } else {
      this.slots.forEach((code, slot) => rows.push(this.row(code, css(slotColour(slot, this.dark)))));
      const others = (legend.values ?? 0) - this.slots.length;
      if (others > 0) {
        const counted = this.slots.reduce((sum, code) => sum + this.names.get(code).count, 0);
        rows.push(this.row(OTHER, otherCss, `other (${others.toLocaleString()} values)`, legend.points - counted));
      }
    }
    if (legend.missing) rows.push(this.row(MISSING, otherCss, legend.column === "cluster" ? "in no cluster" : "no value", legend.missing));
    const list = element("ul", { children: rows.map((row) => (row.matches("li") ? row : element("li", { children: [row] }))) });
    const parts = [head, list];
    if (this.hidden.size) {
      const all = element("button", { className: "all", text: "Show all", type: "button" });
      all.dataset.hold = "all";
      all.onclick = () => { this.hidden = new Set(); this.update(); };
      parts.splice(1, 0, all);
    }
    if ((legend.values ?? 0) > this.slots.length) parts.push(this.search(typed?.value ?? ""));
    this.place.replaceChildren(...parts);
    if (held) this.place.querySelector(`[data-hold="${CSS.escape(held)}"]`)?.focus();
  }

  number(value) {
    const shown = Number(value.toPrecision(4));
    return this.legend.whole ? String(Math.round(value)) : shown.toLocaleString();
  }

  nameOf(code) {
    const { name } = this.names.get(code);
    return this.about.get(name)?.name ?? (this.legend.column === "cluster" ? `Cluster ${Number(name) + 1}` : name);
  }

  row(code, colour, text = this.nameOf(code), count = this.names.get(code).count) {
    const dot = element("i"), shown = !this.hidden.has(code), about = this.names.has(code) ? this.about.get(this.names.get(code).name)?.about : "";
    dot.style.background = colour;
    const words = element("span", { className: "name", children: [element("span", { text }), ...(about ? [element("small", { text: about })] : [])] });
    const toggle = element("button", {
      type: "button", className: shown ? "value" : "value hidden", title: shown ? "Hide" : "Show",
      children: [dot, words, element("span", { className: "count", text: count.toLocaleString() })],
    });
    toggle.setAttribute("aria-pressed", String(shown));
    toggle.dataset.hold = `value ${code}`;
    toggle.onclick = () => { if (!this.hidden.delete(code)) this.hidden.add(code); this.update(); };
    const only = element("button", { type: "button", className: "only", text: "only", title: "Show only this value" });
    only.setAttribute("aria-label", `Show only ${text}`);
    only.dataset.hold = `only ${code}`;
    only.onclick = () => {
      this.hidden = new Set([...this.slots, OTHER, MISSING].filter((other) => other !== code));
      this.update();
    };
    return element("li", { className: "entry", children: this.legend.kind === "scale" ? [toggle] : [toggle, only] });
  }

  // The search for values without a colour.
  search(text) {
    const input = element("input", { type: "search", placeholder: "Find a value to colour", value: text });
    input.setAttribute("aria-label", `Find a value of ${this.legend.column} to give it a colour`);
    input.dataset.hold = "search";
    const list = element("ul", { className: "values" });
    const fill = () => list.replaceChildren(...(this.found ?? []).map((value) => {
      const button = element("button", { type: "button", className: "value", children: [
        element("span", { className: "name", text: value.name }), element("span", { className: "count", text: value.count.toLocaleString() })] });
      button.title = "Give it a colour";
      button.onclick = () => this.swap(value);
      return element("li", { className: "entry", children: [button] });
    }));
    input.oninput = () => { clearTimeout(this.typed); this.typed = setTimeout(() => this.look(input.value, fill), 150); };
    input.onkeydown = (event) => {
      event.stopPropagation();
      if (event.key === "Enter" && this.found?.length) this.swap(this.found[0]);
      if (event.key === "Escape") { input.value = ""; this.found = null; fill(); }
    };
    fill();
    return element("div", { className: "search", children: [input, list] });
  }

  async look(text, fill) {
    const { address } = this;
    try {
      const found = text.trim() ? await askJson(`${address}&find=${encodeURIComponent(text)}`) : [];
      if (address !== this.address) return;
      this.found = found.filter((value) => !this.slots.includes(value.code)).slice(0, 8);
    } catch { this.found = null; }
    fill();
  }

  // Give a value the colour of the least frequent one that was not chosen by a search before.
  swap(value) {
    this.names.set(value.code, value);
    const old = [...this.slots].reverse().find((code) => !this.swapped.has(code)) ?? this.slots.at(-1);
    this.slots[this.slots.indexOf(old)] = value.code;
    this.swapped.add(value.code);
    this.swapped.delete(old);
    this.hidden.delete(value.code);
    this.hidden.delete(old);
    this.found = null;
    const input = this.place.querySelector("input");
    if (input) input.value = "";
    this.render();
    this.recoloured();
    this.changed({ linked: false });
  }

  // Hide these codes, as the legend of a map beside does.
  hide(codes) {
    this.hidden = new Set(codes);
    this.render();
    this.changed({ linked: false });
  }

  update() {
    this.render();
    this.changed({ linked: true });
  }
}
