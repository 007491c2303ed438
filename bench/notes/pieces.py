"""120 chorales of 20 s as WAV files: chosen, distributed over timbres, and rendered.

Tunes are disjoint between training, validation and test set.  A piece of the training set is played in one of five General
MIDI timbres.  One of the validation set is played in one of these, and in one of two timbres that are in no other set, so that
settings are chosen for unheard timbres as well.  One of the test set is played in one of the five, in one of four that nothing
is trained or chosen on, and by the built-in organ, which is unheard as well.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import polars as pl
import soundfile

from tonelake.ingest.chorale_scores import Score, chorale_names, load_score
from tonelake.ingest.chorale_sources import Rendering
from tonelake.ingest.errors import AudioError
from tonelake.ingest.organ import render
from tonelake.ingest.soundfont_rendering import RATE, render_soundfont

SECONDS = 20.0
COUNTS = {"train": 60, "validation": 20, "test": 40}                 # pieces
SEEN = {"piano": 0, "church organ": 19, "strings": 48, "guitar": 24, "brass": 61}    # General MIDI programs
HELD_OUT = {"choir": 52, "harpsichord": 6, "clarinet": 71, "flute": 73}
CHOOSING = {"oboe": 68, "harp": 46}      # in the validation set alone
ORGAN = "built-in organ"
PROGRAMS = SEEN | HELD_OUT | CHOOSING
ATTACK_PITCHES, LEVEL_S = (48, 55, 60, 67, 72), 0.005
BPM = (80, 100)
SEED = 35
SOUNDFONT = Path("/usr/share/sounds/sf2/TimGM6mb.sf2")               # of the Debian package timgm6mb-soundfont


@dataclass(frozen=True, kw_only=True)
class Played:
    """One piece in one timbre."""

    score: Score                         # at the tempo at which it is played
    timbre: str
    part: str                            # train, validation or test

    @property
    def name(self) -> str:
        return f"{self.score.piece}-{self.timbre.replace(' ', '-')}"


def choose_pieces(workers: int) -> list[Played]:
    """Return the renderings of all pieces; the same ones each time."""
    names = [name for name in chorale_names() if name.endswith(".mxl")]
    with ProcessPoolExecutor(workers, get_context("spawn")) as pool:
        scores = [score for score in pool.map(read_score, names, chunksize=8) if score is not None]
    chance = random.Random(SEED)
    chance.shuffle(scores)
    played: list[Played] = []
    tunes: dict[str, str] = {}           # tune -> part
    for part, count in COUNTS.items():
        chosen: list[Score] = []
        for score in scores:
            slow = replace(score, quarter_s=60 / chance.uniform(*BPM))
            if len(chosen) < count and score.tune not in tunes and length_s(slow) >= SECONDS:
                tunes[score.tune] = part
                chosen.append(slow)
        played += [Played(score=score, timbre=timbre, part=part)
                   for number, score in enumerate(chosen) for timbre in timbres_of(part, number)]
    return played


def timbres_of(part: str, number: int) -> list[str]:
    """Return the timbres of the piece with this number in its part.

    >>> timbres_of("train", 6), timbres_of("validation", 1), timbres_of("test", 3)
    (['church organ'], ['church organ', 'harp'], ['guitar', 'flute', 'built-in organ'])
    """
    def turn(timbres: Sequence[str]) -> str:
        return timbres[number % len(timbres)]

    seen = turn(list(SEEN))
    further = {"train": [], "validation": [turn(list(CHOOSING))], "test": [turn(list(HELD_OUT)), ORGAN]}
    return [seen, *further[part]]


def read_score(name: str) -> Score | None:
    """Return a piece for four voices; None for other files and files that cannot be read."""
    try:
        score = load_score(name)
    except AudioError:
        return None
    return score if score.voices == 4 and len(score.bars) else None


def length_s(score: Score) -> float:
    return float((score.notes[:, 0] + score.notes[:, 1]).max()) * score.quarter_s


def render_pieces(played: Sequence[Played], folder: Path, soundfont: Path, workers: int) -> None:
    """Write a WAV file for each rendering that has none."""
    folder.mkdir(parents=True, exist_ok=True)
    missing = [one for one in played if not (folder / f"{one.name}.wav").exists()]
    with ProcessPoolExecutor(workers, get_context("spawn")) as pool:
        list(pool.map(partial(render_piece, folder=folder, soundfont=soundfont), missing))


def render_piece(played: Played, folder: Path, soundfont: Path) -> None:
    score = played.score
    notes = score.notes.copy()
    notes[:, :2] *= score.quarter_s
    if played.timbre == ORGAN:
        samples = render(notes, SECONDS, RATE, voices=score.voices)
    else:
        rendering = Rendering(soundfont=soundfont, programs=(PROGRAMS[played.timbre],))
        early = notes[:, 0] < SECONDS
        samples = render_soundfont(notes[early], score.voice_of_notes[early], rendering)
    wanted = round(SECONDS * RATE)
    samples = np.pad(samples[:wanted], (0, max(0, wanted - len(samples))))
    hidden = folder / f".{played.name}.wav"
    soundfile.write(hidden, samples, RATE, subtype="PCM_16")
    hidden.replace(folder / f"{played.name}.wav")


def labels_of(played: Sequence[Played]) -> pl.DataFrame:
    """Return one row a rendering: stem (of the file), piece, tune, timbre, part."""
    return pl.DataFrame({
        "stem": [one.name for one in played], "piece": [one.score.piece for one in played],
        "tune": [one.score.tune for one in played], "timbre": [one.timbre for one in played],
        "part": [one.part for one in played],
    })


def attack_ms(timbre: str, soundfont: Path) -> float:
    """Return the time from the beginning of a note until it reaches half of its full level, the mean over some pitches."""
    found = []
    for pitch in ATTACK_PITCHES:
        notes = np.array([[0.0, 1.0, pitch]])
        if timbre == ORGAN:
            samples = render(notes, 1.0, RATE)
        else:
            samples = render_soundfont(notes, np.zeros(1, int), Rendering(soundfont=soundfont, programs=(PROGRAMS[timbre],)))
        width = round(LEVEL_S * RATE)
        level = np.abs(samples[: len(samples) // width * width]).reshape(-1, width).max(axis=1)
        found.append((np.argmax(level >= level.max() / 2) + 0.5) * 1e3 * LEVEL_S)
    return float(np.mean(found))
