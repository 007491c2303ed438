"""What every page needs: the lake, the choices that the address bar keeps, errors as sentences, and rows for a list of clips.

What is typed or comes out of a file is shown by `st.text` and the like, never as markup.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeVar

import polars as pl
import streamlit as st

from tonelake.api import Tonelake
from tonelake.store import InputError, Space, TonelakeError
from tonelake.ui import opened

MOST_LISTED = 50                         # clips in one list
FIXED_GROUPS = ("artist", "album", "track", "dataset", "stem", "split")
Result = TypeVar("Result")


def the_lake() -> Tonelake:
    """The lake that the app was started for; the page ends with the reason where it cannot be opened."""
    return asked(opened.opened_lake)


def asked(question: Callable[..., Result], *arguments: Any, **settings: Any) -> Result:
    """The answer of a call into the lake; where it fails for a reason of ours, the page ends with that sentence."""
    try:
        return question(*arguments, **settings)
    except TonelakeError as error:
        stop_with(error)
        raise


def stop_with(error: TonelakeError) -> None:
    """Show an error as text, not as markup: it may quote a file name or tag."""
    with st.container(border=True):
        st.markdown("**This did not work**")
        st.text(str(error))
    st.stop()


def nothing_yet(sentence: str, command: str) -> None:
    """An empty state: what is missing, and the command that brings it.  Ends the page."""
    st.info(sentence)
    st.code(command, language="bash")
    st.stop()


# -- choices that the address bar keeps


def keep_valid(key: str, options: Sequence[Any]) -> None:
    """Forget a kept choice that is none any more, as a layer of another space."""
    if st.session_state.get(key) not in options:
        st.session_state.pop(key, None)


def choose_space(lake: Tonelake, place: Any = st) -> Space:
    """The space, chosen where there are several; the page ends where nothing is embedded."""
    spaces = {space.name: space for space in asked(lake.lake.spaces.all) if lake.lake.vectors(space).count()}
    if not spaces:
        if not lake.lake.clips.count():
            nothing_yet("This lake has no clips yet.", "tonelake ingest folder PATH")
        nothing_yet("Nothing is embedded yet.", "tonelake embed")
    keep_valid("space", list(spaces))
    return spaces[place.selectbox("Space", list(spaces), key="space", bind="query-params", help="One way of embedding.")]


def choose_layer(space: Space, place: Any = st, layers: Sequence[str] | None = None) -> str:
    """A layer's name, by default the space's own, or the nearest of those that are offered."""
    offered = list(layers or space.layers)
    keep_valid("layer", offered)
    if len(offered) == 1:
        place.text(f"Layer {offered[0]}")
        return offered[0]
    nearest = min(offered, key=lambda name: abs(space.layers.index(name) - space.default_layer))
    return place.select_slider("Layer", offered, value=nearest, key="layer", bind="query-params")


def group_columns(lake: Tonelake) -> list[str]:
    """Columns by which clips can be grouped: those with values, but no decimals."""
    clips = lake.lake.clips
    names = [*FIXED_GROUPS, *clips.label_columns()]
    schema = clips.table.schema
    whole = [name for name in names if name in schema.names and "float" not in str(schema.field(name).type)
             and "double" not in str(schema.field(name).type)]
    return [name for name in whole if lake.lake.clips.count(f"{name} IS NOT NULL")]


def choose_column(lake: Tonelake, place: Any = st, key: str = "column") -> str:
    columns = group_columns(lake)
    if not columns:
        nothing_yet("The clips have no labels to group them by.", "tonelake ingest folder PATH --labels FILE.csv")
    keep_valid(key, columns)
    return place.selectbox("Label column", columns, key=key, bind="query-params")


def filter_box(lake: Tonelake, place: Any = st) -> str | None:
    """An SQL filter over clip columns, joined with what was selected on the map; the page ends where it is none."""
    typed = place.text_input(
        "Filter", key="where", bind="query-params", placeholder="artist = 'X' AND year > 1990",
        help=f"One SQL expression over {', '.join(lake.lake.clips.columns())}.",
    ).strip()
    if typed:
        asked(lake.lake.clips.count, typed)
    parts = [f"({typed})"] if typed else []
    chosen = selected_ids(lake)
    if len(chosen) and place.toggle(f"Only the {len(chosen):,} selected on the map", key="selected", bind="query-params"):
        parts.append(f"clip_id IN ({', '.join(repr(str(clip_id)) for clip_id in chosen)})")
    return " AND ".join(parts) or None


# -- what was selected on the map


def remember_lasso(space: Space, layer: str, corners: Sequence[Sequence[float]] | None) -> None:
    """Keep a selection for the other pages and in the address."""
    if not corners:
        st.session_state.pop("lasso", None)
        st.query_params.pop("lasso", None)
        return
    text = f"{space.name}~{layer}~" + "_".join(f"{value:.5g}" for corner in corners for value in corner)
    st.session_state["lasso"] = text
    st.query_params["lasso"] = text


def read_lasso() -> tuple[str, str, list[list[float]]] | None:
    """(space, layer, corners) of the selection that the address or this visit holds."""
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


def selected_ids(lake: Tonelake) -> pl.Series:
    """Ids of the clips within the selection; none where there is none, or its map has gone."""
    from tonelake.ui.points import load_points

    found = read_lasso()
    if found is not None:
        try:
            space = lake.lake.spaces.get(found[0])
            return load_points(lake.lake, space, space.layer_index(found[1])).inside(found[2])
        except InputError:
            st.session_state.pop("lasso", None)
    return pl.Series("clip_id", [], dtype=pl.String)


# -- clips


def rows_for_list(clips: pl.DataFrame, *, score: str | None = None, note: pl.Expr | None = None) -> list[dict[str, Any]]:
    """Clips as `ui.components.clip_list` takes them."""
    kept = ("clip_id", "rank", "title", "artist", "album", "track", "start_s", "duration_s", "source")
    columns: list[Any] = [name for name in kept if name in clips.columns]
    if score is not None:
        columns.append(pl.col(score).alias("score"))
    if note is not None:
        columns.append(note.alias("note"))
    return clips.select(columns).to_dicts()


def open_similar(clip_id: str, space: Space | None = None, layer: str | None = None) -> None:
    """Go to what sounds like a clip."""
    state = {"clip": clip_id} | ({"space": space.name} if space else {}) | ({"layer": layer} if layer else {})
    st.switch_page("pages/similar.py", query_params=state)


def open_map(clip_id: str, space: Space, layer: str) -> None:
    """Go to a clip's place on the map."""
    st.switch_page("pages/map.py", query_params={"pick": clip_id, "space": space.name, "layer": layer})


def follow(result: Any, space: Space, layer: str) -> None:
    """Do what was asked for in a list of clips."""
    if getattr(result, "open", None):
        open_similar(result.open, space, layer)
    if getattr(result, "map", None):
        open_map(result.map, space, layer)


def counted(number: int, one: str, many: str | None = None) -> str:
    """1 clip, 2,000 clips."""
    return f"{number:,} {one if number == 1 else many or one + 's'}"


def csv_button(table: pl.DataFrame, name: str, place: Any = st, **settings: Any) -> None:
    """A button that saves a table; lists in it are joined by ;."""
    place.download_button(name, joined_lists(table).write_csv(), name, "text/csv", on_click="ignore", **settings)


def joined_lists(table: pl.DataFrame) -> pl.DataFrame:
    """List columns as text."""
    lists = [name for name, kind in table.schema.items() if isinstance(kind, pl.List)]
    return table.with_columns(pl.col(name).cast(pl.List(pl.String)).list.join(";") for name in lists)


def columns_of(frame: pl.DataFrame, names: Iterable[str]) -> list[str]:
    return [name for name in names if name in frame.columns]
