"""Custom Streamlit components: the map, a playable list of clips, and a piano roll.

They fetch their data from the routes in `routes.py` and return the user's actions as values.  Only pages import this
module, because components can be registered only where Streamlit runs.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

import streamlit as st

from tonelake.store import Space

STATIC = Path(__file__).parent / "static"
# Streamlit runs a component's script from a blob URL, where relative imports fail.  The loader requests all modules at once,
# instead of one after another as each imports the next, and fetches the map's points in parallel.
LOADER = """
export default function (component) {
  const [loaded] = %s.map((name) => import(location.origin + "/tonelake/static/" + name + ".js"));
  const { base, stamp } = component.data ?? {}, early = (globalThis.tonelakeEarly ??= new Map());
  if (base && !early.has(base + stamp)) early.set(base + stamp, fetch(base + "/points"));
  loaded.then((part) => part.mount(component)).catch((error) => {
    const place = component.parentElement;
    place.textContent = "This component could not be loaded (" + error.message + "). Start the app with `tonelake ui`.";
  });
  return () => loaded.then((part) => part.unmount(component.parentElement));
}
"""


def register(name: str, *modules: str) -> Any:
    """Register the component static/NAME.html, .css and .js, which imports `modules` from the same folder."""
    html, css = ((STATIC / f"{name}.{kind}").read_text(encoding="utf-8") for kind in ("html", "css"))
    return st.components.v2.component(f"tonelake_{name}", html=html, css=css, js=LOADER % json.dumps([name, *modules]))


MAP = register("map", "colours", "grid", "legend", "neighbours", "player", "points", "view")
CLIPS = register("clips", "player")
ROLL = register("roll", "player", "spectrogram")
ACTIONS = ("open", "more", "less", "map")


def clip_map(
    space: Space, layer: str, *, key: str, stamp: str, colour: str = "cluster", k: int = 12, not_same: str | None = None,
    pick: str | None = None, lasso: Sequence[Sequence[float]] | None = None, height: int = 640, keys: bool = True,
) -> Any:
    """Show the map of a layer.  Returns `pick` (a clip id or None) and `lasso` (corners of a polygon, or None).

    `stamp` changes whenever the map is rebuilt.  With `keys`, the map handles key presses while no element has the focus.
    """
    place = f"{quote(space.name, safe='')}/{quote(layer, safe='')}"
    return MAP(
        key=key, height=height, on_pick_change=no_action, on_lasso_change=no_action,
        data={
            "base": f"/tonelake/map/{place}", "near": f"/tonelake/near/{place}", "layer": layer, "stamp": stamp,
            "colour": colour, "k": k, "notSame": not_same or "", "pick": pick, "lasso": lasso, "height": height, "keys": keys,
        },
    )


def clip_list(
    clips: Sequence[dict[str, Any]], *, key: str, layer: str = "", layers: Sequence[str] = (), usual: Sequence[float] = (),
    actions: Sequence[str] = ("open",), keys: bool = True,
) -> Any:
    """List playable clips in this order.  Returns, for each of `actions`, the id of the clip it was triggered on, or None.

    A clip needs clip_id, track and start_s.  Optional: rank, score, title, artist, album, duration_s, note, tags (a list), and
    profile (cosine to the query at each of `layers`, shown beside `usual`, the cosine of an average clip).
    """
    return CLIPS(
        key=key, **{f"on_{action}_change": no_action for action in ACTIONS},
        data={
            "clips": list(clips), "layer": layer, "layers": list(layers), "usual": list(usual), "actions": list(actions),
            "keys": keys,
        },
    )


def piano_roll(drawing: dict[str, Any], spectrogram: dict[str, Any], clip_id: str, *, key: str, height: int = 440) -> None:
    """Show the events of a clip over its spectrogram, with a player.

    `drawing`: as of `ClipEvents.drawing`; `spectrogram`: as of `pitch_spectrogram.grid_of`; `height`: of the notes in pixels.
    """
    ROLL(key=key, data={"clip": clip_id, "spectrogram": spectrogram, "height": height, **drawing})


def no_action() -> None:
    """Do nothing.  Streamlit returns a component's value only if a callback is registered for it."""
