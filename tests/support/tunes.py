"""Tunes of pure tones: their samples, and whether decoded audio has their length, pitch, level and position.

A tune is a sequence of notes.  The mean of its channels is always the tune itself, so the expected mono mix is known exactly
whatever the number of channels.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from scipy.fft import irfft, next_fast_len, rfft

FADE_S = 0.01                            # at both ends of a note, so that codecs do not smear its beginning
NOTE_S = 0.6
EDGE_S = 0.12                            # left out at both ends of a note when its pitch and level are measured
MAX_LAG_S = 0.25                         # of a decoded tune, searched
CHECK_RATE = 24_000                      # Hz, at which decoded audio is compared
PITCHES = (262.0, 311.0, 370.0, 440.0, 523.0, 622.0, 740.0, 880.0, 1047.0, 1245.0)
MINOR_THIRD = 3                          # notes in sequence differ by at least three places of PITCHES


@dataclass(frozen=True)
class Note:
    """One tone.  `level` is its amplitude in the mono mix, `part` the number of the joined file it belongs to."""

    start_s: float
    seconds: float
    hz: float
    level: float
    part: int = 0


@dataclass(frozen=True)
class Tune:
    """Notes in sequence."""

    notes: tuple[Note, ...]

    @property
    def seconds(self) -> float:
        return self.notes[-1].start_s + self.notes[-1].seconds

    def samples(self, rate: int) -> np.ndarray:
        """The mono mix: (samples,) float64."""
        time_s = np.arange(round(self.seconds * rate)) / rate
        sound = np.zeros(len(time_s))
        for note in self.notes:
            first, last = round(note.start_s * rate), round((note.start_s + note.seconds) * rate)
            at_s = time_s[first:last] - note.start_s
            envelope = np.clip(np.minimum(at_s, note.seconds - at_s) / FADE_S, 0, 1)
            sound[first:last] = note.level * envelope * np.sin(2 * np.pi * note.hz * at_s)
        return sound

    def then(self, other: Tune) -> Tune:
        """This tune followed by another one, as in a joined file."""
        part = self.notes[-1].part + 1
        moved = (replace(note, start_s=note.start_s + self.seconds, part=part + note.part) for note in other.notes)
        return Tune((*self.notes, *moved))

    def after(self, start_s: float) -> Tune:
        """The tune from `start_s` on, without the note that sounds there."""
        later = [note for note in self.notes if note.start_s >= start_s]
        return Tune(tuple(replace(note, start_s=note.start_s - start_s) for note in later))

    def louder(self, factor: float) -> Tune:
        return Tune(tuple(replace(note, level=note.level * factor) for note in self.notes))


def random_tune(rng: np.random.Generator, seconds: float) -> Tune:
    """A tune of `seconds` with random pitches and levels; the last note takes the rest."""
    notes, pitch = [], int(rng.integers(len(PITCHES)))
    count = max(1, int(seconds / NOTE_S))
    for number in range(count):
        pitch = (pitch + int(rng.integers(MINOR_THIRD, len(PITCHES) - MINOR_THIRD + 1))) % len(PITCHES)
        start_s = number * NOTE_S
        length_s = NOTE_S if number < count - 1 else seconds - start_s
        notes.append(Note(start_s, length_s, PITCHES[pitch], round(float(rng.uniform(0.12, 0.3)), 3)))
    return Tune(tuple(notes))


def channel_gains(channels: int) -> np.ndarray:
    """Gains of the channels, with a mean of 1.  Channels that may be the low-frequency one of a layout are silent."""
    gains = np.linspace(1.25, 0.75, channels) if channels > 1 else np.ones(1)
    if channels >= 6:
        gains[[3, channels - 1]] = 0.0   # by the order of WAVE, and by that of Vorbis
    return gains * channels / gains.sum()


def spread(tune: Tune, rate: int, channels: int) -> np.ndarray:
    """The tune on several channels of different levels: (samples, channels) float64 with the tune as their mean."""
    return tune.samples(rate)[:, None] * channel_gains(channels)


def faults(decoded: np.ndarray, tune: Tune, *, lag_s: float, level: float, purity: float) -> list[str]:
    """Differences between decoded audio at CHECK_RATE, (samples,) float32, and a tune.

    Notes beyond the end of the decoded audio are left out: its length is checked separately.  `lag_s`: largest shift in time.
    `level`: largest error of an amplitude, as a share.  `purity`: smallest share of a note's energy at its pitch.
    """
    found = []
    seconds = len(decoded) / CHECK_RATE
    heard = [note for note in tune.notes if note.start_s + note.seconds <= seconds + lag_s]
    if not heard:
        return [f"no complete note in {seconds:.2f} s"]
    lags = {part: _lag(decoded, Tune(tuple(note for note in heard if note.part == part)))
            for part in {note.part for note in heard}}
    found += [f"part {part} is {lag:+.4f} s off" for part, lag in lags.items() if abs(lag) > lag_s]
    for note in heard:
        shift = lags[note.part]
        first, last = (round((at + shift) * CHECK_RATE) for at in
                       (note.start_s + EDGE_S, note.start_s + note.seconds - EDGE_S))
        piece = decoded[max(first, 0) : max(last, 0)].astype(np.float64)
        if len(piece) < 0.05 * CHECK_RATE:
            continue
        amplitude, share = _tone(piece, note.hz)
        if share < purity:
            heard_hz = _peak_hz(piece)
            found.append(f"{heard_hz:.0f} Hz instead of {note.hz:.0f} at {note.start_s:.1f} s ({share:.0%} of the energy)")
        elif abs(amplitude / note.level - 1) > level:
            found.append(f"level {amplitude:.3f} instead of {note.level:.3f} at {note.start_s:.1f} s")
    return found


def _lag(decoded: np.ndarray, tune: Tune) -> float:
    """Shift of the decoded audio against a tune in seconds, positive if it is late."""
    expected = tune.samples(CHECK_RATE).astype(np.float32)
    size = next_fast_len(len(expected) + len(decoded), real=True)
    spectrum = rfft(expected, size).conj() * rfft(decoded.astype(np.float32, copy=False), size)
    correlation = irfft(spectrum, size)
    most = round(MAX_LAG_S * CHECK_RATE)
    return (int(np.argmax(np.concatenate([correlation[-most:], correlation[: most + 1]]))) - most) / CHECK_RATE


def _tone(piece: np.ndarray, hz: float) -> tuple[float, float]:
    """Amplitude of a tone of `hz` in a piece, and its share of the energy, by least squares."""
    angle = 2 * np.pi * hz * np.arange(len(piece)) / CHECK_RATE
    sine, cosine = np.sin(angle), np.cos(angle)
    both = float((sine * cosine).sum())                              # not 0, since a piece need not hold whole periods
    gram = np.array([[float((sine * sine).sum()), both], [both, float((cosine * cosine).sum())]])
    projected = np.array([float((sine * piece).sum()), float((cosine * piece).sum())])
    weights = np.linalg.solve(gram, projected)
    energy = float((piece * piece).sum())
    return float(np.hypot(*weights)), float(weights @ projected) / energy if energy else 0.0


def _peak_hz(piece: np.ndarray) -> float:
    spectrum = np.abs(np.fft.rfft(piece * np.hanning(len(piece)), 1 << 16))
    return float(np.argmax(spectrum)) * CHECK_RATE / (1 << 16)
