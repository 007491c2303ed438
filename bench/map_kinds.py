"""Kinds of vectors that maps are measured on: real music, and known structures.  All are seeded; rows have unit length.

    name: (sentence for the report, function of a number of rows -> (row, dim) float32)
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from bench.search import DIM, make_vectors
from tonelake.index.vectors import unit

LOWEST, PITCHES = 36, 49                 # MIDI: the range of the chorales' voices
EIGHTHS = 8                              # of a window
SPECTRUM = (1 + np.arange(DIM)) ** -0.6


def clusters(rows: int) -> np.ndarray:
    return unit(make_vectors(rows)[0].astype(np.float32))


def catalogue(rows: int) -> np.ndarray:
    """Clips of songs of artists of genres; how much an artist has is heavy-tailed."""
    rng = np.random.default_rng(1)
    genres = rng.standard_normal((12, DIM)) * SPECTRUM
    artists = genres[rng.integers(12, size=400)] + 0.7 * rng.standard_normal((400, DIM)) * SPECTRUM
    share = (1 + np.arange(400.0)) ** -1.1
    songs = artists[rng.choice(400, rows // 8, p=share / share.sum())]
    songs = songs + 0.5 * rng.standard_normal(songs.shape) * SPECTRUM
    clips = songs[rng.integers(len(songs), size=rows)]
    return unit(clips + 0.3 * rng.standard_normal(clips.shape) * SPECTRUM).astype(np.float32)


def swiss_roll(rows: int) -> np.ndarray:
    """A rolled sheet in three dimensions, turned into all dimensions, with noise."""
    from sklearn.datasets import make_swiss_roll

    rng = np.random.default_rng(2)
    roll = make_swiss_roll(rows, random_state=2)[0]
    roll = (roll - roll.mean(axis=0)) / roll.std()
    turned = np.linalg.qr(rng.standard_normal((DIM, 4)))[0].T
    lifted = np.column_stack([roll, np.full(rows, 3.0)]) @ turned    # away from the origin: directions tell points apart
    return unit(lifted + 0.02 / DIM**0.5 * rng.standard_normal(lifted.shape)).astype(np.float32)


def sphere(rows: int) -> np.ndarray:
    return unit(np.random.default_rng(3).standard_normal((rows, DIM))).astype(np.float32)


def chorales(rows: int) -> np.ndarray:
    """Piano rolls of four quarters of Bach's chorales, one for each quarter: eighth notes by pitches, weighted by length."""
    from tonelake.ingest.chorale_scores import chorale_names, load_score

    found: list[np.ndarray] = []
    for name in chorale_names():
        if not name.endswith(".mxl"):
            continue
        notes = load_score(name).notes
        begin, pitch = notes[:, 0], np.clip(notes[:, 2].astype(int) - LOWEST, 0, PITCHES - 1)
        end = begin + notes[:, 1]
        eighths = np.zeros((int(np.ceil(end.max() * 2)), PITCHES), np.float32)
        for place in range(len(eighths)):
            sounding = np.minimum(end, (place + 1) / 2) - np.maximum(begin, place / 2)
            np.add.at(eighths[place], pitch, np.maximum(sounding, 0))
        found += [eighths[place : place + EIGHTHS].ravel() for place in range(0, len(eighths) - EIGHTHS + 1, 2)]
    rolls = np.stack(found)
    rolls = rolls[np.linalg.norm(rolls, axis=1) > 0][:rows]
    # Equal windows have no order of neighbours: a thousandth of noise gives them one.
    return unit(rolls + 1e-3 * np.random.default_rng(4).standard_normal(rolls.shape)).astype(np.float32)


KINDS: dict[str, tuple[str, Callable[[int], np.ndarray]]] = {
    "chorales": ("piano rolls of Bach's chorales (real music, 392 dimensions)", chorales),
    "catalogue": ("clips of songs of artists of genres, heavy-tailed", catalogue),
    "swiss_roll": ("a rolled sheet, without clusters", swiss_roll),
    "sphere": ("uniform on a sphere, without structure", sphere),
}
