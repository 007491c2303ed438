// Links maps that are shown side by side: what is hovered over, picked, selected or hidden in one is so in the others.

import { within } from "./grid.js";

const LINK = "tonelake:linked";          // event of the window

export class Links {
  constructor(map, on) {
    this.map = map;
    on(window, LINK, (event) => this.follow(event.detail));
  }

  send(what) { window.dispatchEvent(new CustomEvent(LINK, { detail: { ...what, order: this.map.order, from: this } })); }

  legend() { this.send({ column: this.map.legend.legend.column, hidden: [...this.map.legend.hidden] }); }

  selection() {
    const { lasso, xy } = this.map;
    if (xy) this.send({ inside: lasso.length > 2 ? within(xy, lasso) : null });
  }

  follow({ from, order, row, clip, column, hidden, inside, asks }) {
    const { map } = this;
    if (from === this || !map.xy) return;
    if (asks) { if (map.lasso.length > 2) this.selection(); }
    else if (clip !== undefined) { map.pickClip(clip); map.openPanel(); }
    else if (inside !== undefined) { if (order === map.order) { map.chosenBeside = inside; map.mask(); } }
    else if (hidden) {                   // clusters are those of one layer
      if (column !== "cluster" && column === map.legend.legend?.column) map.legend.hide(hidden);
    } else if (row !== undefined && order === map.order) { map.hovered = row; map.drawAbove(); }
  }
}
