"""Helpers shared by all pages: the lake, choices kept in the address bar, error messages, rows for a list of clips.

User input and text from files is shown by `st.text` and similar, never as markup.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeVar

import polars as pl
import streamlit as st

from tonelake import Lake
from tonelake.playlists import playlist
from tonelake.store import InputError, Space, TonelakeError, joined_lists, read_songs
from tonelake.ui import opened

MAX_LISTED = 50                          # clips in one list
NO_OTHER = "none"
Result = TypeVar("Result")


def page_lake() -> Lake:
    """Return the app's lake.  If it cannot be opened, show the error and end the page."""
    return answer_or_stop(opened.opened_lake)


def answer_or_stop(question: Callable[..., Result], *arguments: Any, **settings: Any) -> Result:
    """Return the result of a call.  On a TonelakeError, show its message and end the page."""
    try:
        return question(*arguments, **settings)
    except TonelakeError as error:
        stop_with_error(error)
        raise


def stop_with_error(error: TonelakeError) -> None:
    """Show an error as plain text (it may quote a file name or tag), and end the page."""
    with st.container(border=True):
        st.markdown("**This did not work**")
        st.text(str(error))
    st.stop()


def stop_with_hint(sentence: str, command: str) -> None:
    """Show an empty state: what is missing and the command that creates it.  Ends the page."""
    st.info(sentence)
    st.code(command, language="bash")
    st.stop()


# -- choices kept in the address bar


def drop_invalid_choice(key: str, options: Sequence[Any]) -> None:
    """Drop a kept choice that is no longer among `options`, e.g. a layer of another space."""
    if st.session_state.get(key) not in options:
        st.session_state.pop(key, None)


def choose_space(lake: Lake, place: Any = st) -> Space:
    """Return the chosen space, at first the default one.  Ends the page if nothing is embedded."""
    spaces = {space.name: space for space in answer_or_stop(lake.spaces.all) if lake.vectors(space).count()}
    if not spaces:
        if not lake.clips.count():
            stop_with_hint("This lake has no clips yet.", "tonelake ingest folder PATH")
        stop_with_hint("Nothing is embedded yet.", "tonelake embed")
    drop_invalid_choice("space", list(spaces))
    about = "Encoder and settings that made the vectors."
    default = lake.spaces.default(list(spaces.values()))[0].name
    names = list(spaces)
    return spaces[place.selectbox("Space", names, index=names.index(default), key="space", bind="query-params", help=about)]


def choose_other_space(lake: Lake, space: Space, place: Any = st) -> tuple[Space, float] | None:
    """Return a second space to mix with, and its weight from 0 to 1; None without one."""
    others = {one.name: one for one in answer_or_stop(lake.spaces.all) if one != space and lake.vectors(one).count()}
    drop_invalid_choice("mix", [NO_OTHER, *others])
    name = place.selectbox(
        "Mix with another space", [NO_OTHER, *others], key="mix", bind="query-params", disabled=not others,
        help="Compare by what two encoders find similar. The layer report tells whether a mixture beats its better half: "
        "`tonelake layers COLUMN --spaces A,B`." if others else
        "This lake has one space. `tonelake embed --encoder NAME` adds another, and `tonelake encoders` lists the names.",
    )
    if name not in others:
        return None
    percent = place.slider("Weight of the other space, %", 5, 95, 50, 5, key="weight", bind="query-params")
    return others[name], percent / 100


def choose_layer(space: Space, place: Any = st, layers: Sequence[str] | None = None) -> str:
    """Return the chosen layer's name.  Default: the space's default layer, or the nearest one among `layers`."""
    offered = list(layers or space.layers)
    drop_invalid_choice("layer", offered)
    if len(offered) == 1:
        place.text(f"Layer {offered[0]}")
        return offered[0]
    nearest = min(offered, key=lambda name: abs(space.layers.index(name) - space.default_layer))
    return place.select_slider("Layer", offered, value=nearest, key="layer", bind="query-params")


def choose_column(lake: Lake, place: Any = st, key: str = "column") -> str:
    columns = lake.clips.group_columns()
    if not columns:
        stop_with_hint("The clips have no labels to group them by.", "tonelake ingest folder PATH --labels FILE.csv")
    drop_invalid_choice(key, columns)
    return place.selectbox("Label column", columns, key=key, bind="query-params")


def filter_box(lake: Lake, place: Any = st) -> str | None:
    """Return an SQL filter over clip columns, combined with the map selection.  Ends the page if the SQL is invalid."""
    typed = place.text_input(
        "Filter", key="where", bind="query-params", placeholder="artist = 'X' AND year > 1990",
        help=f"SQL expression over {', '.join(lake.clips.columns())}.",
    ).strip()
    if typed:
        answer_or_stop(lake.clips.count, typed)
    parts = [f"({typed})"] if typed else []
    chosen = selected_ids(lake)
    if len(chosen) and place.toggle(f"Only the {len(chosen):,} selected on the map", key="selected", bind="query-params"):
        parts.append(f"clip_id IN ({', '.join(repr(str(clip_id)) for clip_id in chosen)})")
    return " AND ".join(parts) or None


# -- the selection made on the map


def remember_lasso(space: Space, layer: str, corners: Sequence[Sequence[float]] | None) -> None:
    """Keep a selection in the session, for the other pages, and in the address."""
    if not corners:
        st.session_state.pop("lasso", None)
        st.query_params.pop("lasso", None)
        return
    text = f"{space.name}~{layer}~" + "_".join(f"{value:.5g}" for corner in corners for value in corner)
    st.session_state["lasso"] = text
    st.query_params["lasso"] = text


def read_lasso() -> tuple[str, str, list[list[float]]] | None:
    """Return (space, layer, corners) of the selection kept in the address or the session, or None."""
    text = st.query_params.get("lasso") or st.session_state.get("lasso", "")
    try:
        space, layer, corners = text.split("~")
        values = [float(value) for value in corners.split("_")]
    except ValueError:
        return None
    polygon = [[x, y] for x, y in zip(values[::2], values[1::2], strict=False)]
    st.session_state["lasso"] = text
    if st.query_params.get("lasso") != text:
        st.query_params["lasso"] = text
    return space, layer, polygon


def selected_ids(lake: Lake) -> pl.Series:
    """Return ids of the selected clips; empty without a selection or if its map no longer exists."""
    from tonelake.ui.points import load_points

    found = read_lasso()
    if found is not None:
        try:
            space = lake.spaces.get(found[0])
            return load_points(lake, space, space.layer_index(found[1])).within_polygon(found[2])
        except InputError:
            st.session_state.pop("lasso", None)
    return pl.Series("clip_id", [], dtype=pl.String)


# -- clips


def rows_for_list(clips: pl.DataFrame, *, score: str | None = None, note: pl.Expr | None = None) -> list[dict[str, Any]]:
    """Return clips as rows for `components.clip_list`."""
    kept = ("clip_id", "rank", "title", "artist", "album", "track", "start_s", "duration_s", "source")
    columns: list[Any] = [name for name in kept if name in clips.columns]
    if score is not None:
        columns.append(pl.col(score).alias("score"))
    if note is not None:
        columns.append(note.alias("note"))
    return clips.select(columns).to_dicts()


def one_row_a_song(lake: Lake, clips: pl.DataFrame) -> pl.DataFrame:
    """Fold clips into songs: the first clip of each, in order, and `clips`, how many of these clips belong to it."""
    songs = pl.Series("song", read_songs(lake.clips).of(clips["clip_id"]))
    folded = clips.with_columns(songs).group_by("song", maintain_order=True).agg(pl.all().first(), pl.len().alias("clips"))
    return folded.drop("song")


def count_note(name: str = "clips") -> pl.Expr:
    """Return the expression of a note for a song: how many of its clips match, if several do."""
    return pl.when(pl.col(name) > 1).then(pl.format("{} clips", name))


def open_similar(clip_id: str, space: Space | None = None, layer: str | None = None) -> None:
    """Open the Similar page for a clip."""
    state = {"clip": clip_id} | ({"space": space.name} if space else {}) | ({"layer": layer} if layer else {})
    st.switch_page("pages/similar.py", query_params=state)


def open_map(clip_id: str, space: Space, layer: str) -> None:
    """Open the Map page with a clip picked."""
    st.switch_page("pages/map.py", query_params={"pick": clip_id, "space": space.name, "layer": layer})


def follow_action(result: Any, space: Space, layer: str) -> None:
    """Perform the action that was triggered in a list of clips."""
    if getattr(result, "open", None):
        open_similar(result.open, space, layer)
    if getattr(result, "map", None):
        open_map(result.map, space, layer)


def count_phrase(number: int, singular: str, plural: str | None = None) -> str:
    """Return e.g. "1 clip" or "2,000 clips"."""
    return f"{number:,} {singular if number == 1 else plural or singular + 's'}"


def csv_button(table: pl.DataFrame, name: str, place: Any = st, **settings: Any) -> None:
    """Show a button that downloads a table as CSV, with list values joined by ";"."""
    place.download_button(name, with_joined_lists(table).write_csv(), name, "text/csv", on_click="ignore", **settings)


def playlist_button(lake: Lake, hits: pl.DataFrame, name: str, place: Any = st, **settings: Any) -> None:
    """Show a button that downloads the files of a list as a playlist."""
    place.download_button(name, playlist(lake, hits)[0], name, "audio/x-mpegurl", on_click="ignore", **settings)


def with_joined_lists(table: pl.DataFrame) -> pl.DataFrame:
    """Convert list columns to text, joined by ";"."""
    return table.with_columns(joined_lists(column, ";") for column in table)


def existing_columns(frame: pl.DataFrame, names: Iterable[str]) -> list[str]:
    return [name for name in names if name in frame.columns]
