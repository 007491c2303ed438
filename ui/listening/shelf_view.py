"""The shelf of the Listen page: songs to start from, artists, albums, songs that were added last, and narrowed lists."""

from __future__ import annotations

import streamlit as st

from tonelake import Lake
from tonelake.shelf import SONG_COLUMNS, recent_songs, songs_of, start_songs
from tonelake.store import Space, TonelakeError
from tonelake.ui.components import clip_list, list_actions, register
from tonelake.ui.listening.address import follow_choice
from tonelake.ui.shared import count_phrase, error_box, one_row_a_song, rows_for_list

SHELF = register("shelf", "parts")
SHOWN_SONGS = 24                         # of a narrowed list, at first; each "more" adds as many
MOST_SAVED = 1_000                       # songs of a narrowed list in its playlist and CSV file


def show_shelf(lake: Lake) -> None:
    """Show what a visitor can start from.  Songs are opened by `open` of the lists."""
    space = default_space(lake)
    with st.container(key="start"):
        st.header("Songs to start from")
        try:
            with st.spinner("Choosing songs that differ", show_time=False):
                found = start_songs(lake, space)
        except TonelakeError as error:       # a file of the vectors is damaged
            error_box(error)
            found = start_songs(lake, None)
        open_song(clip_list(rows_for_list(found), key="start songs", actions=("open", "queue"), keys=False))
    SHELF(key="shelf", on_choose_change=lambda: follow_choice(trigger("shelf", "choose")),
          data={"stamp": lake.clips.table.version, "columns": ["artist", "album"]})
    st.header("Added last")
    open_song(clip_list(rows_for_list(recent_songs(lake)), key="recent songs", actions=("open", "queue"), keys=False))


def show_songs(lake: Lake, where: str) -> None:
    """Show the songs that a filter keeps."""
    kept = st.session_state.get("songs shown", ("", 0))
    shown = kept[1] if kept[0] == where else SHOWN_SONGS
    found, total = songs_of(lake, lake.clips.ids(where), first=max(shown, MOST_SAVED))
    st.header(count_phrase(total, "song"))
    if not total:
        st.info("No song matches. Remove a chip, or change the filter under “Advanced”.")
        return
    list_actions(lake, found, key="songs actions", name="songs")
    if total > MOST_SAVED:
        st.caption(f"The playlist and the CSV file have the first {MOST_SAVED:,} songs.")
    open_song(clip_list(rows_for_list(found.head(shown)), key="songs", actions=("open", "queue")))
    if total > shown and shown < MOST_SAVED and st.button(f"Show {SHOWN_SONGS} more"):
        st.session_state["songs shown"] = (where, shown + SHOWN_SONGS)
        st.rerun()


def show_named(lake: Lake, words: str, count: int = 6) -> int:
    """Show the songs whose names match the words; return how many there are, at most `count`."""
    matches = lake.find(words, k=count)
    if len(matches):
        st.header("Songs of that name")
        first = one_row_a_song(lake, lake.clips.take(matches["clip_id"].to_list(), SONG_COLUMNS))
        open_song(clip_list(rows_for_list(first), key="named songs", actions=("open", "queue"), keys=False))
    return len(matches)


def open_song(result: object) -> None:
    """Open the song that was chosen in a list."""
    if opened := getattr(result, "open", None):
        follow_choice({"kind": "song", "value": opened})
        st.rerun()


def trigger(key: str, name: str) -> object:
    """Return what a component has just sent."""
    return (st.session_state.get(key) or {}).get(name)


def default_space(lake: Lake) -> Space | None:
    """Return the space that songs are compared in at first; None if nothing is embedded."""
    spaces = [space for space in lake.spaces.all() if lake.vectors(space).count()]
    return lake.spaces.default(spaces)[0] if spaces else None
