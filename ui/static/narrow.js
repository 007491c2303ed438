// Chips that narrow a list: a button for each column opens its values with the number of songs, the chosen ones are chips to remove.
// Data: {columns: [{name, label, chosen, range?, low?, high?}]}.  Sends `set`: {column, values}, or {column: ""} to remove all.

import { askJson, element, mountable } from "./parts.js";

const FIRST_SHOWN = 6, FIRST_ON_PHONE = 3;        // columns whose buttons are shown at first
const SEARCHED_FROM = 12;                // values from which a column has a search box
const WAIT_MS = 150;                     // after the last key press

class Narrow {
  constructor(host) {
    this.root = host.querySelector(".narrow");
    this.open = "";
    this.shown = "";
    this.all = false;
  }

  update({ data, setTriggerValue }) {
    this.send = setTriggerValue;
    const text = JSON.stringify(data);
    if (text === this.shown) return;
    const focused = this.root.getRootNode().activeElement?.dataset?.focus;
    [this.shown, this.data] = [text, data];
    if (!data.columns.some((column) => column.name === this.open)) this.open = "";
    this.draw();
    if (focused) [...this.root.querySelectorAll("[data-focus]")].find((one) => one.dataset.focus === focused)?.focus();
  }

  draw() {
    const { columns } = this.data, first = window.innerWidth < 640 ? FIRST_ON_PHONE : FIRST_SHOWN;
    const shown = this.all || columns.length === first + 1 ? columns : columns.filter((column, i) => i < first || column.name === this.open);
    const buttons = shown.map((column) => {
      const made = button(column.label, () => this.toggle(column.name), { name: `column ${column.name}` });
      made.setAttribute("aria-expanded", String(this.open === column.name));
      made.dataset.column = column.name;
      return made;
    });
    if (columns.length > first + 1) {
      buttons.push(button(this.all ? "Fewer" : `${columns.length - first} more`, () => { this.all = !this.all; this.draw(); }, { name: "more", kind: "plain" }));
    }
    const chips = columns.flatMap((column) => column.chosen.map((value) => {
      const made = button(`${column.label}: ${value.replace(/^(-?\d+)-(-?\d+)$/, "$1 to $2")}  ✕`, () => this.choose(column, column.chosen.filter((one) => one !== value)), { kind: "chip", name: `chip ${column.name} ${value}` });
      made.setAttribute("aria-label", `Remove ${column.label} ${value}`);
      return made;
    }));
    if (chips.length > 1) chips.push(button("Remove all", () => this.send("set", { column: "" }), { kind: "plain", name: "none" }));
    const panel = element("div", { className: "panel", hidden: !this.open });
    this.root.replaceChildren(element("div", { className: "line", children: [...buttons, ...chips] }), panel);
    this.root.dataset.chosen = String(columns.reduce((sum, column) => sum + column.chosen.length, 0));
    const column = columns.find((one) => one.name === this.open);
    if (column) (column.range ? this.drawRange : this.drawValues).call(this, panel, column);
  }

  toggle(name) {
    this.open = this.open === name ? "" : name;
    this.draw();
    this.root.querySelector("button[aria-expanded=true]")?.focus();
  }

  choose(column, values) {
    column.chosen = values;
    this.shown = JSON.stringify(this.data);
    this.draw();
    this.send("set", { column: column.name, values });
  }

  drawRange(panel, column) {
    const [from, until] = (column.chosen[0] ?? "").match(/^(-?\d*)-(-?\d*)$/)?.slice(1) ?? ["", ""];
    const ends = [["From", from, column.low], ["to", until, column.high]].map(([label, value, hint]) => {
      const made = element("input", { type: "number", value, placeholder: String(hint) });
      made.setAttribute("aria-label", `${column.label} ${label.toLowerCase()}`);
      return made;
    });
    const apply = () => {
      const [low, high] = ends.map((one) => one.value.trim());
      this.choose(column, low || high ? [`${low}-${high}`] : []);
    };
    for (const one of ends) one.onkeydown = (event) => { if (event.key === "Enter") apply(); };
    panel.append(element("div", { className: "range", children: [element("span", { text: "From" }), ends[0], element("span", { text: "to" }), ends[1], button("Apply", apply, { name: "apply" })] }));
  }

  async drawValues(panel, column) {
    const list = element("div", { className: "values", tabIndex: -1 }), said = element("div", { className: "said", text: "Reading the values …" });
    said.setAttribute("role", "status");
    panel.append(list, said);
    let typed = "";
    const fill = async () => {
      const mine = typed;
      const answer = await askJson(`/tonelake/values?column=${encodeURIComponent(column.name)}&q=${encodeURIComponent(typed)}`).catch((error) => ({ error: error.message }));
      if (!panel.isConnected || mine !== typed) return;
      if (answer.error) { said.textContent = answer.error; return; }
      list.replaceChildren(...answer.values.map(([value, songs]) => {
        const box = element("input", { type: "checkbox", checked: column.chosen.includes(value) });
        box.dataset.focus = `value ${value}`;
        box.onchange = () => {
          const values = box.checked ? [...column.chosen, value] : column.chosen.filter((one) => one !== value);
          column.chosen = values;
          this.shown = JSON.stringify(this.data);
          this.send("set", { column: column.name, values });
        };
        return element("label", { children: [box, element("span", { text: value, title: value }), element("small", { text: songs.toLocaleString("en") })] });
      }));
      const rest = answer.total - answer.values.length;
      said.textContent = !answer.total ? `No ${column.label.toLowerCase()} matches.` : rest > 0 ? `${rest.toLocaleString("en")} more. Type to find them.` : "";
      if (!typed && answer.total > SEARCHED_FROM && !panel.querySelector("input[type=search]")) {
        const search = element("input", { type: "search", placeholder: `Find in ${answer.total.toLocaleString("en")} values` });
        search.setAttribute("aria-label", `Find a value of ${column.label}`);
        let timer = 0;
        search.oninput = () => { clearTimeout(timer); timer = setTimeout(() => { typed = search.value.trim(); fill(); }, WAIT_MS); };
        panel.prepend(search);
      }
    };
    await fill();
  }

  free() {}
}

function button(text, action, { kind = "", name = "" } = {}) {
  const made = element("button", { type: "button", text, className: kind, title: text, onclick: action });
  made.dataset.focus = name;
  return made;
}

export const { mount, unmount } = mountable(Narrow);
