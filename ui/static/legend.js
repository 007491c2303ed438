// The legend: values with their colours.  A click shows or hides a value; a double click shows only that value.

import { categoryColour, css, scaleCss } from "./colours.js";
import { element } from "./player.js";

const MOST_ROWS = 300;

export class Legend {
  // `changed` is called after the set of shown values has changed.
  constructor(place, changed) {
    this.place = place;
    this.changed = changed;
    this.hidden = new Set();             // colour codes
  }

  show(legend) {
    this.legend = legend;
    this.hidden = new Set();
    this.render();
  }

  render() {
    const { legend } = this;
    const rows = [element("div", { className: "column", text: legend.column })];
    if (legend.kind === "scale") {
      const bar = element("div", { className: "scale" });
      bar.style.background = scaleCss();
      rows.push(bar, element("div", { className: "ends", children: [
        element("span", { text: short(legend.low) }), element("span", { text: short(legend.high) })] }));
    } else {
      legend.names.slice(0, MOST_ROWS).forEach((name, i) => rows.push(this.row(i + 1, name, legend.counts[i])));
      const others = legend.names.length - MOST_ROWS + (legend.more ?? 0);
      if (others > 0) rows.push(element("div", { className: "more", text: `and ${others.toLocaleString()} others: use the search` }));
    }
    if (legend.missing) rows.push(this.row(0, "no value", legend.missing));
    if (this.hidden.size) {
      const all = element("button", { className: "all", text: "show all", type: "button" });
      all.onclick = () => { this.hidden = new Set(); this.update(); };
      rows.push(all);
    }
    this.place.replaceChildren(...rows);
  }

  row(code, name, count) {
    const dot = element("i");
    dot.style.background = code ? css(categoryColour(code - 1)) : "#969696";
    const row = element("button", { type: "button", className: this.hidden.has(code) ? "value hidden" : "value", children: [
      dot, element("span", { className: "name", text: name }), element("span", { className: "count", text: count.toLocaleString() })] });
    row.title = `${name}: ${count.toLocaleString()} clips. Click: show or hide. Double click: show only this one.`;
    row.setAttribute("aria-pressed", String(!this.hidden.has(code)));
    row.onclick = (event) => {
      if (event.detail > 1) return;      // ignore the second click of a double click
      if (!this.hidden.delete(code)) this.hidden.add(code);
      clearTimeout(this.waiting);
      this.waiting = setTimeout(() => this.update(), 220);
    };
    row.ondblclick = () => {
      clearTimeout(this.waiting);
      const count = this.legend.kind === "scale" ? 256 : this.legend.names.length;
      this.hidden = new Set(Array.from({ length: count + 1 }, (_, i) => i).filter((other) => other !== code));
      this.update();
    };
    return row;
  }

  update() {
    this.render();
    this.changed();
  }
}

const short = (value) => Number(value.toPrecision(4)).toLocaleString();
