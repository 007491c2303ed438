"""Listen page: one box for names, words and files; below it the shelf or, for a chosen song, the songs that are like it."""

from dataclasses import replace
from typing import Any

import streamlit as st

from tonelake.shelf import word_space
from tonelake.store import InputError, TonelakeError, printable
from tonelake.ui.components import clip_list, list_actions, register
from tonelake.ui.listening.address import Asked, ask, change_songs, follow_choice, read_asked
from tonelake.ui.listening.card import show_card, songs_found
from tonelake.ui.listening.drawer import SearchChoices, choose_limit, choose_search
from tonelake.ui.listening.heard import heard_file
from tonelake.ui.listening.hits import Found, find_hits
from tonelake.ui.listening.shelf_view import default_space, show_named, show_shelf, show_songs, trigger
from tonelake.ui.narrow import narrow_chips
from tonelake.ui.shared import error_box, open_map, page_lake, stop_with_hint

FINDER = register("finder", "player", "parts")
LONGEST_SHOWN = 60                       # characters of an unknown id

lake = page_lake()
st.title("Listen", anchor=False)
if not lake.clips.count():
    stop_with_hint("This lake has no music yet. Ingest a folder of audio files, then embed it.", "tonelake ingest folder PATH")

asked = read_asked()
FINDER(
    key="finder", on_choose_change=lambda: follow_choice(trigger("finder", "choose")),
    data={
        "text": asked.words, "hint": "Song, artist, album or words",
        "heard": asked.heard, "space": st.query_params.get("space", ""), "beside": st.query_params.get("mix", ""),
    },
)


def known_songs(asked: Asked) -> Asked:
    """Return what is asked for without songs that the lake does not have, and say so."""
    (_, unknown), (_, gone) = songs_found(lake, asked.songs), songs_found(lake, asked.minus)
    if not (unknown or gone):
        return asked
    names = ", ".join(printable(one[:LONGEST_SHOWN]) for one in (*unknown, *gone))
    error_box(f"song {names}: not in this lake. Type a name in the box, or choose a song below")
    songs, minus = (tuple(one for one in ids if one not in (*unknown, *gone)) for ids in (asked.songs, asked.minus))
    return replace(asked, songs=songs, minus=minus)


def show_upload(asked: Asked) -> None:
    """Show the upload that hits resemble."""
    found = heard_file(asked.heard)
    st.header("Like your file")
    st.text(found.name)
    for note in found.notes:
        st.text(note)
    if st.button("Start over"):
        ask()
        st.rerun()


def search(asked: Asked, comparison: SearchChoices, where: str | None) -> Found | None:
    """Return the hits.  On an error, explain it and return the hits before it, or those of the plain comparison."""
    kept = st.session_state.get("last hits")
    try:
        found = find_hits(lake, asked, comparison, where)
    except TonelakeError as error:
        error_box(error)
        if kept is not None and kept[0] == (lake.identity, asked):
            st.caption("The hits before this change are shown.")
            return kept[1]
        try:
            found = find_hits(lake, asked, comparison.plain(), where)
        except TonelakeError:
            return None
        st.caption("The hits without mixtures and facets are shown.")
        return found
    st.session_state["last hits"] = ((lake.identity, asked), found)
    return found


def act(result: object, comparison: SearchChoices) -> None:
    """Change what is asked for by the button pressed in the list of hits."""
    if opened := getattr(result, "open", None):
        ask(songs=[opened])
    elif more := getattr(result, "more", None):
        change_songs(more=more)
    elif less := getattr(result, "less", None):
        change_songs(less=less)
    elif shown := getattr(result, "map", None):
        open_map(shown, comparison.space, comparison.layer)
    else:
        return
    st.rerun()


def show_hits(found: Found, comparison: SearchChoices, asked: Asked, actions: Any) -> None:
    """Show the list of hits, and its buttons in the place `actions`."""
    for note in found.notes:
        st.text(note)
    if not len(found.hits):
        st.info(
            "This is the only song here, so there is none to compare it with. Ingest and embed more music."
            if lake.vectors(comparison.space).count() < 2 else
            f"No other {'song' if comparison.songs else 'clip'} matches. Remove a chip, or set “Hits must differ in” to "
            "“anything”."
        )
        return
    with actions:
        list_actions(
            lake, found.hits.drop("by_layer", strict=False), key="hits actions", name="similar", whole=comparison.songs
        )
    profiles = any("profile" in row for row in found.rows)
    can_vary = bool(asked.songs)
    act(clip_list(
        found.rows, key="hits", layer="" if comparison.mixture or asked.words else comparison.layer,
        layers=comparison.space.layers if profiles else (), usual=found.usual, bar=True,
        actions=("open", "queue", "more", "less", "map") if can_vary else ("open", "queue", "map"),
    ), comparison)


def show_shelf_or_songs() -> None:
    """Show the shelf, or the songs that chips and filter keep."""
    chips, body, foot = st.container(), st.container(), st.container()
    where = narrow_chips(lake, chips, advanced=foot)
    with body:
        if where:
            show_songs(lake, where)
        else:
            show_shelf(lake)


def show_results(asked: Asked) -> None:
    """Show the chosen song, words or upload, and the songs that are like it."""
    space = default_space(lake)
    top = st.container()
    named = show_named(lake, asked.words) if asked.words else 0
    if asked.words and word_space(lake, asked.words) is None:
        st.info(
            ("No space of this lake understands words, so only names were searched." if named else
             "No song of this lake has such a name, and no space of it understands words.")
            + " `tonelake embed --encoder clap` adds one that does."
        )
        return
    if space is None:
        if asked.songs:
            with top:
                show_card(lake, asked, songs_found(lake, asked.songs[:1])[0][0], None, None, "")
        stop_with_hint("Nothing is embedded yet, so songs cannot be compared.", "tonelake embed")
    comparison = choose_search(lake, st.sidebar)
    heading = top if asked.songs else st.container()
    kind = "songs" if comparison.songs else "clips"
    st.header(f"{kind.capitalize()} that sound like these words" if asked.words else f"Similar {kind}")
    scope = st.empty()
    where = narrow_chips(lake, st.container(), advanced=st.sidebar)
    actions, limit = st.columns([4, 1], vertical_alignment="bottom")
    comparison = choose_limit(comparison, limit)
    with st.spinner("Comparing songs …"):
        found = search(asked, comparison, where)
    with heading:
        if asked.songs:
            show_card(lake, asked, songs_found(lake, asked.songs[:1])[0][0], found, comparison.space, comparison.layer)
        elif asked.heard:
            show_upload(asked)
    if found is not None:
        scope.caption(f"{found.scope}.")
        show_hits(found, comparison, asked, actions)


if asked.songs or asked.minus:
    asked = known_songs(asked)
if asked.heard:
    try:
        heard_file(asked.heard)
    except InputError as error:
        error_box(error)
        asked = Asked()
if asked:
    show_results(asked)
else:
    show_shelf_or_songs()
