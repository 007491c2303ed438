// Buttons for a whole list of songs: play all of them, or append them to the queue.

import { element, enqueue, icon, mountable, playAll } from "./player.js";

class ListActions {
  constructor(host) {
    this.root = host.querySelector(".list");
  }

  update({ data }) {
    this.root.setAttribute("aria-label", `Play or queue ${data.songs.length} songs`);
    const answer = element("span", { className: "answer" });
    answer.setAttribute("role", "status");
    const queue = () => {
      const added = enqueue(data.songs);
      answer.textContent = added ? `${added} added to the queue.` : "All of them are in the queue.";
    };
    this.root.replaceChildren(this.button("play", "Play all", () => playAll(data.songs)), this.button("queue", "Add to queue", queue), answer);
  }

  button(name, text, action) {
    const made = element("button", { type: "button", className: name, children: [icon(name), element("span", { text })] });
    made.onclick = action;
    return made;
  }

  free() {}
}

export const { mount, unmount } = mountable(ListActions);
