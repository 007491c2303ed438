"""The card of the chosen song: its names and labels, its recording with the best moments, and songs asked for beside it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import polars as pl
import streamlit as st

from tonelake import Lake
from tonelake.shelf import clips_of_song, narrowing_columns
from tonelake.store import MISSING, Space, is_list, printable
from tonelake.ui.components import register
from tonelake.ui.listening.address import Asked, change_songs, follow_choice
from tonelake.ui.listening.hits import Found
from tonelake.ui.shared import open_map, song_title

SONG = register("song", "player", "parts")
SHOWN = ("clip_id", "title", "artist", "album", "track", "start_s", "duration_s", "source")
MOST_FACTS, LONGEST_FACT = 12, 80


def show_card(lake: Lake, asked: Asked, row: Mapping[str, Any], found: Found | None, space: Space | None, layer: str) -> None:
    """Show the first of the songs asked for; `found`: hits, if there are any."""
    clips, tags = clips_of_song(lake, row["clip_id"]), found.tags if found else []
    columns = [name for name in narrowing_columns(lake) if not (tags and name.startswith("tags_"))]      # one list of tags
    others = [*asked.songs[1:], *asked.minus]
    names = {one["clip_id"]: one for one in lake.clips.take(others, ["title", "artist", "source", "track"]).to_dicts()}
    missing = row.get("state") == MISSING
    result = SONG(
        key="song", on_act_change=follow_card,
        data={
            "song": {name: row.get(name) for name in SHOWN}, "ids": clips["clip_id"].to_list() or [row["clip_id"]],
            "moments": [one | {"score": round(one["score"], 4)} for one in found.moments] if found else [],
            "facts": facts_of(clips, columns), "tags": tags,
            "asked": [
                {"clip_id": one, "title": song_title(names[one]), "minus": one in asked.minus} for one in others if one in names
            ],
            "trouble": "The file of this song is missing, so it cannot be played. Put it back, or ingest its folder again."
            if missing else "",
        },
    )
    act = getattr(result, "act", None)
    if isinstance(act, Mapping) and act.get("do") == "map" and space is not None:
        open_map(str(act.get("value")), space, layer)


def follow_card() -> None:
    """Do what was chosen in the card: open an artist or album, leave out a song, or begin again."""
    act = (st.session_state.get("song") or {}).get("act")
    if not isinstance(act, Mapping):
        return
    if act.get("do") == "remove":
        change_songs(without=str(act.get("value")))
    elif act.get("do") != "map":
        follow_choice({"kind": act.get("do"), "value": act.get("value") or ""})


def facts_of(clips: pl.DataFrame, columns: Sequence[str]) -> list[list[str]]:
    """Return (label, text) of the columns by which songs differ, with every value that the clips of a song have."""
    facts: list[list[str]] = []
    for name in (name for name in columns if name in clips.columns and name not in ("artist", "album")):
        values = clips[name].drop_nulls()
        if is_list(values.dtype):
            values = values.explode().drop_nulls()
        texts = [text for value in values.unique(maintain_order=True).to_list() if (text := fact_text(value))]
        if texts:
            text = printable(", ".join(texts))
            shortened = text if len(text) <= LONGEST_FACT else f"{text[:LONGEST_FACT]} …"
            facts.append([name.replace("_", " ").capitalize(), shortened])
    return facts[:MOST_FACTS]


def fact_text(value: object) -> str:
    """Return a label's value as people write it.

    >>> fact_text(True), fact_text(0.12345), fact_text(1990)
    ('yes', '0.123', '1990')
    """
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def songs_found(lake: Lake, ids: Sequence[str]) -> tuple[list[dict[str, Any]], list[str]]:
    """Return the clips with these ids as rows, and the ids that the lake does not have."""
    known = {row["clip_id"]: row for row in lake.clips.take(list(ids)).to_dicts()}
    return [known[one] for one in ids if one in known], [one for one in ids if one not in known]
