// Rows of songs in the map's panel: a click on the names plays the song; the arrow picks it; the plus appends it to the queue.

import { element, enqueue, placeOf, playing, titleOf } from "./player.js";

// `play`: called with the song; `pick`: the same, null where the song is not on this map.
export function songRow(clip, { play, pick, score = null }) {
  const title = titleOf(clip);
  const main = element("button", { type: "button", className: "main", title: "Play", children: [
    element("span", { className: "words", children: [element("b", { text: title }), element("span", { text: placeOf(clip) })] }),
    ...(score === null ? [] : [element("span", { className: "score", text: score.toFixed(3) })])] });
  main.onclick = () => play(clip);
  const go = element("button", { type: "button", className: "go", text: "→" });
  go.setAttribute("aria-label", `Show ${title} and what is near it`);
  go.title = pick ? "Show it and what is near it" : "Not on this map. `tonelake map` adds new clips";
  go.disabled = !pick;
  go.onclick = () => pick(clip);
  const add = element("button", { type: "button", className: "add", text: "+", title: "Add to queue" });
  add.setAttribute("aria-label", `Add ${title} to the queue`);
  add.onclick = () => { enqueue([clip]); add.textContent = "✓"; };
  const row = element("li", { children: [main, go, add] });
  row.dataset.clip = clip.clip_id;
  if (clip.clip_id === playing()) row.classList.add("sounds");
  row.clip = clip;
  return row;
}

// Mark the row of the song that the player holds.
export function markSounding(place, clipId) {
  for (const row of place.querySelectorAll("li[data-clip]")) row.classList.toggle("sounds", row.dataset.clip === clipId);
}

// Arrow keys move between the rows of a list, Enter and Space press them as buttons.  `before`: what the first row's up arrow leads to.
export function moveByArrows(list, before = null) {
  list.addEventListener("keydown", (event) => {
    const step = { ArrowDown: 1, ArrowUp: -1 }[event.key], row = event.target.closest("li");
    if (!step || !row) return;
    event.preventDefault();
    event.stopPropagation();
    const next = step > 0 ? row.nextElementSibling : row.previousElementSibling;
    if (next) next.querySelector("button").focus();
    else if (step < 0) before?.focus();
  });
}
