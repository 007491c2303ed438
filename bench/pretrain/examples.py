"""Training examples; the i-th example of a seed is reproducible.

An example is 2.5 s of a piece as three signals: `sound` (samples,) float32 at 24 kHz, played by training instruments, dry;
`room`, with added reverberation and noise, the model's input; and `plain` at 12 kHz, the notes played by one soft tone, the
musical teacher's input.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy.signal import fftconvolve

from bench.pretrain.music import Piece, compose
from bench.pretrain.timbres import LEARNED, Tone, drum, plain

RATE, PLAIN_RATE = 24_000, 12_000
SECONDS = 2.5
CORPUS_SHARE = 0.5                       # share of examples from the corpus; the others are generated


class Example(NamedTuple):
    sound: np.ndarray
    room: np.ndarray
    plain: np.ndarray


def make_example(corpus: Sequence[Piece], seed: int, number: int) -> Example:
    """Return the example with this number."""
    rng = np.random.default_rng((seed, number))
    if corpus and rng.random() < CORPUS_SHARE:
        piece = corpus[int(rng.integers(len(corpus)))]
        quarter_s = piece.quarter_s * np.exp(rng.uniform(-0.35, 0.35))
        drums = rng.random() < 0.05
    else:
        piece = compose(rng)
        quarter_s, drums = piece.quarter_s, rng.random() < 0.3
    start = rng.uniform(0, max(piece.end - SECONDS / quarter_s, 0))
    shift = rng.integers(-6, 7) + rng.uniform(-0.5, 0.5) * (rng.random() < 0.5)          # transposition and tuning
    families = list(LEARNED.values())
    tones = [families[int(rng.integers(len(families)))](rng) for _ in range(1 if rng.random() < 0.4 else piece.parts)]
    loudness = np.exp(rng.uniform(-1, 0.3, piece.parts))
    notes = cut(piece.notes, start, SECONDS / quarter_s, quarter_s)
    notes[:, 2] += shift
    notes[:, 2] = np.clip(notes[:, 2], 24, 108)
    sound = play(notes, tones, loudness, SECONDS, RATE)
    if drums:
        add_drums(sound, piece, start, quarter_s, rng)
    sound /= max(float(np.abs(sound).max()), 1e-3)
    return Example(sound, in_a_room(sound, rng), play(notes, [plain], np.ones_like(loudness), SECONDS, PLAIN_RATE))


def cut(notes: np.ndarray, start: float, length: float, quarter_s: float) -> np.ndarray:
    """Return the notes of a span of quarter notes, in seconds from its start: (note, 4)."""
    begin = np.maximum(notes[:, 0], start)
    end = np.minimum(notes[:, 0] + notes[:, 1], start + length)
    inside = end - begin > 1e-3
    return np.column_stack([(begin - start) * quarter_s, (end - begin) * quarter_s, notes[:, 2:]])[inside]


def play(notes: np.ndarray, tones: Sequence[Tone], loudness: np.ndarray, seconds: float, rate: int) -> np.ndarray:
    """Render (note, 4) of start and length in seconds, MIDI pitch and part, with one tone a part: (samples,) float32."""
    out = np.zeros(round(seconds * rate), np.float32)
    for start_s, held_s, midi, part in notes:
        sound = tones[int(part) % len(tones)](440 * 2 ** ((midi - 69) / 12), held_s, rate)
        first = int(start_s * rate)
        sound = sound[: len(out) - first]
        out[first : first + len(sound)] += sound * np.float32(loudness[int(part) % len(loudness)])
    return out


def add_drums(sound: np.ndarray, piece: Piece, start: float, quarter_s: float, rng: np.random.Generator) -> None:
    """Render a pattern that repeats every bar: a kick at its start, snares on some beats, hats on all."""
    level = rng.uniform(0.1, 0.6) * float(np.abs(sound).max() or 1.0)
    onsets = np.cumsum((0.0, *piece.beats[:-1]))
    snares = rng.random(len(onsets)) < 0.5
    strokes = {kind: drum(kind, rng, RATE) * np.float32(level) for kind in ("kick", "snare", "hat")}
    for number in range(int(start // piece.bar), int((start + SECONDS / quarter_s) // piece.bar) + 1):
        for place, onset in enumerate(onsets):
            first = round((number * piece.bar + onset - start) * quarter_s * RATE)
            kinds = ["hat", "kick" if place == 0 else "snare" if snares[place] else "hat"]
            for kind in kinds:
                stroke = strokes[kind]
                if 0 <= first < len(sound):
                    sound[first : first + len(stroke)] += stroke[: len(sound) - first]


def in_a_room(sound: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Add reverberation and noise, each with probability one half."""
    heard = sound
    if rng.random() < 0.5:
        decay_s = np.exp(rng.uniform(np.log(0.1), np.log(1.5)))
        time = np.arange(int(decay_s * RATE), dtype=np.float32) / np.float32(RATE)
        tail = rng.standard_normal(len(time)).astype(np.float32) * np.exp(np.float32(-6.9 / decay_s) * time)
        wet = fftconvolve(sound, tail)[: len(sound)].astype(np.float32)
        heard = heard + np.float32(rng.uniform(0.05, 0.6)) * wet / max(float(np.abs(wet).max()), 1e-6)
    if rng.random() < 0.5:
        noise = rng.standard_normal(len(sound)).astype(np.float32)
        if rng.random() < 0.5:                               # brown rather than white: like the noise of rooms and tape
            noise = np.cumsum(noise - noise.mean(), dtype=np.float32)
            noise /= max(float(noise.std()), 1e-6)
        power = float(np.sqrt(np.mean(sound**2)))
        heard = heard + noise * np.float32(power * 10 ** (-rng.uniform(10, 40) / 20))
    return heard.astype(np.float32)
