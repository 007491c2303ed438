"""Events of one clip as a page draws them: labels beside what a run on frames finds, with scores, and as files.

Times are seconds from the clip's start.  A prediction is named by its run: its stored events are taken if there are any
(`tonelake predict RUN --save`), else those of the run's test clips, else the run reads the stored frames of the clip.
"""

from __future__ import annotations

import math
import tempfile
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import polars as pl

from tonelake import Lake, probes
from tonelake.evaluate import score_events
from tonelake.store import EVENT_KINDS, PREDICTED, InputError, TonelakeError, in_list

MOST_DRAWN = 4_000                       # notes of one side, and as many other events
FEW_RECORDINGS = 1_000                   # looked up by a filter; for more, reading all clips is faster
EVERY_SOURCE = "all label files"
SPANS = ("section", "key", "chord")      # drawn as labels above the notes, in this order
SCORED_KINDS = {"notes": "note", "onsets": "onset", "beats": "beat", "chords": "chord", "key": "key"}
SCORES = {                               # those that are shown, with their names in words
    "notes": {
        "onset_f1": "Note F1", "onset_precision": "Note precision", "onset_recall": "Note recall",
        "onset_offset_f1": "F1 with offsets", "frame_f1": "Frame F1",
    },
    "onsets": {"f1": "Onset F1"}, "beats": {"f1": "Beat F1", "downbeat_f1": "Downbeat F1"},
    "chords": {"majmin": "Major or minor chords", "root": "Chord roots"}, "key": {"key_score": "Key score"},
}
CLIP_COLUMNS = ("clip_id", "recording", "start_s", "duration_s", "track", "title", "artist", "source")
EVENT_TYPES: dict[str, Any] = {
    "kind": pl.String, "start_s": pl.Float64, "end_s": pl.Float64, "value": pl.String, "pitch": pl.Float32,
    "velocity": pl.Int32, "begins": pl.Boolean, "ends": pl.Boolean,
}


# -- what there is to choose from


def event_groups(lake: Lake) -> pl.DataFrame:
    """Return recording, kind, source and number of events; read again only after the table has changed."""
    return _event_groups(lake, lake.events.table.version)


@lru_cache(maxsize=2)
def _event_groups(lake: Lake, version: int) -> pl.DataFrame:
    return lake.events.groups()


def prediction_names(lake: Lake) -> list[str]:
    """Return names of predictions, the newest run first: runs on frames, then others whose events are stored."""
    runs = [run.name for run in reversed(probes.FrameRun.all(lake))]
    stored = event_groups(lake)["source"].unique().sort()
    others = [source.removeprefix(PREDICTED) for source in stored if source.startswith(PREDICTED)]
    return list(dict.fromkeys([*runs, *others]))


def clips_with_events(lake: Lake, prediction: str | None = None) -> pl.DataFrame:
    """Return the clips whose recordings have events, or whose frames a run can read, by artist, title and start."""
    run = probes.FrameRun.find(lake, prediction) if prediction else None
    frames = lake.frames(lake.spaces.get(run.config.space)).table.version if run else 0
    versions = (lake.events.table.version, lake.clips.table.version, frames)
    return _clips_with_events(lake, prediction if run else None, versions)


@lru_cache(maxsize=4)
def _clips_with_events(lake: Lake, run_name: str | None, versions: tuple[int, ...]) -> pl.DataFrame:
    columns = [name for name in CLIP_COLUMNS if name in lake.clips.columns()]
    recordings = event_groups(lake)["recording"].unique().to_list()
    readable = pl.Series("clip_id", [], dtype=pl.String)
    if run_name is not None:
        run = probes.FrameRun.named(lake, run_name)
        space = lake.spaces.get(run.config.space)
        readable = lake.frames(space).complete([space.layer_index(name) for name in run.layer_names()])
    few = not len(readable) and len(recordings) <= FEW_RECORDINGS
    where = (in_list("recording", recordings) if recordings else "false") if few else None
    clips = lake.clips.read(columns, where=where)
    chosen = pl.col("recording").is_in(recordings) | pl.col("clip_id").is_in(readable.implode())
    order = [name for name in ("artist", "title", "track", "start_s") if name in columns]
    return clips.filter(chosen & pl.col("recording").is_not_null()).sort(order, nulls_last=True, maintain_order=True)


def reference_names(lake: Lake, recording: str) -> list[str]:
    """Return the sources of a recording's labels; first all of them together, unless two hold events of one kind."""
    own = event_groups(lake).filter((pl.col("recording") == recording) & ~pl.col("source").str.starts_with(PREDICTED))
    sources = own["source"].unique().sort().to_list()
    together = len(sources) > 1 and own["kind"].is_unique().all()
    return [EVERY_SOURCE, *sources] if together else sources


# -- events of a clip


@dataclass(frozen=True, kw_only=True)
class ClipEvents:
    """A clip with its labels and a prediction."""

    clip: dict[str, Any]                 # CLIP_COLUMNS
    reference: pl.DataFrame              # EVENT_TYPES
    estimate: pl.DataFrame               # EVENT_TYPES
    reference_name: str = ""             # a source; "" without labels
    prediction_name: str = ""            # a run; "" without a prediction
    predicted_kinds: tuple[str, ...] = ()            # kinds that the run finds, whether it found any in this clip or not
    side: str = ""                       # the set of the run that the clip is in: train, valid or test
    problem: str = ""                    # why the prediction is missing
    scores: dict[str, float] = field(default_factory=dict)       # by name in words; only those that are defined

    def drawing(self) -> dict[str, Any]:
        """Return both sides as columns of numbers and text, and the range of pitches to show."""
        pitches = pl.concat([self.reference["pitch"], self.estimate["pitch"]]).drop_nulls()
        low, high = pitch_range(pitches)
        return {
            "low": low, "high": high, "duration": self.clip["duration_s"],
            "sides": [
                {"name": name, "label": label, **columns_to_draw(events)}
                for name, label, events in (
                    ("reference", self.reference_name, self.reference), ("predicted", self.prediction_name, self.estimate),
                ) if label
            ],
        }


def clip_events(lake: Lake, clip_id: str, *, reference: str | None = None, prediction: str | None = None) -> ClipEvents:
    """Return the events of a clip.

    `reference`: one of `reference_names`, by default the first; `prediction`: one of `prediction_names`, or None.
    Raises ClipNotFound.  A prediction that cannot be made is explained in `problem`.
    """
    found = lake.clips.find(clip_id)
    clip: dict[str, Any] = {name: found.get(name) for name in CLIP_COLUMNS}
    names = reference_names(lake, clip["recording"])
    chosen = reference if reference in names else (names[0] if names else "")
    row = pl.DataFrame([clip]).select("clip_id", "recording", "start_s", "duration_s")
    labels = no_events()
    if chosen:
        source = None if chosen == EVERY_SOURCE else chosen
        labels = as_events(lake.events.of_clips(row, EVENT_KINDS, source=source))
    made = Prediction(no_events(), (), "")
    if prediction:
        made = read_prediction(lake, row, prediction)
    return ClipEvents(
        clip=clip, reference=labels, estimate=made.events, reference_name=chosen, prediction_name=prediction or "",
        predicted_kinds=made.kinds, side=made.side, problem=made.problem,
        scores=scores_in_words(labels, made.events, made.kinds, clip["duration_s"]),
    )


@dataclass(frozen=True)
class Prediction:
    """Events that a run finds in a clip."""

    events: pl.DataFrame
    kinds: tuple[str, ...]
    side: str
    problem: str = ""


def read_prediction(lake: Lake, row: pl.DataFrame, name: str) -> Prediction:
    """Return the prediction of a run for one clip, a frame of one row."""
    recording, clip_id, start_s = row["recording"][0], row["clip_id"][0], row["start_s"][0]
    run = probes.FrameRun.find(lake, name)
    kinds: tuple[str, ...] = ()
    side = ""
    if run is not None:
        kinds = ("onset",) if run.config.task == "onsets" else run.task.event_kinds
        sides = run.table("split").filter(pl.col("clip_id") == clip_id)["side"]
        side = sides[0] if len(sides) else ""
    source = f"{PREDICTED}{name}"
    stored = event_groups(lake).filter((pl.col("recording") == recording) & (pl.col("source") == source))
    if len(stored):
        kinds = tuple(dict.fromkeys([*kinds, *stored["kind"]]))
        return Prediction(as_events(lake.events.of_clips(row, EVENT_KINDS, source=source)), kinds, side)
    if run is None:
        return Prediction(no_events(), (), side, f"{name} has no events in this recording.")
    judged = run.table("predictions").filter(pl.col("clip_id") == clip_id)
    if side == "test":
        return Prediction(as_events(judged), kinds, side)
    try:
        found = probes.predict_events(lake, run, where=in_list("clip_id", [clip_id])).events
    except TonelakeError as error:
        return Prediction(no_events(), (), side, str(error))
    return Prediction(as_events(found.with_columns(pl.col("start_s", "end_s") - start_s)), kinds, side)


def no_events() -> pl.DataFrame:
    return pl.DataFrame(schema=EVENT_TYPES)


def as_events(rows: pl.DataFrame) -> pl.DataFrame:
    """Return rows with the columns EVENT_TYPES, by time; events without `begins` or `ends` do both in the clip."""
    missing = {"value": None, "pitch": None, "velocity": None, "begins": True, "ends": True}
    filled = rows.with_columns(pl.lit(value).alias(name) for name, value in missing.items() if name not in rows.columns)
    return filled.select(pl.col(name).cast(kind) for name, kind in EVENT_TYPES.items()).sort(
        "start_s", "pitch", maintain_order=True
    )


def scores_in_words(
    reference: pl.DataFrame, estimate: pl.DataFrame, kinds: tuple[str, ...], duration_s: float
) -> dict[str, float]:
    """Return the scores of the kinds that are labelled and predicted, by name in words, as far as they are defined."""
    labelled = set(reference["kind"])
    shown: dict[str, float] = {}
    for task, kind in SCORED_KINDS.items():
        if kind in kinds and (kind in labelled or (task == "onsets" and "note" in labelled)):
            scores = score_events(task, reference, estimate, duration_s)
            if task == "notes":          # a predicted note that is held over from before counts in frames alone
                frame_f1 = scores["frame_f1"]
                scores = score_events(task, reference, estimate.filter("begins"), duration_s) | {"frame_f1": frame_f1}
            if "downbeat" not in kinds:
                scores.pop("downbeat_f1", None)
            shown |= {words: scores[name] for name, words in SCORES[task].items() if not math.isnan(scores.get(name, math.nan))}
    return shown


# -- as drawn, and as files


def pitch_range(pitches: pl.Series) -> tuple[int, int]:
    """Return the lowest and highest MIDI number to show: all notes with a margin, at least two octaves.

    >>> pitch_range(pl.Series([60.0, 64.0])), pitch_range(pl.Series([], dtype=pl.Float32))
    ((50, 74), (36, 96))
    """
    if not len(pitches):
        return 36, 96
    values = pitches.to_numpy()
    low, high = math.floor(values.min()) - 3, math.ceil(values.max()) + 3
    lacking = max(0, 24 - (high - low))
    return low - (lacking + 1) // 2, high + lacking // 2


def columns_to_draw(events: pl.DataFrame) -> dict[str, Any]:
    """Return notes, onsets, beats and labels as columns; of more than MOST_DRAWN, the first."""
    notes = events.filter(pl.col("kind") == "note")
    beats = events.filter(pl.col("kind").is_in(["beat", "downbeat"])).with_columns(pl.col("start_s").round(4))
    downbeats = beats.filter(pl.col("kind") == "downbeat")["start_s"]
    beat_times = beats["start_s"].unique().sort()
    onsets = events.filter(pl.col("kind") == "onset")["start_s"]
    spans = events.filter(pl.col("kind").is_in(SPANS))
    drawn = notes.head(MOST_DRAWN)
    return {
        "notes": {
            "start": rounded(drawn["start_s"]), "end": rounded(drawn["end_s"]), "pitch": rounded(drawn["pitch"]),
            "words": drawn["value"].fill_null("").to_list(),
        },
        "beats": {
            "time": rounded(beat_times.head(MOST_DRAWN)),
            "down": beat_times.head(MOST_DRAWN).is_in(downbeats.to_list()).to_list(),
        },
        "onsets": rounded(onsets.head(MOST_DRAWN)),
        "spans": [
            {
                "kind": kind, "start": rounded(own["start_s"]), "end": rounded(own["end_s"]),
                "words": own["value"].fill_null("").to_list(),
            }
            for kind in SPANS if len(own := spans.filter(pl.col("kind") == kind).head(MOST_DRAWN))
        ],
        "count": len(notes),
    }


def rounded(values: pl.Series) -> list[float]:
    """Return numbers to a tenth of a millisecond or of a thousandth of a semitone."""
    return values.cast(pl.Float64).round(4).to_list()


WRITERS: dict[str, tuple[str, str]] = {
    "MIDI": (".mid", "audio/midi"), "JAMS": (".jams", "application/json"), "CSV": (".csv", "text/csv"),
}


def file_name(shown: ClipEvents, form: str, *, predicted: bool) -> str:
    """Return a safe name for a file with the events of one side.  `form`: one of WRITERS."""
    source = shown.prediction_name if predicted else shown.reference_name
    return probes.event_file_name(title_of(shown), f"{shown.clip['clip_id']} {source}", WRITERS[form][0])


def event_file(shown: ClipEvents, form: str, *, predicted: bool) -> bytes:
    """Return the content of a file with the events of one side, times from the clip's start.

    `form`: one of WRITERS.  Raises InputError for MIDI without notes.
    """
    events = shown.estimate if predicted else shown.reference
    if form == "MIDI" and not (events["kind"] == "note").any():
        raise InputError(f"clip {shown.clip['clip_id']}: has no notes, which MIDI needs. Choose JAMS or CSV")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"events{WRITERS[form][0]}"
        if form == "MIDI":
            probes.write_midi(events, path)
        elif form == "JAMS":
            probes.write_jams(
                events, path, duration_s=shown.clip["duration_s"], title=title_of(shown),
                artist=str(shown.clip.get("artist") or ""),
                annotator=shown.prediction_name if predicted else shown.reference_name,
            )
        else:
            probes.write_event_csv(events, path)
        return path.read_bytes()


def title_of(shown: ClipEvents) -> str:
    return str(shown.clip.get("title") or shown.clip.get("track") or "clip")
