"""Events that a frame probe finds in any clips of a lake.

Probabilities of a recording's clips are joined in order of time before they are decoded, so that a note that sounds across the
border of two clips is one note.  Where clips overlap, each counts up to the middle of the overlap; where there is a gap between
clips, decoding starts again.  Times are seconds from the recording's beginning, as in the table of events.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl

from tonelake.probes.frames.run import FrameRun, Posteriors
from tonelake.store import PREDICTED, InputError, Lake

NAMES = ("title", "artist", "track")     # clip columns that name files, the first that exists


@dataclass(frozen=True, kw_only=True)
class EventPredictions:
    """Events of recordings, found by a run."""

    run: str
    recordings: pl.DataFrame             # recording, name, start_s, duration_s: what was covered of each
    events: pl.DataFrame                 # recording, kind, start_s, end_s, value, pitch, velocity

    @property
    def source(self) -> str:
        """Source of these events in the table of events."""
        return f"{PREDICTED}{self.run}"

    def of_recordings(self) -> Iterator[tuple[dict, pl.DataFrame]]:
        """Yield each recording, a row of `recordings`, with its events."""
        by_recording = self.events.partition_by("recording", as_dict=True)
        for row in self.recordings.iter_rows(named=True):
            yield row, by_recording.get((row["recording"],), self.events.clear()).drop("recording")


def predict_events(
    lake: Lake, run: str | FrameRun, *, where: str | None = None, save: bool = False, midi: str | Path | None = None,
    jams: str | Path | None = None,
) -> EventPredictions:
    """Find the events of every clip with stored frames, or of those that match an SQL filter.

    `save`: also store them in the table of events, with source "predicted:RUN", in place of earlier ones of that run; `midi`,
    `jams`: also write a file for each recording into this folder.
    Raises InputError if the run does not exist or no clip matches, SpaceMismatch if the space now embeds in a different way.
    """
    found = run if isinstance(run, FrameRun) else FrameRun.named(lake, run)
    if midi is not None and found.config.task != "notes":
        raise InputError(f"run {found.name!r}: finds {found.config.task}, which MIDI files do not hold. Use --jams or --save")
    clips = choose_clips(lake, found, where)
    recordings = clips["recording"].unique(maintain_order=True).to_list()
    by_recording = clips.partition_by("recording", as_dict=True)
    posteriors = found.posteriors(lake, clips["clip_id"].to_list())
    tables = []
    for recording in lake.progress(recordings, len(recordings), "finding events"):
        events = events_of_recording(found, by_recording[(recording,)], posteriors)
        tables.append(events.select(pl.lit(recording).alias("recording"), pl.all()))
    predictions = EventPredictions(run=found.name, recordings=recording_rows(clips), events=pl.concat(tables))
    if save:
        save_events(lake, predictions, found)
    for folder, suffix in ((midi, ".mid"), (jams, ".jams")):
        if folder is not None:
            write_files(predictions, Path(folder).expanduser(), suffix)
    return predictions


def choose_clips(lake: Lake, run: FrameRun, where: str | None) -> pl.DataFrame:
    """Return the clips with stored frames of the run's layers, by recording and start.  Raises InputError if there are none."""
    names = [name for name in NAMES if name in lake.clips.columns()]
    clips = lake.clips.read(["clip_id", "recording", "start_s", "duration_s", *names], where=where)
    space = lake.spaces.get(run.config.space)
    layers = [space.layer_index(name) for name in run.layer_names()]
    stored = lake.frames(space).complete(layers)
    clips = clips.filter(pl.col("clip_id").is_in(stored.implode())).drop_nulls("recording")
    if not len(clips):
        filtered = f" where {where}" if where else ""
        raise InputError(
            f"no clip{filtered} has stored frames. Run `tonelake embed --space {space.name} --frames "
            f"{','.join(run.layer_names())}`"
        )
    return clips.sort("recording", "start_s", "duration_s")


def recording_rows(clips: pl.DataFrame) -> pl.DataFrame:
    """Return recording, name, start_s and duration_s of each recording: from its first clip's start to its last one's end."""
    names = [pl.col(name).cast(pl.String).drop_nulls().first() for name in NAMES if name in clips.columns]
    end = (pl.col("start_s") + pl.col("duration_s")).max()
    return clips.group_by("recording", maintain_order=True).agg(
        pl.coalesce(*names, pl.lit("recording")).alias("name"), pl.col("start_s").min().alias("first_s"), end.alias("end_s"),
    ).select("recording", "name", pl.col("first_s").alias("start_s"), (pl.col("end_s") - pl.col("first_s")).alias("duration_s"))


def events_of_recording(run: FrameRun, clips: pl.DataFrame, posteriors: Iterator[Posteriors]) -> pl.DataFrame:
    """Return the events in the clips of one recording, which are sorted by start; `posteriors` yields those of each next."""
    from tonelake.probes.frames.decoding import decode

    start, length = clips["start_s"].to_numpy(), clips["duration_s"].to_numpy()
    own = np.stack(own_parts(start, start + length), axis=1)
    tables: list[pl.DataFrame] = []
    times: list[np.ndarray] = []
    values: list[np.ndarray] = []
    reached = None

    def flush() -> None:
        if times:
            together = np.concatenate(times)
            found = decode(run.task, np.concatenate(values), together - together[0], run.decoding)
            tables.append(found.with_columns(pl.col("start_s", "end_s") + together[0]))
        times.clear()
        values.clear()

    for (first, last), begin in zip(own, start, strict=True):
        clip = next(posteriors)
        centres = clip.frame_s.astype(np.float64) + begin
        inside = (centres >= first) & (centres < last)
        inside &= centres > (times[-1][-1] if times else -np.inf)
        if reached is not None and first > reached + 1e-6:
            flush()
        reached = last
        if inside.any():
            times.append(centres[inside])
            values.append(clip.probabilities[inside])
    flush()
    if not tables:
        none = np.zeros((0, len(run.task.outputs)), np.float32)
        return decode(run.task, none, np.zeros(0), run.decoding)
    return pl.concat(tables).with_columns(pl.col("start_s").clip(lower_bound=0), pl.col("end_s").clip(lower_bound=0))


def own_parts(start_s: np.ndarray, end_s: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return where each clip's part begins and ends: overlaps of neighbours are divided in the middle.

    >>> own_parts(np.array([0.0, 5.0, 20.0]), np.array([10.0, 15.0, 30.0]))
    (array([ 0. ,  7.5, 20. ]), array([ 7.5, 15. , 30. ]))
    """
    first, last = start_s.astype(np.float64), end_s.astype(np.float64)
    for number in range(1, len(start_s)):
        if start_s[number] < last[number - 1]:
            middle = (max(start_s[number], first[number - 1]) + min(last[number - 1], end_s[number])) / 2
            last[number - 1] = first[number] = middle
    return first, last


def save_events(lake: Lake, predictions: EventPredictions, run: FrameRun) -> int:
    """Store predictions in the table of events, where they replace earlier ones of the run for these recordings."""
    rows = predictions.events.with_columns(source=pl.lit(predictions.source))
    kinds = [kind for kind in run.task.event_kinds if run.config.task != "onsets" or kind == "onset"]
    also = predictions.recordings.select("recording").join(pl.DataFrame({"kind": kinds}), how="cross").with_columns(
        source=pl.lit(predictions.source)
    )
    return lake.events.replace(rows, also=also)


def write_files(predictions: EventPredictions, folder: Path, suffix: str) -> list[Path]:
    """Write a MIDI or JAMS file for each recording.  Raises InputError if the folder cannot be written."""
    from tonelake.probes.frames.writers import event_file_name, write_jams, write_midi

    paths = []
    try:
        for row, events in predictions.of_recordings():
            path = folder / event_file_name(row["name"], row["recording"], suffix)
            if suffix == ".mid":
                write_midi(events, path)
            else:
                write_jams(
                    events, path, duration_s=row["start_s"] + row["duration_s"], title=row["name"], annotator=predictions.run
                )
            paths.append(path)
    except OSError as error:
        raise InputError(f"{folder}: cannot be written ({error.strerror or error}). Choose another folder") from error
    return paths
