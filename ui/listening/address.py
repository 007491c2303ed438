"""The request of the Listen page, kept in the address: ?song=…&minus=…, ?q=words or ?heard=token, and the narrowing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import streamlit as st

from tonelake.ui.narrow import clear_choices, set_choice

LONGEST_WORDS = 200                      # characters


@dataclass(frozen=True, kw_only=True)
class Asked:
    """Songs, words or an upload that hits are to resemble."""

    songs: tuple[str, ...] = ()          # ids of clips
    minus: tuple[str, ...] = ()          # subtracted
    words: str = ""
    heard: str = ""                      # token of an upload

    def __bool__(self) -> bool:
        return bool(self.songs or self.words or self.heard)


def read_asked() -> Asked:
    """Return what the address asks for.  A song comes before an upload, an upload before words."""
    songs, minus = (tuple(dict.fromkeys(filter(None, st.query_params.get(name, "").split(",")))) for name in ("song", "minus"))
    words, heard = st.query_params.get("q", "").strip()[:LONGEST_WORDS], st.query_params.get("heard", "")
    if songs:
        return Asked(songs=songs, minus=tuple(one for one in minus if one not in songs))
    return Asked(heard=heard) if heard else Asked(words=words)


def ask(*, songs: Sequence[str] = (), minus: Sequence[str] = (), words: str = "", heard: str = "") -> None:
    """Put what is asked for in the address, in place of what it asked for before."""
    for name, value in (("song", ",".join(songs)), ("minus", ",".join(minus)), ("q", words), ("heard", heard)):
        if value:
            st.query_params[name] = value
        else:
            st.query_params.pop(name, None)


def follow_choice(choice: object) -> None:
    """Ask for what was chosen in the box, on the shelf or in the card: {kind, value}.  Earlier narrowing is removed."""
    if not isinstance(choice, Mapping) or not isinstance(value := choice.get("value"), str):
        return
    kind = choice.get("kind")
    if kind not in ("song", "artist", "album", "words", "heard", "nothing"):
        return
    clear_choices()
    ask(songs=[value] if kind == "song" else (), words=value if kind == "words" else "", heard=value if kind == "heard" else "")
    if kind in ("artist", "album"):
        set_choice(str(kind), [value])


def change_songs(*, more: str | None = None, less: str | None = None, without: str | None = None) -> None:
    """Add a song to those asked for, subtract one, or leave one out."""
    asked = read_asked()
    songs = [one for one in asked.songs if one not in (less, without)] + ([more] if more else [])
    minus = [one for one in asked.minus if one not in (more, without)] + ([less] if less else [])
    ask(songs=list(dict.fromkeys(songs)), minus=list(dict.fromkeys(minus)) if songs else ())
