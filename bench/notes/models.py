"""The models of the report: heads on stored frames, and basic-pitch with its own decoder and with ours."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

import tonelake
from bench.notes.lake import MUSICNN_LAYERS
from tonelake.evaluate import score_clips
from tonelake.probes import choose_decoding, decode, frame_task
from tonelake.probes.frames.basic_pitch import SAMPLE_RATE, BasicPitch

LOWEST, HIGHEST = 36, 84                 # MIDI; pitches of the chorales are between them
# Without class weights: decoding finds thresholds below 0.1, and onsets stay sharp.
SETTINGS: dict[str, Any] = {"split": "column:part", "hold_out": "timbre", "class_weights": "none"}
RANGE = {"lowest": LOWEST, "highest": HIGHEST}
HARMONIC: dict[str, Any] = {"head": "harmonic", "rates": (2e-3,), "batch": 4, "epochs": 24, "patience": 6}
CONV: dict[str, Any] = {"head": "conv", "rates": (1e-3,), "epochs": 24, "patience": 5}
LINEAR: dict[str, Any] = {"head": "linear", "rates": (3e-3,), "epochs": 20, "patience": 4}
BEATS: dict[str, Any] = {"head": "conv", "context": 27, "rates": (1e-3,), "epochs": 24, "patience": 5}


@dataclass(frozen=True, kw_only=True)
class Model:
    """One row of the report."""

    space: str
    layer: str
    head: str
    settings: Mapping[str, Any] = field(default_factory=dict)        # of the probe; empty for basic-pitch

    @property
    def label(self) -> str:
        shown = self.space if self.layer == self.space or self.space == "logmel" else f"{self.space} {self.layer}"
        return f"{shown}, {self.head}"


def probe(space: str, layer: str, settings: Mapping[str, Any]) -> Model:
    return Model(space=space, layer=layer, head=settings["head"], settings=settings)


NOTES = (
    probe("vqt", "vqt", HARMONIC), probe("small", "6", CONV), probe("logmel", "mel", CONV), probe("vqt", "vqt", CONV),
    *(probe("small", str(layer), LINEAR) for layer in range(7)), probe("musicnn", MUSICNN_LAYERS[0], CONV),
    probe("cqt", "cqt", CONV), probe("logmel", "mel", LINEAR), probe("musicnn", MUSICNN_LAYERS[0], LINEAR),
)
FURTHER = (
    *(probe("small", str(layer), CONV) for layer in range(6)),
    *(probe("musicnn", layer, LINEAR) for layer in MUSICNN_LAYERS[1:]),
)
BEAT_MODELS = tuple(
    probe(space, layer, BEATS)
    for space, layer in (("vqt", "vqt"), ("logmel", "mel"), ("small", "6"), ("musicnn", MUSICNN_LAYERS[0]))
)
DEFAULTS = Model(space="basic-pitch", layer="basic-pitch", head="its defaults")
TUNED = Model(space="basic-pitch", layer="basic-pitch", head="thresholds of validation")


@dataclass(frozen=True, kw_only=True)
class Result:
    """Test clips of one model: scores (clip_id and a column a score) and found events (clip_id and events)."""

    model: Model
    scores: pl.DataFrame
    events: pl.DataFrame
    about: str                           # settings that validation chose


def run_probe(lake: tonelake.Lake, task: str, model: Model) -> Result:
    """Train a head, or read the finished run."""
    own = SETTINGS | (RANGE if task == "notes" else {}) | dict(model.settings)
    run = lake.probe_frames(task, space=model.space, layers=(model.layer,), **own)
    decoding = run.metrics["decoding"]
    best = run.table("fits").filter(pl.col("chosen"))["epoch"].max()
    thresholds = f"onset {decoding['onset_threshold']:.3f}, frame {decoding['frame_threshold']:.2f}"
    return Result(
        model=model, scores=run.table("clips"), events=run.table("predictions"),
        about=f"{run.metrics['parameters']:,} parameters; best epoch {best} of at most {run.config.epochs}; "
        + (thresholds if task == "notes" else decoding["decoder"]),
    )


class BasicPitchClips:
    """basic-pitch on the clips of a lake.  `packages`: a folder with its package and onnxruntime, else those installed."""

    def __init__(self, lake: tonelake.Lake, cache_folder: Path, packages: Path | None) -> None:
        if packages is not None and str(packages) not in sys.path:
            sys.path.append(str(packages))
        self.lake, self.folder = lake, cache_folder
        self.folder.mkdir(parents=True, exist_ok=True)
        self.clips = lake.clips.read(["clip_id", "recording", "start_s", "duration_s", "part"])
        self.model = BasicPitch()
        self.task = frame_task("notes")

    def posteriors(self, clip_id: str) -> tuple[np.ndarray, np.ndarray]:
        """Return (frame,) times and (frame, output) probabilities of a clip, kept in a file."""
        file = self.folder / f"{clip_id}.npz"
        if not file.exists():
            frame_s, probabilities = self.model.posteriors(self.lake.audio(clip_id, SAMPLE_RATE))
            np.savez(file, frame_s=frame_s, probabilities=probabilities)
        with np.load(file) as stored:
            return stored["frame_s"], stored["probabilities"]

    def results(self) -> list[Result]:
        """Return the results with basic-pitch's own decoder, and with ours and thresholds chosen on the validation clips."""
        clips = {part: self.clips.filter(pl.col("part") == part) for part in ("validation", "test")}
        events = {part: clip_events(self.lake, table) for part, table in clips.items()}
        known = []
        for row in clips["validation"].iter_rows(named=True):
            frame_s, probabilities = self.posteriors(row["clip_id"])
            known.append((probabilities, frame_s, events["validation"][row["clip_id"]], row["duration_s"]))
        settings = choose_decoding(self.task, known)

        def ours(clip_id: str) -> pl.DataFrame:
            frame_s, probabilities = self.posteriors(clip_id)
            return decode(self.task, probabilities, frame_s, settings)

        def own(clip_id: str) -> pl.DataFrame:
            return decode_by_defaults(self.task.groups, self.posteriors(clip_id)[1])

        chosen = f"onset {settings.onset_threshold:.2f}, frame {settings.frame_threshold:.2f}"
        return [
            self.result(DEFAULTS, own, clips["test"], events["test"], "onset 0.50, frame 0.30, melodia trick"),
            self.result(TUNED, ours, clips["test"], events["test"], chosen),
        ]

    def result(
        self, model: Model, decoder: Callable[[str], pl.DataFrame], clips: pl.DataFrame, events: Mapping[str, pl.DataFrame],
        about: str,
    ) -> Result:
        ids = clips["clip_id"].to_list()
        found = {clip: decoder(clip) for clip in ids}
        scores = score_clips("notes", [
            (events[clip], found[clip], seconds) for clip, seconds in zip(ids, clips["duration_s"], strict=True)
        ])
        tables = [table.select(pl.lit(clip).alias("clip_id"), pl.all()) for clip, table in found.items()]
        return Result(
            model=model, scores=pl.DataFrame({"clip_id": ids}).hstack(scores), events=pl.concat(tables), about=about,
        )


def clip_events(lake: tonelake.Lake, clips: pl.DataFrame) -> dict[str, pl.DataFrame]:
    """Return the reference notes and beats of each clip."""
    spans = clips.select("clip_id", "recording", "start_s", "duration_s")
    rows = lake.events.of_clips(spans, ("note", "beat", "downbeat"))
    return {clip: part for (clip,), part in rows.group_by("clip_id", maintain_order=True)}


def decode_by_defaults(groups: Mapping[str, slice], probabilities: np.ndarray) -> pl.DataFrame:
    """Return notes by basic-pitch's own decoder with its default settings and its own times of frames."""
    creation = note_creation()
    onsets, frames = (probabilities[:, groups[name]].copy() for name in ("onset", "frame"))
    notes = creation.output_to_notes_polyphonic(
        frames, onsets, onset_thresh=0.5, frame_thresh=0.3, min_note_len=11, infer_onsets=True, max_freq=None, min_freq=None,
        melodia_trick=True,
    )
    times = creation.model_frames_to_time(len(frames) + 1)
    rows = [("note", float(times[first]), float(times[last]), None, float(pitch), None) for first, last, pitch, _ in notes]
    types = {
        "kind": pl.String, "start_s": pl.Float64, "end_s": pl.Float64, "value": pl.String, "pitch": pl.Float32,
        "velocity": pl.Int32,
    }
    return pl.DataFrame(rows, types, orient="row")


@cache
def note_creation() -> Any:
    import logging

    logging.disable(logging.WARNING)     # it warns of every runtime that is not installed
    from basic_pitch import note_creation as found

    logging.disable(logging.NOTSET)
    return found


def run_all(lake: tonelake.Lake, task: str, models: Iterable[Model]) -> list[Result]:
    found = []
    for model in models:
        print(f"{task}: {model.label}", flush=True)
        found.append(run_probe(lake, task, model))
    return found
