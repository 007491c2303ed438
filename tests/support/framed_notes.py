"""A lake of clips with notes, beats and keys, and stored frames that show them: no audio and no encoder."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
from fakes import FakeEncoder

from tonelake.embed.settings import describe_space
from tonelake.probes.frames.tasks import KEYS
from tonelake.store import FrameStates, Lake

PITCHES = range(60, 66)
PERIOD_S, SECONDS = 0.02, 6.0
TIMBRES = ("choir", "flute", "guitar", "organ", "piano")


class NotesEncoder(FakeEncoder):
    """Describes a space of two layers: `noise` and `notes`."""

    name = revision = location = "notes"
    layers = ("noise", "notes")
    dims = (20, 20)


def random_notes(rng: np.random.Generator) -> pl.DataFrame:
    """Return notes of a few pitches, each longer than a few frames, with gaps."""
    rows = []
    for pitch in PITCHES:
        time = rng.uniform(0, 1.5)
        while time < SECONDS - 0.5:
            end = time + rng.uniform(0.2, 1.0)
            stop = min(end, SECONDS - 0.1)
            rows.append({"kind": "note", "start_s": time, "end_s": stop, "pitch": float(pitch), "value": "a"})
            time = end + rng.uniform(0.1, 2.0)
    return pl.DataFrame(rows)


def roll(notes: pl.DataFrame, frame_s: np.ndarray) -> np.ndarray:
    """Return (frame, 3 · pitch): onset, frame and offset of each pitch, as an ideal encoder would show them."""
    found = np.zeros((len(frame_s), 3, len(PITCHES)), np.float32)
    for row in notes.iter_rows(named=True):
        pitch = int(row["pitch"]) - PITCHES.start
        found[np.abs(frame_s - row["start_s"]).argmin(), 0, pitch] = 1
        found[(frame_s >= row["start_s"]) & (frame_s < row["end_s"]), 1, pitch] = 1
        found[np.abs(frame_s - row["end_s"]).argmin(), 2, pitch] = 1
    return found.reshape(len(frame_s), -1)


def fill_with_notes(folder: Path, tracks: int = 30) -> Lake:
    """Make a lake: a clip a track; each timbre has its own offset in the states, and each track a key and beats."""
    lake, rng = Lake(folder), np.random.default_rng(0)
    lake.clips.add(pl.DataFrame({
        "clip_id": [f"{i:020x}" for i in range(tracks)], "recording": [f"{i:032x}" for i in range(tracks)],
        "track": [f"track{i:02d}" for i in range(tracks)], "source": [f"made:{i}" for i in range(tracks)],
        "digest": [f"{i:032x}" for i in range(tracks)], "start_s": np.zeros(tracks), "duration_s": np.full(tracks, SECONDS),
        "cut": ["whole"] * tracks, "timbre": [TIMBRES[i % len(TIMBRES)] for i in range(tracks)],
    }))
    space = lake.spaces.make(describe_space(NotesEncoder(), "notes", 30.0))
    frame_s = (np.arange(round(SECONDS / PERIOD_S)) + 0.5).astype(np.float32) * np.float32(PERIOD_S)
    states, events = [], []
    for i in range(tracks):
        recording, notes = f"{i:032x}", random_notes(rng)
        own = np.arange(rng.uniform(0, 0.5), SECONDS, 0.5)
        beats = pl.DataFrame({"kind": "beat", "start_s": own, "end_s": own, "value": "1"})
        key = pl.DataFrame({"kind": ["key"], "start_s": [0.0], "end_s": [SECONDS], "value": [KEYS[i % 2]]})
        events += [
            part.with_columns(recording=pl.lit(recording), source=pl.lit("midi")) for part in (notes, beats, key)
        ]
        shown = np.zeros((len(frame_s), 20), np.float32)
        shown[:, :18] = roll(notes, frame_s)
        shown[np.abs(frame_s[:, None] - own).argmin(axis=0), 18] = 1
        shown[:, 19] = i % 2
        offset = 0.02 * TIMBRES.index(TIMBRES[i % len(TIMBRES)])
        noise = rng.standard_normal(shown.shape).astype(np.float32)
        for layer, values in ((0, noise), (1, shown + offset + 0.05 * noise)):
            states.append(FrameStates(f"{i:020x}", layer, frame_s, values.astype(np.float16)))
    lake.events.replace(pl.concat(events, how="diagonal"))
    lake.frames(space).add(states)
    return lake
