"""Music for training: pieces of music21's corpus, and pieces made by a seeded generator.

A piece has notes (note, 4) float64: start and length in quarter notes, MIDI pitch, part.  The corpus is stored only in the
working folder of a training.  A third of the chorales' tunes is held out for evaluation, by a hash of the tune.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tonelake.ingest.chorale_scores import Score, chorale_names, load_score, part_notes
from tonelake.ingest.datasets.chorales import CLEAN_SUFFIXES

HELD_OUT_SHARE = 0.35                    # share of the tunes
OTHERS = (
    "monteverdi", "palestrina", "mozart", "haydn", "beethoven", "corelli", "schumann_robert", "handel", "josquin", "joplin",
)
MOST_FILES = 30                          # pieces of each other composer, and the largest file:
MOST_BYTES = 120_000

SCALES = {                               # semitones, and their probabilities
    "major": ((0, 2, 4, 5, 7, 9, 11), 0.45), "minor": ((0, 2, 3, 5, 7, 8, 10), 0.3),
    "harmonic": ((0, 2, 3, 5, 7, 8, 11), 0.15), "dorian": ((0, 2, 3, 5, 7, 9, 10), 0.1),
}
FOLLOWERS = {                            # probabilities of the next degree of the scale
    0: (3, 4, 5, 1, 3, 4), 1: (4, 4, 6), 2: (5, 3), 3: (4, 0, 1, 4), 4: (0, 0, 0, 5), 5: (3, 1, 4), 6: (0, 0),
}
METERS = (                               # beats of a bar in quarter notes, and their probabilities
    ((1.0, 1.0), 0.15), ((1.0, 1.0, 1.0), 0.25), ((1.0, 1.0, 1.0, 1.0), 0.3), ((1.5, 1.5), 0.15), ((1.0, 1.5), 0.05),
    ((1.0, 1.0, 1.5), 0.05), ((3.0, 2.0), 0.05),
)
STEPS = {-3: 0.05, -2: 0.1, -1: 0.3, 0: 0.1, 1: 0.3, 2: 0.1, 3: 0.05}        # steps of a melody within the scale


@dataclass(frozen=True)
class Piece:
    """A piece of music."""

    notes: np.ndarray                    # (note, 4): start, length, MIDI pitch, part
    quarter_s: float                     # as written or generated; performances vary it
    bar: float = 4.0                     # quarter notes a bar, for drums
    beats: tuple[float, ...] = (1.0, 1.0, 1.0, 1.0)

    @property
    def end(self) -> float:
        """Quarter notes."""
        return float((self.notes[:, 0] + self.notes[:, 1]).max())

    @property
    def parts(self) -> int:
        return int(self.notes[:, 3].max()) + 1


def is_held_out(tune: str) -> bool:
    """Whether a tune is held out for evaluation."""
    return int.from_bytes(hashlib.blake2b(tune.encode(), digest_size=4).digest(), "big") / 2**32 < HELD_OUT_SHARE


def learned_chorales(progress: Callable[[Iterable], Iterable] = iter) -> list[Score]:
    """Return the chorales whose tunes are used in training."""
    names = [name for name in chorale_names() if name.endswith(CLEAN_SUFFIXES)]
    return [score for score in read_scores(progress(names)) if not is_held_out(score.tune)]


def held_out_chorales(progress: Callable[[Iterable], Iterable] = iter) -> list[Score]:
    """Return the chorales whose tunes are held out."""
    names = [name for name in chorale_names() if name.endswith(CLEAN_SUFFIXES)]
    return [score for score in read_scores(progress(names)) if is_held_out(score.tune)]


def read_scores(names: Iterable[str]) -> list[Score]:
    """Return the chorales that this version of music21 can parse."""
    scores = []
    for name in names:
        try:
            scores.append(load_score(name))
        except Exception:                # one file of a corpus
            continue
    return scores


def read_corpus(cache: Path, progress: Callable[[Iterable], Iterable] = iter) -> list[Piece]:
    """Return the training chorales and works by other composers, parsed once and stored in the file `cache`."""
    if not cache.exists():
        notes, quarters = [], []
        for score in learned_chorales(progress):
            # Chorales come as one list of notes; separating their parts by pitch is sufficient for orchestration.
            order = np.argsort(score.notes[:, 2], kind="stable")
            part = np.empty(len(order))
            part[order] = np.arange(len(order)) * 4 // len(order)
            notes.append(np.column_stack([score.notes, part]))
            quarters.append(score.quarter_s)
        for path in progress(other_files()):
            found = parse(path)
            if found is not None:
                notes.append(found)
                quarters.append(0.5)
        beside = cache.with_suffix(".tmp.npz")
        np.savez(beside, quarters=np.array(quarters), lengths=np.array([len(n) for n in notes]), notes=np.concatenate(notes))
        beside.replace(cache)
    with np.load(cache, allow_pickle=False) as kept:
        pieces = np.split(kept["notes"], np.cumsum(kept["lengths"])[:-1])
        return [Piece(piece, float(quarter)) for piece, quarter in zip(pieces, kept["quarters"], strict=True)]


def other_files() -> list[Path]:
    """Return small files of the corpus by composers other than Bach, in a fixed order."""
    from music21 import corpus

    found = []
    for composer in OTHERS:
        paths = sorted(Path(path) for path in corpus.getComposer(composer) if Path(path).suffix in (".mxl", ".krn", ".xml"))
        found += [path for path in paths if path.stat().st_size < MOST_BYTES][:MOST_FILES]
    return found


def parse(path: Path) -> np.ndarray | None:
    """Return (note, 4) of one file; None if it cannot be parsed or has very few notes."""
    from music21 import converter, stream

    try:
        parsed = converter.parse(path, forceSource=True)
        score = parsed.scores[0] if isinstance(parsed, stream.Opus) else parsed
        rows = [(*note, number) for number, part in enumerate(score.parts) for note in part_notes(part)]
    except Exception:                    # one file of a corpus
        return None
    notes = np.array([row for row in rows if row[1] > 0], np.float64).reshape(-1, 4)
    return notes if len(notes) >= 40 else None


def compose(rng: np.random.Generator) -> Piece:
    """Generate eight bars in one key and meter: chords by a Markov chain, with some of pad, arpeggio, bass and melody."""
    scale = SCALES[str(rng.choice(list(SCALES), p=[share for _, share in SCALES.values()]))][0]
    tonic = int(rng.integers(12))
    beats = METERS[rng.choice(len(METERS), p=[share for _, share in METERS])][0]
    bar, bars, degree = sum(beats), 8, 0
    notes: list[tuple[float, float, float, float]] = []
    shares = {"pad": 0.5, "arpeggio": 0.45, "bass": 0.7, "melody": 0.8}
    layers = [name for name, share in shares.items() if rng.random() < share] or ["melody"]

    def pitch(step: int, low: int) -> float:
        """Return the pitch of a step of the scale, counted from the tonic at or above `low`."""
        octave, place = divmod(step, 7)
        return float(low + (tonic - low) % 12 + 12 * octave + scale[place])

    rhythm: list[float] = []
    for beat in beats:
        split = int(rng.choice([1, 1, 2, 2, 3 if beat == 1.5 else 4]))
        rhythm += [beat / split] * split
    pattern = rng.integers(0, 4, size=len(rhythm))
    bass_low, pad_low, top_low = int(rng.integers(33, 45)), int(rng.integers(48, 60)), int(rng.integers(58, 74))
    figure = bool(rng.random() < 0.5)                        # the bass plays every beat, or every bar
    step = int(rng.integers(0, 7))
    for number in range(bars):
        begin = number * bar
        degree = 0 if number in (0, bars - 1) else int(rng.choice(FOLLOWERS[degree]))
        chord = [degree, degree + 2, degree + 4] + ([degree + 6] if rng.random() < 0.15 else [])
        if "pad" in layers:
            part = layers.index("pad")
            notes += [(begin, bar, pitch(member, pad_low), part) for member in chord]
        if "bass" in layers:
            part, at = layers.index("bass"), begin
            for place, beat in enumerate(beats if figure else (bar,)):
                notes.append((at, beat * 0.95, pitch(degree + (4 if place % 2 else 0), bass_low), part))
                at += beat
        if "arpeggio" in layers:
            part, at = layers.index("arpeggio"), begin
            for length, member in zip(rhythm, pattern, strict=True):
                octave, which = divmod(int(member), len(chord))
                notes.append((at, length, pitch(chord[which] + 7 * octave, pad_low + 5), part))
                at += length
        if "melody" in layers:
            part, at = layers.index("melody"), begin
            lengths = rhythm if rng.random() < 0.4 else list(beats)
            for place, length in enumerate(lengths):
                step += int(rng.choice(list(STEPS), p=list(STEPS.values())))
                step = int(np.clip(step, -3, 11))
                if place == 0:                               # a note of the chord at the start of a bar
                    step = min((member + 7 * octave for member in chord for octave in (-1, 0, 1)), key=lambda s: abs(s - step))
                if rng.random() < 0.93 or place == 0:
                    notes.append((at, length * rng.choice([0.6, 1.0, 1.0]), pitch(step, top_low), part))
                at += length
    return Piece(np.array(notes, np.float64), 60 / rng.uniform(60, 150), bar, beats)
