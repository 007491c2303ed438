// Keys of the map: arrows, zoom, search, pick, Escape.  Space and, after a click, left and right belong to the player.

import { playing, playNow, typing } from "./player.js";

const STEP_PX = 60, GROWTH = 1.4;
const MOVES = { ArrowLeft: [STEP_PX, 0], ArrowRight: [-STEP_PX, 0], ArrowUp: [0, STEP_PX], ArrowDown: [0, -STEP_PX] };
const ZOOMS = { "+": GROWTH, "=": GROWTH, "-": 1 / GROWTH };

// `on`: adds an event listener which `map` removes later.
export function listenToKeys(map, on) {
  let byKeys = false;                    // whether the keyboard moved the focus last: the arrows then move the map
  const use = (used) => { byKeys = used; map.root.classList.toggle("keys", used); };
  on(window, "pointerdown", () => use(false), true);
  on(window, "keydown", (event) => { if (["Tab", "Escape", "/"].includes(event.key)) use(true); }, true);
  on(document, "keydown", (event) => {
    if (event.defaultPrevented || typing(event) || !map.root.isConnected || !map.xy) return;
    const inside = event.composedPath().includes(map.stage), idle = event.composedPath()[0] === document.body;
    if (!inside && !(idle && map.data.keys)) return;
    const pan = MOVES[event.key];
    if (event.key === " " && map.picked && !playing()) playNow(map.picked);
    else if (event.key === "Escape") escape(map);
    else if (event.key === "/") map.search.input.focus();
    else if (event.key === "0") { map.home(); map.settle(); }
    else if (ZOOMS[event.key]) map.zoom(ZOOMS[event.key]);
    else if (event.key === "Enter") enter(map, byKeys);
    else if (pan && inside && (byKeys || event.shiftKey)) move(map, pan);
    else if (pan && map.picked && pan[0] === 0) map.neighbours.move(event.key === "ArrowDown" ? 1 : -1);
    else if (pan && inside && (pan[0] === 0 || !playing())) move(map, pan);
    else return;
    event.preventDefault();
  });
}

function move(map, pan) {
  map.view.moveBy(...pan);
  map.drawSoon();
}

// Undo the last step: the search, drawing, the pick, the selection.
function escape(map) {
  if (!map.search.section.hidden) map.search.clear();
  else if (map.selecting()) map.arm(false);
  else if (map.picked) map.clear();
  else if (map.lasso.length) map.unselect();
}

// Pick the hit that is played, or with the keyboard the point nearest to the middle of the view.
function enter(map, byKeys) {
  if (!byKeys && map.picked && map.neighbours.follow()) return;
  map.click(map.view.width / 2, map.view.height / 2, Math.max(map.view.width, map.view.height));
}
