"""Write short made-up pieces in four parts, as music for the demo if music21 and its chorales are not installed.

Each piece has sixteen bars in one key and meter: four phrases of four chords, one chord a bar, that end on V or I as in
functional harmony.  Keys and meters follow the number of the piece; harmony, melody and tempo follow the seed.  The same
seed gives the same samples on every machine.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np

from tonelake.ingest.organ import render

RATE = 24_000                            # Hz
DURATION_S = (21.0, 28.0)                # shortest and longest piece; the tempo follows from it
TAIL_S = 0.5                             # silence after the last chord
TONICS = {"C": 0, "D": 2, "E": 4, "F": 5, "G": 7, "A": 9}
KEYS = ("C major", "a minor", "G major", "e minor", "F major", "d minor", "D major", "g minor")      # named as the chorales'
METERS = ("4/4", "3/4")
SCALES = {"major": (0, 2, 4, 5, 7, 9, 11), "minor": (0, 2, 3, 5, 7, 8, 10)}
DEGREES = {"I": 0, "ii": 1, "IV": 3, "V": 4, "vi": 5}
CLOSED = (("I", "IV", "V", "I"), ("I", "ii", "V", "I"), ("vi", "ii", "V", "I"), ("IV", "I", "V", "I"))
OPEN = (("I", "vi", "ii", "V"), ("I", "IV", "I", "V"), ("vi", "IV", "ii", "V"))
RANGES = {"tenor": (50, 65), "alto": (57, 72), "soprano": (64, 80)}  # MIDI pitches
BASS_LOWEST = 38


def write_demo_music(folder: Path, pieces: int = 40, seed: int = 0) -> Path:
    """Write pieces of 20 to 30 s as FLAC files (16 bit, 24 kHz) to `folder`; returns the path of their labels.

    The labels are `labels.csv` in the folder, with columns path, piece, key and meter, for `ingest_folder(labels=...)`.
    Each file is written atomically; an existing one is kept.
    """
    import soundfile

    folder.mkdir(parents=True, exist_ok=True)
    lines = ["path,piece,key,meter"]
    for number in range(pieces):
        name = f"demo-{seed}-{number + 1:03d}"
        path, key, meter = folder / f"{name}.flac", *key_and_meter(number)
        if not path.exists():
            samples = render_piece(key, meter, np.random.default_rng([seed, number]))
            write_whole(path, partial(soundfile.write, data=samples, samplerate=RATE, subtype="PCM_16", format="FLAC"))
        lines.append(f"{path.name},{name},{key},{meter}")
    labels = folder / "labels.csv"
    write_whole(labels, partial(Path.write_text, data="\n".join(lines) + "\n", encoding="utf-8"))
    return labels


def key_and_meter(number: int) -> tuple[str, str]:
    """Key and meter of a piece: eight keys in turn, each in both meters.

    >>> key_and_meter(0), key_and_meter(8)
    (('C major', '4/4'), ('C major', '3/4'))
    """
    return KEYS[number % len(KEYS)], METERS[(number + number // len(KEYS)) % len(METERS)]


def render_piece(key: str, meter: str, rng: np.random.Generator) -> np.ndarray:
    """A made-up piece on the organ: (samples,) float32 at RATE."""
    notes = compose(key, meter, rng)
    quarters = float((notes[:, 0] + notes[:, 1]).max())
    quarter_s = rng.uniform(*DURATION_S) / quarters
    notes[:, :2] *= quarter_s
    return render(notes, quarters * quarter_s + TAIL_S, RATE)


def compose(key: str, meter: str, rng: np.random.Generator) -> np.ndarray:
    """Notes of a piece: (note, 3) float64 of start and length in quarter notes and MIDI pitch."""
    tonic, mode = TONICS[key[0].upper()], key.split()[1]
    beats = int(meter[0])
    phrases = [CLOSED[rng.integers(len(CLOSED))], OPEN[rng.integers(len(OPEN))]]
    phrases += [CLOSED[rng.integers(len(CLOSED))], CLOSED[rng.integers(2)]]
    chords = [chord_pitches(name, tonic, mode) for name in itertools.chain(*phrases)]
    voicings = voice(chords, rng)
    walking = bool(rng.random() < 0.5)                       # the bass plays every beat, or once a bar
    notes: list[tuple[float, float, float]] = []
    for bar, (chord, (tenor, alto, soprano)) in enumerate(zip(chords, voicings, strict=True)):
        start, last = float(bar * beats), bar == len(chords) - 1
        bass = BASS_LOWEST + (chord[0] - BASS_LOWEST) % 12
        fifth = bass + (chord[2] - chord[0]) % 12
        if walking and not last:
            notes += [(start + beat, 1.0, fifth if beat % 2 else bass) for beat in range(beats)]
        else:
            notes.append((start, float(beats), bass))
        notes.append((start, float(beats), tenor))
        if last:
            notes += [(start, float(beats), alto), (start, float(beats), soprano)]
            continue
        notes += [(start, 1.0, alto), (start + 1.0, beats - 1.0, alto)]
        # The melody leaves the chord on the last beat only, for a passing note to a soprano a third away.
        between = passing_note(soprano, voicings[bar + 1][2], tonic, mode)
        middle = float(rng.choice([soprano, nearest(chord, soprano + int(rng.integers(-5, 6)))]))
        notes.append((start, 1.0, soprano))
        notes.append((start + 1.0, beats - 2.0, middle))
        notes.append((start + beats - 1.0, 1.0, between if between is not None else soprano))
    return np.array(notes, np.float64)


def chord_pitches(name: str, tonic: int, mode: str) -> tuple[int, int, int]:
    """Pitch classes of a triad: root, third, fifth.  The seventh degree is raised in V of minor.

    >>> chord_pitches("V", 9, "minor")
    (4, 8, 11)
    """
    scale = list(SCALES[mode])
    if mode == "minor" and name == "V":
        scale[6] = 11
    root, third, fifth = ((tonic + scale[(DEGREES[name] + step) % 7]) % 12 for step in (0, 2, 4))
    return root, third, fifth


def voice(chords: list[tuple[int, int, int]], rng: np.random.Generator) -> list[tuple[int, int, int]]:
    """Tenor, alto and soprano of each chord, as complete triads with the smallest motion from one to the next."""
    previous = np.array([rng.integers(low + 4, high - 3) for low, high in RANGES.values()])
    voicings: list[tuple[int, int, int]] = []
    for chord in chords:
        tenors, altos, sopranos = ([pitch for pitch in range(*span) if pitch % 12 in chord] for span in RANGES.values())
        complete = [
            (tenor, alto, soprano) for tenor, alto, soprano in itertools.product(tenors, altos, sopranos)
            if tenor < alto < soprano and len({tenor % 12, alto % 12, soprano % 12}) == 3
        ]
        motion = np.abs(np.array(complete) - previous).sum(axis=1)
        voicings.append(complete[int(motion.argmin())])
        previous = np.array(voicings[-1])
    return voicings


def nearest(chord: tuple[int, int, int], pitch: int) -> int:
    """The pitch nearest to `pitch` that belongs to a chord.

    >>> nearest((0, 4, 7), 69)
    67
    """
    return min((p for p in range(pitch - 6, pitch + 7) if p % 12 in chord), key=lambda p: (abs(p - pitch), p))


def passing_note(pitch: int, target: int, tonic: int, mode: str) -> int | None:
    """The note of the scale between two pitches a third apart; None for other intervals."""
    if abs(pitch - target) not in (3, 4):
        return None
    low = min(pitch, target)
    return next((p for p in (low + 2, low + 1) if (p - tonic) % 12 in SCALES[mode]), None)


def write_whole(path: Path, write: Callable[[Path], object]) -> None:
    """Write a file beside `path` and rename it, so that it exists completely or not at all."""
    beside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        write(beside)
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)
