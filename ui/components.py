"""The app's own parts, registered with Streamlit once: the map, and a list of clips to be heard.

What they show comes from the routes of `ui.routes`; what a person does in them comes back as the values returned here.
Imported by the app's pages alone, since a part can only be registered where Streamlit runs.
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
# Streamlit runs a part's script from a blob, which can import nothing by a relative name.  All modules are asked for at once,
# rather than each when another one names it, and the map's points while they come.
LOADER = """
export default function (component) {
  const [loaded] = %s.map((name) => import(location.origin + "/tonelake/static/" + name + ".js"));
  const { base, stamp } = component.data ?? {}, early = (globalThis.tonelakeEarly ??= new Map());
  if (base && !early.has(base + stamp)) early.set(base + stamp, fetch(base + "/points"));
  loaded.then((part) => part.mount(component)).catch((error) => {
    const place = component.parentElement;
    place.textContent = "This part of the app could not be loaded (" + error.message + "): start it by `tonelake ui`.";
  });
  return () => loaded.then((part) => part.unmount(component.parentElement));
}
"""


def register(name: str, *modules: str) -> Any:
    """A part made of static/NAME.html, .css and .js, which needs these modules too."""
    html, css = ((STATIC / f"{name}.{kind}").read_text(encoding="utf-8") for kind in ("html", "css"))
    return st.components.v2.component(f"tonelake_{name}", html=html, css=css, js=LOADER % json.dumps([name, *modules]))


MAP = register("map", "colours", "grid", "legend", "neighbours", "player", "points", "view")
CLIPS = register("clips", "player")
ACTIONS = ("open", "more", "less", "map")


def clip_map(
    space: Space, layer: str, *, key: str, stamp: str, colour: str = "cluster", k: int = 12, not_same: str | None = None,
    pick: str | None = None, lasso: Sequence[Sequence[float]] | None = None, height: int = 640, keys: bool = True,
) -> Any:
    """The map of a layer; returns `pick`, a clip's id or None, and `lasso`, corners of a polygon or None.

    `stamp`: what changes when the map was made anew; `keys`: whether it hears keys while nothing has the focus.
    """
    place = f"{quote(space.name, safe='')}/{quote(layer, safe='')}"
    return MAP(
        key=key, height=height, on_pick_change=nothing, on_lasso_change=nothing,
        data={
            "base": f"/tonelake/map/{place}", "near": f"/tonelake/near/{place}", "layer": layer, "stamp": stamp,
            "colour": colour, "k": k, "notSame": not_same or "", "pick": pick, "lasso": lasso, "height": height, "keys": keys,
        },
    )


def clip_list(
    clips: Sequence[dict[str, Any]], *, key: str, layer: str = "", layers: Sequence[str] = (), usual: Sequence[float] = (),
    actions: Sequence[str] = ("open",), keys: bool = True,
) -> Any:
    """Clips to be heard, in this order; returns under the name of each of `actions` the clip it was asked for, or None.

    A clip needs clip_id, track and start_s, and may have rank, score, title, artist, album, duration_s, note, and profile: its
    cosine to the query at each of `layers`, beside `usual`, that of the average clip.
    """
    return CLIPS(
        key=key, **{f"on_{action}_change": nothing for action in ACTIONS},
        data={
            "clips": list(clips), "layer": layer, "layers": list(layers), "usual": list(usual), "actions": list(actions),
            "keys": keys,
        },
    )


def nothing() -> None:
    """Streamlit names a value only where something listens to it."""
