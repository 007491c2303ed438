// Artists and albums with their numbers of songs, searchable when there are many.  Data: {stamp, columns: ["artist", "album"]}.
// Sends `choose`: {kind: "artist" or "album", value}.

import { askJson, element, mountable } from "./parts.js";

const WAIT_MS = 150;                     // after the last key press
const SEARCHED_FROM = 12;                // entries from which there is a search box
const FIRST = 200;                       // entries shown; the others are found by the search box
const NAMES = { artist: ["Artists", "/tonelake/values?column=artist"], album: ["Albums", "/tonelake/albums?"] };

class Shelf {
  constructor(host) {
    this.root = host.querySelector(".shelf");
    this.shown = "";
  }

  update({ data, setTriggerValue }) {
    this.send = setTriggerValue;
    const text = JSON.stringify(data);
    if (text === this.shown) return;
    this.shown = text;
    this.root.replaceChildren(...data.columns.map((column) => this.section(column)));
  }

  section(column) {
    const [name, address] = NAMES[column];
    const list = element("ul"), said = element("p", { text: "Reading …" }), head = element("header", { children: [element("h2", { text: name })] });
    said.setAttribute("role", "status");
    list.setAttribute("aria-label", name);
    const made = element("section", { children: [head, list, said] });
    made.dataset.column = column;
    let typed = "";
    const fill = async () => {
      const mine = typed;
      try {
        const { values, total } = await askJson(`${address}&most=${FIRST}&q=${encodeURIComponent(typed)}`);
        if (mine !== typed) return;
        list.replaceChildren(...values.map(([value, songs, artist]) => this.entry(column, value, songs, artist)));
        list.tabIndex = values.length > 7 ? 0 : -1;                  // a scrolled list can be reached by keys
        said.textContent = !total ? (typed ? `No ${column} matches “${typed}”.` : `No song names its ${column}.`) : total > values.length ? `${(total - values.length).toLocaleString("en")} more. Type to find them.` : "";
        made.dataset.total = String(total);
        if (!typed && total > SEARCHED_FROM && !head.querySelector("input")) {
          const search = element("input", { type: "search", placeholder: `Find in ${total.toLocaleString("en")}` });
          search.setAttribute("aria-label", `Find in ${name.toLowerCase()}`);
          let timer = 0;
          search.oninput = () => { clearTimeout(timer); timer = setTimeout(() => { typed = search.value.trim(); fill(); }, WAIT_MS); };
          head.append(search);
        }
      } catch (error) { said.textContent = error.message; }
    };
    fill();
    return made;
  }

  entry(column, value, songs, artist) {
    const button = element("button", { type: "button", title: value, onclick: () => this.send("choose", { kind: column, value }), children: [
      element("div", { children: [element("b", { text: value }), ...(artist ? [element("span", { text: artist })] : [])] }),
      element("small", { text: `${songs.toLocaleString("en")} ${songs === 1 ? "song" : "songs"}` })] });
    return element("li", { children: [button] });
  }

  free() {}
}

export const { mount, unmount } = mountable(Shelf);
