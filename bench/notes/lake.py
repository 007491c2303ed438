"""The lake of the report: renderings as clips with notes and beats, embedded with frames."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import polars as pl

import tonelake
from bench.notes.pieces import Played, labels_of
from tonelake.embed import load_encoder
from tonelake.ingest.events.chorale_events import recording_events

MUSICNN_LAYERS = ("msd.timbral", "msd.cnn1", "msd.cnn3", "mtt.cnn1")
FRAMES = {                               # encoder: layers whose frames are stored
    "vqt": ("vqt",), "logmel": ("mel",), "cqt": ("cqt",), "small": tuple(map(str, range(7))), "musicnn": MUSICNN_LAYERS,
}
TIMED_S = 60.0                           # of noise, encoded in windows of 20 s


def fill_lake(folder: Path, played: Sequence[Played], audio: Path) -> tonelake.Lake:
    """Ingest the renderings, store their events, and embed them with frames; what is there already is kept."""
    lake = tonelake.open(folder, progress=True)
    labels = folder.parent / "notes-labels.csv"
    labels_of(played).write_csv(labels)
    lake.ingest_folder(audio, seconds=None, labels=labels, track_by="piece")
    recordings = dict(lake.clips.read(["source", "recording"]).iter_rows())
    stems = {Path(source).stem: recording for source, recording in recordings.items()}
    lake.events.replace(pl.concat([recording_events(one.score, stems[one.name]) for one in played]))
    for encoder, layers in FRAMES.items():
        lake.embed(encoder, frames=layers)
    return lake


def encoding_speeds() -> dict[str, float]:
    """Return the seconds of audio that each encoder encodes in a CPU second, in float32 and with frames."""
    found = {}
    for name in FRAMES:
        encoder = load_encoder(name)
        noise = np.random.default_rng(0).standard_normal((3, round(TIMED_S / 3 * encoder.sample_rate))) * 0.1
        windows = noise.astype(np.float32)
        encoder.encode(windows[:1], frames=(0,))
        started = time.process_time()
        for window in windows:
            encoder.encode(window[None], frames=(0,))
        found[name] = TIMED_S / (time.process_time() - started)
    return found
