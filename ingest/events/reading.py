"""Read the label files of one recording: a request of JSON -> events of JSON, in a decoder process.

Label files come from everywhere, as audio does, so one that exhausts memory or time ends a process of its own.

The recording's length is that of the audio file's header, or where its clips end, if that is later.  Spans that last until the
end of the recording end there.  Events that begin more than a second later are left out, and spans are cut; if that is
most of a file, its labels belong to other audio.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

import polars as pl

from tonelake.ingest.errors import AudioError
from tonelake.ingest.events.formats import read_label_file
from tonelake.ingest.events.label_events import TO_THE_END, LabelEvents
from tonelake.ingest.events.midi import DRUMS
from tonelake.ingest.scan import promised_length
from tonelake.ingest.sources import to_path
from tonelake.store import InputError

TOLERANCE_S = 1.0                        # encoders pad, and the lengths in headers of VBR files are estimates
MOST_BEYOND = 0.5                        # share of events after the end, above which a file is refused


def answer_events(request: dict[str, Any]) -> dict[str, Any]:
    """Events of the label files `parts` (source, value, is_drums) of one recording, as `LabelEvents.to_dict`.

    Other keys: format, sustain, kinds (None: all), audio (source of the recording) and end_s (where its clips end).
    Raises InputError, naming the label file, if one cannot be read or belongs to other audio.
    """
    found = [read_part(part, request["format"], request["sustain"]) for part in request["parts"]]
    name = to_path(request["parts"][0]["source"]).name
    events = pl.concat([part.events for part in with_all_onsets(found)]).sort("start_s", "end_s", "pitch", maintain_order=True)
    repairs: Counter[str] = Counter()
    for part in found:
        repairs.update(part.repairs)
    kinds = request["kinds"]
    if kinds is not None:
        events = events.filter(pl.col("kind").is_in(kinds))
    return fitted(name, events, length_of(request), request["end_s"], repairs).to_dict()


def read_part(part: dict[str, Any], name: str, sustain: bool) -> LabelEvents:
    """Read one file; its notes get the instrument `value`, or are onsets if they are drums, where another file says so."""
    found = read_label_file(to_path(part["source"]), name, sustain=sustain)
    events = found.events
    if part["is_drums"]:
        events = events.filter((pl.col("kind") == "note") | (pl.col("value") == DRUMS)).with_columns(
            kind=pl.lit("onset"), end_s="start_s", value=pl.lit(DRUMS), pitch=pl.lit(None, pl.Float32)
        )
    elif part["value"] is not None:
        is_drum = pl.col("kind").eq("onset") & pl.col("value").eq_missing(DRUMS)
        events = events.with_columns(value=pl.when(is_drum).then("value").otherwise(pl.lit(part["value"])))
    return LabelEvents(events=events, repairs=found.repairs)


def with_all_onsets(found: list[LabelEvents]) -> list[LabelEvents]:
    """Files of one recording; if one has onsets, the notes of the others get onsets too, as in one MIDI file with drums."""
    has_onsets = [bool(part.events["kind"].eq("onset").any()) for part in found]
    if not any(has_onsets):
        return found
    completed = []
    for part, has in zip(found, has_onsets, strict=True):
        onsets = part.events.filter(kind="note").with_columns(
            kind=pl.lit("onset"), end_s="start_s", pitch=pl.lit(None, pl.Float32)
        )
        events = part.events if has else pl.concat([part.events, onsets])
        completed.append(LabelEvents(events=events, repairs=part.repairs))
    return completed


def length_of(request: dict[str, Any]) -> float | None:
    """The length of the recording in seconds; None if its header has none."""
    try:
        length_s = promised_length(to_path(request["audio"]))
    except AudioError:
        length_s = None
    return None if length_s is None else max(length_s, request["end_s"])


def fitted(
    name: str, events: pl.DataFrame, length_s: float | None, clips_end_s: float, repairs: Counter[str]
) -> LabelEvents:
    """Events of a recording of that length.  Raises InputError if most of them are after its end."""
    if length_s is None or not len(events):
        ends = pl.max_horizontal("start_s", pl.lit(clips_end_s))
        events = events.with_columns(end_s=pl.when(pl.col("end_s") == TO_THE_END).then(ends).otherwise("end_s"))
        return LabelEvents(events=events, repairs=repairs)
    limit = length_s + TOLERANCE_S
    beyond = events["start_s"] > limit
    if (late := int(beyond.sum())) > MOST_BEYOND * len(events):
        raise InputError(
            f"{name}: {late:,} of {len(events):,} events are after the recording's end ({length_s:.1f} s). "
            "Give labels of the same recording"
        )
    cut = ~beyond & (events["end_s"] > limit)
    repairs["events after the recording's end left out"] += late
    repairs["spans that last beyond the recording's end cut"] += int((cut & (events["end_s"] != TO_THE_END)).sum())
    events = events.with_columns(end_s=pl.when(cut).then(pl.max_horizontal("start_s", pl.lit(length_s))).otherwise("end_s"))
    return LabelEvents(events=events.filter(~beyond), repairs=+repairs)
