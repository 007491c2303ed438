"""Helpers shared by all pages: the lake, choices kept in the address bar, error messages, rows for a list of clips.

User input and text from files is shown by `st.text` and similar, never as markup.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple, TypeVar

import polars as pl
import streamlit as st
from streamlit.runtime.scriptrunner import get_script_run_ctx

from tonelake import Lake
from tonelake.index import BestLayer, file_titles
from tonelake.playlists import playlist
from tonelake.shelf import narrowing_columns
from tonelake.store import InputError, Space, TonelakeError, joined_lists, read_songs
from tonelake.ui import opened

MAX_LISTED = 50                          # clips in one list
NO_OTHER = "none"
MARKUP = re.compile(r"[\\`*_{}\[\]()<>#+\-.!|~:$&^=]")        # characters with a meaning in Markdown
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


def error_box(error: TonelakeError | str) -> None:
    """Show an error as plain text (it may quote a file name or tag).  The page continues, so earlier results can stay."""
    with st.container(border=True):
        st.markdown("**This did not work**")
        st.text(str(error))


def stop_with_error(error: TonelakeError) -> None:
    """Show an error as plain text, and end the page."""
    error_box(error)
    st.stop()


def stop_with_hint(sentence: str, command: str) -> None:
    """Show an empty state: what is missing and the command that creates it.  Ends the page."""
    st.info(sentence)
    st.code(command, language=None, wrap_lines=True)
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


def choose_layer(
    space: Space, place: Any = st, layers: Sequence[str] | None = None, *, best: BestLayer | None = None
) -> str:
    """Return the chosen layer's name.  Default: that of `best`, else of the space, or the nearest one among `layers`."""
    offered = list(layers or space.layers)
    drop_invalid_choice("layer", offered)
    if len(offered) == 1:
        place.text(f"Layer {offered[0]}")
        return offered[0]
    start = space.default_layer if best is None else space.layers.index(best.layer)
    nearest = min(offered, key=lambda name: abs(space.layers.index(name) - start))
    about = None if best is None else f"{best} ({'older' if best.stale else 'last'} layer report)."
    return place.select_slider("Layer", offered, value=nearest, key="layer", bind="query-params", help=about)


def lazy_expander(place: Any, label: str, parameters: Sequence[str], *, key: str) -> Any:
    """Return an expander for controls, or None while they need not be drawn, which takes the browser a while.

    They need not be while the expander is closed and the address has none of their `parameters`, so that all are at their
    defaults.  It is open at first if the address has one.
    """
    chosen = any(name in st.query_params for name in parameters)
    expanded = st.session_state.setdefault(f"{key} at first", chosen)
    box = place.expander(label, expanded=expanded, key=key, on_change="rerun")
    return box if box.open or chosen else None


def choose_column(lake: Lake, place: Any = st, key: str = "column") -> str:
    """Return the chosen label column, at first `artist` unless all songs are by one.  Ends the page if clips have no labels."""
    columns = lake.clips.group_columns()
    if not columns:
        stop_with_hint("The clips have no labels to group them by.", "tonelake ingest folder PATH --labels FILE.csv")
    drop_invalid_choice(key, columns)
    several = [name for name in narrowing_columns(lake) if name in columns and name != "year"]
    first = columns.index(several[0]) if several else 0
    return place.selectbox("Label column", columns, index=first, key=key, bind="query-params")


# -- the selection made on the map


class Lasso(NamedTuple):
    """A selection on the map of a layer."""

    space: str
    layer: str
    corners: list[list[float]]
    songs: bool                          # whether the points of the map are songs


def remember_lasso(space: Space, layer: str, corners: Sequence[Sequence[float]] | None, *, songs: bool = False) -> None:
    """Keep a selection in the session, for the other pages, and in the address."""
    if not corners:
        st.session_state.pop("lasso", None)
        st.query_params.pop("lasso", None)
        return
    text = f"{space.name}~{layer}~" + "_".join(f"{value:.5g}" for corner in corners for value in corner)
    text += "~songs" if songs else ""
    st.session_state["lasso"] = text
    st.query_params["lasso"] = text


def read_lasso() -> Lasso | None:
    """Return the selection kept in the address or the session, or None."""
    text = st.query_params.get("lasso") or st.session_state.get("lasso", "")
    try:
        space, layer, corners, *songs = text.split("~")
        values = [float(value) for value in corners.split("_")]
    except ValueError:
        return None
    polygon = [[x, y] for x, y in zip(values[::2], values[1::2], strict=False)]
    st.session_state["lasso"] = text
    if st.query_params.get("lasso") != text:
        st.query_params["lasso"] = text
    return Lasso(space, layer, polygon, songs == ["songs"])


def selected_ids(lake: Lake) -> pl.Series:
    """Return ids of the selected clips; empty without a selection or if its map no longer exists."""
    from tonelake.ui.points import load_points

    found = read_lasso()
    if found is not None:
        try:
            space = lake.spaces.get(found.space)
            points = load_points(lake, space, space.layer_index(found.layer), songs=found.songs)
            return points.within_polygon(found.corners)
        except InputError:
            st.session_state.pop("lasso", None)
    return pl.Series("clip_id", [], dtype=pl.String)


# -- clips


def rows_for_list(
    clips: pl.DataFrame, *, score: str | None = None, note: pl.Expr | None = None, moments: bool = False, whole: bool = True
) -> list[dict[str, Any]]:
    """Return clips as rows for `components.clip_list`.

    `moments`: the rows show and play the clips themselves, not their songs from the beginning.  `whole`: in the queue, each
    still begins at the beginning of its recording; else at its clip.
    """
    kept = ("clip_id", "rank", "title", "artist", "album", "track", "start_s", "duration_s", "why", "source")
    columns: list[Any] = [name for name in kept if name in clips.columns]
    columns += [pl.col("start_s").alias("moment_s")] if moments else []
    columns += [] if whole else [pl.col("start_s").alias("queue_s")]
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


def song_title(row: dict[str, Any]) -> str:
    """Return the title of a clip's song; without one the name of its file without the audio suffix, never a path.

    >>> song_title({"title": None, "source": "/music/Ada/one.flac"}), song_title({"title": "One", "track": "x"})
    ('one', 'One')
    """
    names = file_titles(pl.Series([row.get("source"), row.get("track")], dtype=pl.String))
    return row.get("title") or names[0] or names[1] or "Untitled"


def open_page(page: str, state: dict[str, str]) -> None:
    """Open a page with these parameters in its address, also with those that a widget of this page is bound to.

    Streamlit lets only the bound widget set a parameter, even while it leaves the page, so these widgets are unbound first.
    """
    context = get_script_run_ctx()
    if context is not None:
        with context.session_state.query_params() as parameters:
            for name in state:
                bound = parameters.get_binding_for_param(name)
                if bound is not None:
                    parameters.unbind_widget(bound.widget_id)
    st.switch_page(page, query_params=state)


def open_listen(clip_id: str, space: Space | None = None, layer: str | None = None) -> None:
    """Open the Listen page for a clip's song."""
    state = {"song": clip_id} | ({"space": space.name} if space else {}) | ({"layer": layer} if layer else {})
    open_page("pages/listen.py", state)


def open_map(clip_id: str, space: Space, layer: str) -> None:
    """Open the Map page with a clip picked."""
    open_page("pages/map.py", {"pick": clip_id, "space": space.name, "layer": layer})


def follow_action(result: Any, space: Space, layer: str) -> None:
    """Perform the action that was triggered in a list of clips."""
    if getattr(result, "open", None):
        open_listen(result.open, space, layer)
    if getattr(result, "map", None):
        open_map(result.map, space, layer)


def plain(text: str) -> str:
    """Escape text from files for places that take Markdown, such as labels of buttons.

    >>> plain("[x](y) :red[z]")
    '\\\\[x\\\\]\\\\(y\\\\) \\\\:red\\\\[z\\\\]'
    """
    return MARKUP.sub(r"\\\g<0>", text)


def count_phrase(number: int, singular: str, plural: str | None = None) -> str:
    """Return e.g. "1 clip" or "2,000 clips"."""
    return f"{number:,} {singular if number == 1 else plural or singular + 's'}"


def csv_button(table: pl.DataFrame, name: str, place: Any = st, label: str | None = None, **settings: Any) -> None:
    """Show a button that downloads a table as the file `name`, CSV with list values joined by ";"."""
    place.download_button(
        label or name, lambda: with_joined_lists(table).write_csv(), name, "text/csv", on_click="ignore", **settings
    )


def playlist_button(
    lake: Lake, hits: pl.DataFrame, name: str, place: Any = st, label: str | None = None, **settings: Any
) -> None:
    """Show a button that downloads the files of a list as the playlist `name`."""
    place.download_button(
        label or name, lambda: playlist(lake, hits)[0], name, "audio/x-mpegurl", on_click="ignore", **settings
    )


def with_joined_lists(table: pl.DataFrame) -> pl.DataFrame:
    """Convert list columns to text, joined by ";"."""
    return table.with_columns(joined_lists(column, ";") for column in table)


def existing_columns(frame: pl.DataFrame, names: Iterable[str]) -> list[str]:
    return [name for name in names if name in frame.columns]
