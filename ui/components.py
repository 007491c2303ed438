"""Custom Streamlit components: the player, the map, lists of songs, and a piano roll.

They fetch their data from the routes in `routes.py` and return the user's actions as values.  Only pages import this
module, because components can be registered only where Streamlit runs.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

import polars as pl
import streamlit as st

from tonelake import Lake
from tonelake.store import Space
from tonelake.ui.shared import csv_button, playlist_button, rows_for_list

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
    if "player" in modules:
        modules = (*modules, "parts")    # which it imports
    return st.components.v2.component(f"tonelake_{name}", html=html, css=css, js=LOADER % json.dumps([name, *modules]))


MAP = register(
    "map", "colours", "grid", "legend", "map_gestures", "map_keys", "map_labels", "map_links", "map_loading", "map_rows",
    "map_search", "map_selection", "map_tips", "neighbours", "player", "points", "view",
)
CLIPS = register("clips", "player")
LIST_ACTIONS = register("actions", "player")
ROLL = register("roll", "player", "roll_drawing", "spectrogram")
BAR = register("bar", "player")
ACTIONS = ("open", "queue", "more", "less", "map")
SENT_ACTIONS = tuple(action for action in ACTIONS if action != "queue")         # to Python; the browser appends to the queue
MAX_QUEUED = 1_000                       # songs of a list that are sent to the player


def player_bar() -> None:
    """Show the player at the foot of the window.  It survives page changes; `app.py` calls this once for all pages."""
    BAR(key="player")


def clip_map(
    space: Space, layer: str, *, key: str, stamp: str, songs: bool = True, colour: str = "cluster", k: int = 12,
    not_same: str | None = None, pick: str | None = None, lasso: Sequence[Sequence[float]] | None = None, keys: bool = True,
) -> Any:
    """Show the map of a layer, with a point for each song or each clip, down to the foot of the window.

    Returns `pick` (a clip id or None), `lasso` (corners of a polygon, or None) and `open` (a clip to open in Listen, or None).
    `stamp` changes whenever the map is rebuilt.  With `keys`, the map handles key presses while no element has the focus.
    """
    place = f"{quote(space.name, safe='')}/{quote(layer, safe='')}"
    return MAP(
        key=key, height="content", on_pick_change=no_action, on_lasso_change=no_action, on_open_change=no_action,
        data={
            "base": f"/tonelake/{'songs' if songs else 'map'}/{place}", "near": f"/tonelake/near/{place}", "layer": layer,
            "stamp": stamp, "points": "songs" if songs else "clips", "colour": colour, "k": k, "notSame": not_same or "",
            "pick": pick, "lasso": lasso, "keys": keys,
        },
    )


def clip_list(
    clips: Sequence[dict[str, Any]], *, key: str, layer: str = "", layers: Sequence[str] = (), usual: Sequence[float] = (),
    actions: Sequence[str] = ("open",), keys: bool = True, bar: bool | tuple[float, float] = False,
) -> Any:
    """List playable clips in this order.  Returns, for each of `actions`, the id of the clip it was triggered on, or None.

    A clip needs clip_id, track and start_s.  Optional: rank, score, title, artist, album, duration_s, source, note, why (a
    sentence), tags (a list), and profile (cosine to the query at each of `layers`, shown beside `usual`, the cosine of an
    average clip).  A row plays from moment_s, in seconds of the recording, and in the queue from queue_s; without them from
    the beginning.  The action "queue" is handled in the browser.  `bar`: draw the score as a bar between these values; True:
    between the lowest and the highest.
    """
    return CLIPS(
        key=key, **{f"on_{action}_change": no_action for action in SENT_ACTIONS},
        data={
            "clips": list(clips), "layer": layer, "layers": list(layers), "usual": list(usual), "actions": list(actions),
            "keys": keys, "bar": list(bar) if isinstance(bar, tuple) else bar,
        },
    )


def list_actions(lake: Lake, clips: pl.DataFrame, *, key: str, name: str, whole: bool = True) -> None:
    """Show one row of buttons for a list of clips: Play all, Add to queue, M3U, CSV.

    With `whole`, each song is played from the beginning of its recording, else from its clip.
    `clips`: a frame with clip_id; its columns are those of the CSV file.  `name`: of the files, without a suffix.  Titles that
    `clips` lacks are read from the lake.  At most MAX_QUEUED songs are sent to the player.
    """
    heard = clips.head(MAX_QUEUED)
    if not {"title", "start_s", "track"} <= set(heard.columns):
        heard = lake.clips.take(heard["clip_id"].to_list())
    with st.container(horizontal=True, vertical_alignment="center", gap="xxsmall"):     # one row on a phone
        LIST_ACTIONS(key=key, width="content", data={"songs": rows_for_list(heard, whole=whole)})
        playlist_button(lake, clips, f"{name}.m3u8", label="M3U", key=f"{key} playlist", help="Save as a playlist")
        csv_button(clips, f"{name}.csv", label="CSV", key=f"{key} csv", help="Save as a table")


def piano_roll(
    drawing: dict[str, Any], spectrogram: dict[str, Any], clip: dict[str, Any], *, key: str, height: int = 440
) -> None:
    """Show the events of a clip over its spectrogram, played through the app's player.

    `drawing`: as of `ClipEvents.drawing`; `spectrogram`: as of `pitch_spectrogram.grid_of`; `clip`: a row of the clips;
    `height`: of the notes in pixels.
    """
    kept = ("clip_id", "title", "artist", "album", "track", "source", "start_s", "duration_s")
    song = {name: clip.get(name) for name in kept}
    ROLL(key=key, data={
        "clip": clip["clip_id"], "song": song, "spectrogram": spectrogram, "height": height, **drawing
    })


def no_action() -> None:
    """Do nothing.  Streamlit returns a component's value only if a callback is registered for it."""
