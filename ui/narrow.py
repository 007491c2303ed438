"""Narrow a list of songs: chips of chosen artists, albums, years and label values, and SQL for what they cannot say.

The choice is kept in the address: `artist=…&album=…&year=1990-1999&label.COLUMN=…`, each but the year repeatable.  Values of
one column are alternatives, columns are combined.  A filter is made of chosen values as literals; only the SQL box takes SQL.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import streamlit as st

from tonelake import Lake
from tonelake.narrowing import condition_on
from tonelake.shelf import is_range, narrowing_columns, values_of
from tonelake.store import FilterError, can_group, in_list
from tonelake.ui.components import register
from tonelake.ui.shared import error_box, lazy_expander, selected_ids

NARROW = register("narrow", "parts")
PLAIN = ("artist", "album", "year")      # their names in the address; label columns have the prefix
PREFIX = "label."


def narrow_chips(lake: Lake, place: Any = st, *, key: str = "narrow", advanced: Any = None) -> str | None:
    """Show chips to narrow a list, and return their SQL filter over clip columns; None without any.

    `advanced`: where the SQL box and the selection made on the map are offered, by default below the chips.  An invalid SQL
    filter is explained there, and the last valid one is kept.
    """
    chosen = chosen_values(lake)
    columns = list(dict.fromkeys([*narrowing_columns(lake), *chosen]))
    if columns:
        shown = [description_of(lake, column, chosen.get(column, [])) for column in columns]
        with place.container():
            NARROW(key=key, on_set_change=lambda: keep_choice(lake, key), data={"columns": shown})
    selected = selected_ids(lake)
    place = place if advanced is None else advanced
    box = lazy_expander(place, "Advanced: filter by SQL", ("where",), key=f"{key} advanced")
    typed = "" if box is None else sql_box(lake, box)
    parts = [condition for column, values in chosen.items() if (condition := condition_on(lake, column, values))]
    if typed:
        parts.append(f"({typed})")
    if len(selected) and place.toggle(f"Only the {len(selected):,} selected on the map", key="selected", bind="query-params"):
        parts.append(in_list("clip_id", selected.to_list()))
    return " AND ".join(parts) or None


def sql_box(lake: Lake, place: Any) -> str:
    """Return the SQL that was typed or, while that is invalid, the last one that was valid; empty without any."""
    typed = place.text_input(
        "Filter", key="where", bind="query-params", placeholder="artist = 'X' AND year > 1990",
        help=f"SQL expression over {', '.join(lake.clips.columns())}.",
    ).strip()
    if typed:
        try:
            lake.clips.count(typed)
        except FilterError as error:
            kept = st.session_state.get("valid where", "")
            with place.container():
                error_box(error)
                st.caption("The list follows the last filter that could be used." if kept else "The list is not filtered.")
            return kept
    st.session_state["valid where"] = typed
    return typed


# -- the choice, in the address


def name_in_address(column: str) -> str:
    return column if column in PLAIN else PREFIX + column


def chosen_values(lake: Lake) -> dict[str, list[str]]:
    """Return the chosen values of each column, as text; a range is one text such as 1990-1999."""
    types = lake.clips.read(where="false").schema
    names = {name_in_address(column): column for column, kind in types.items() if can_group(kind)}
    found = {
        names[name]: list(dict.fromkeys(value for value in st.query_params.get_all(name) if value))
        for name in st.query_params if name in names
    }
    return {column: values for column, values in found.items() if values}


def set_choice(column: str, values: Sequence[str]) -> None:
    """Put the chosen values of a column in the address; without any, remove it."""
    name = name_in_address(column)
    if values:
        st.query_params[name] = list(values)
    else:
        st.query_params.pop(name, None)


def clear_choices() -> None:
    """Remove all chosen values from the address."""
    for name in [name for name in st.query_params if name in PLAIN or name.startswith(PREFIX)]:
        st.query_params.pop(name, None)


def keep_choice(lake: Lake, key: str) -> None:
    """Keep what was chosen in the component: {column, values}, or no column to remove everything."""
    change = (st.session_state.get(key) or {}).get("set")
    if not isinstance(change, Mapping):
        return
    if not change.get("column"):
        clear_choices()
    elif change["column"] in lake.clips.columns():
        set_choice(str(change["column"]), [str(value) for value in change.get("values") or []])


def description_of(lake: Lake, column: str, chosen: Sequence[str]) -> dict[str, Any]:
    """Return a column for the component."""
    shown: dict[str, Any] = {"name": column, "label": column.replace("_", " ").capitalize(), "chosen": list(chosen)}
    if is_range(lake, column):
        years = values_of(lake, column)["value"]
        shown |= {"range": True, "low": years.min(), "high": years.max()}
    return shown
