"""Synthetic instruments: a family and a random generator -> a function that plays one note.

A tone maps (frequency in Hz, seconds held, rate in Hz) to (samples,) float32 with a peak of about 1; it may ring after the note
is released.  `LEARNED` families are used in training, `HELD_OUT` ones only for evaluation.
Frequency modulation: Chowning 1973.  Plucked string: Karplus and Strong 1983.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from scipy.signal import butter, lfilter

from tonelake.ingest import organ

Tone = Callable[[float, float, int], np.ndarray]
TABLE = 2048                             # samples per period
MOST_PARTIALS = 40


def between(rng: np.random.Generator, low: float, high: float) -> float:
    """Draw a number uniformly on a logarithmic scale."""
    return float(np.exp(rng.uniform(np.log(low), np.log(high))))


def envelope(held: int, total: int, attack: int, release: int, decay: float = 0.0) -> np.ndarray:
    """Return (total,) float32: a raised-cosine attack, exponential decay of `decay` nepers a sample, release from `held` on."""
    shape = np.exp(-decay * np.arange(total, dtype=np.float32)) if decay else np.ones(total, np.float32)
    attack = max(1, min(attack, held // 2))
    shape[:attack] *= 0.5 - 0.5 * np.cos(np.pi * np.arange(attack, dtype=np.float32) / attack)
    tail = total - held
    if tail > 0:
        shape[held:] *= np.exp(-5 * np.arange(tail, dtype=np.float32) / max(release, 1))
    last = min(64, total)
    shape[total - last :] *= np.linspace(1, 0, last, dtype=np.float32)
    return shape


def lengths(hz: float, held_s: float, rate: int, release_s: float) -> tuple[int, int]:
    held = max(int(held_s * rate), 32)
    return held, held + int(release_s * rate)


def period(amplitudes: np.ndarray, phases: np.ndarray, hz: float, rate: int) -> np.ndarray:
    """Return one period of a sum of partials below the Nyquist frequency: (TABLE + 1,) float32 with a peak of 1."""
    count = max(1, min(len(amplitudes), int(rate / 2 / hz)))
    spectrum = np.zeros(TABLE // 2 + 1, np.complex64)
    spectrum[1 : count + 1] = amplitudes[:count] * np.exp(1j * phases[:count])
    wave = np.fft.irfft(spectrum).astype(np.float32)
    wave /= max(float(np.abs(wave).max()), 1e-9)
    return np.append(wave, wave[0])


def read(table: np.ndarray, phase: np.ndarray) -> np.ndarray:
    """Read a table at phases in periods, with linear interpolation."""
    place = (phase % 1.0) * TABLE
    index = place.astype(np.int32)
    fraction = (place - index).astype(np.float32)
    return table[index] * (1 - fraction) + table[index + 1] * fraction


def additive(rng: np.random.Generator) -> Tone:
    """Harmonic partials with a spectral tilt, a formant and a share of even ones, darkening over time; some with vibrato."""
    orders = np.arange(1, MOST_PARTIALS + 1)
    tilt, dull = rng.uniform(0.4, 2.2), rng.uniform(0.3, 1.5)
    even = rng.uniform(0.1, 1.0)
    centre, width = between(rng, 2, 16), rng.uniform(1, 5)
    amplitudes = orders**-tilt * np.where(orders % 2, 1.0, even) * (1 + 2 * np.exp(-(((orders - centre) / width) ** 2)))
    amplitudes = amplitudes * rng.uniform(0.5, 1.5, MOST_PARTIALS)
    phases = rng.uniform(0, 2 * np.pi, MOST_PARTIALS)
    attack_s, release_s = between(rng, 0.003, 0.12), between(rng, 0.02, 0.3)
    decay_s = between(rng, 0.3, 20)
    darken_s = between(rng, 0.05, 3)
    depth, speed = (rng.uniform(5, 40) / 1200, rng.uniform(4, 7)) if rng.random() < 0.35 else (0.0, 0.0)

    def tone(hz: float, held_s: float, rate: int) -> np.ndarray:
        held, total = lengths(hz, held_s, rate, release_s)
        phase = np.arange(total) * (hz / rate)
        if depth:
            phase = phase + hz * depth * np.log(2) / (2 * np.pi * speed) * np.sin(2 * np.pi * speed / rate * np.arange(total))
        bright, dark = (period(a, phases, hz, rate) for a in (amplitudes, amplitudes * orders**-dull))
        mix = np.exp(-np.arange(total, dtype=np.float32) / (darken_s * rate))
        sound = mix * read(bright, phase) + (1 - mix) * read(dark, phase)
        return sound * envelope(held, total, int(attack_s * rate), int(release_s * rate), 1 / (decay_s * rate))

    return tone


def modulated(rng: np.random.Generator) -> Tone:
    """Frequency modulation by one oscillator with decaying depth."""
    ratio = float(rng.choice([0.5, 1, 1, 2, 2, 3, 4, 5, 7, 1.414, 3.5]))
    index, floor = between(rng, 0.4, 6), rng.uniform(0, 0.5)
    index_s, decay_s = between(rng, 0.05, 2), between(rng, 0.3, 10)
    attack_s, release_s = between(rng, 0.002, 0.08), between(rng, 0.02, 0.5)

    def tone(hz: float, held_s: float, rate: int) -> np.ndarray:
        held, total = lengths(hz, held_s, rate, release_s)
        turn = 2 * np.pi * hz / rate * np.arange(total)
        safe = min(index, max(0.1, (rate / 2 / hz - 1) / ratio - 1))         # keeps the sidebands below the Nyquist frequency
        depth = safe * (floor + (1 - floor) * np.exp(-np.arange(total) / (index_s * rate)))
        sound = np.sin(turn + depth * np.sin(ratio * turn)).astype(np.float32)
        return sound * envelope(held, total, int(attack_s * rate), int(release_s * rate), 1 / (decay_s * rate))

    return tone


def struck(rng: np.random.Generator) -> Tone:
    """Partials with individual decay rates: stiff strings, bars and bells, depending on their spacing."""
    kind = rng.random()
    orders = np.arange(1, 13)
    if kind < 0.6:
        stiffness = between(rng, 1e-5, 2e-3)
        ratios = orders * np.sqrt(1 + stiffness * orders**2)
    elif kind < 0.85:
        ratios = np.array([1, 4, 10]) * rng.uniform(0.98, 1.02, 3) if rng.random() < 0.5 else np.array([1, 3.01, 6.1, 9.2])
    else:
        ratios = np.array([0.5, 1, 1.19, 1.5, 2, 2.52, 3.01, 4.1])
    amplitudes = np.arange(1, len(ratios) + 1) ** -rng.uniform(0.3, 1.8) * rng.uniform(0.4, 1.6, len(ratios))
    first_s, faster = between(rng, 0.15, 3), rng.uniform(0.1, 1.0)
    release_s = between(rng, 0.05, 0.6)
    phases = rng.uniform(0, 2 * np.pi, len(ratios))

    def tone(hz: float, held_s: float, rate: int) -> np.ndarray:
        held, total = lengths(hz, held_s, rate, release_s)
        time = np.arange(total, dtype=np.float32) / rate
        kept = ratios * hz < 0.47 * rate
        sound = np.zeros(total, np.float32)
        for number in np.flatnonzero(kept)[:10]:
            rate_of = (1 + faster * number) / first_s * (hz / 300) ** 0.3
            wave = np.sin(np.float32(2 * np.pi * hz * ratios[number]) * time + np.float32(phases[number]))
            sound += np.float32(amplitudes[number]) * wave * np.exp(np.float32(-rate_of) * time)
        sound /= amplitudes[kept].sum() or 1.0
        return sound * envelope(held, total, int(0.002 * rate), int(release_s * rate))

    return tone


def plucked(rng: np.random.Generator) -> Tone:
    """A string after Karplus and Strong: noise in a delay line that is smoothed in every period."""
    seed, loss, bright = int(rng.integers(1 << 31)), rng.uniform(0.985, 0.999), rng.uniform(0.3, 1.0)
    release_s = between(rng, 0.05, 0.3)

    def tone(hz: float, held_s: float, rate: int) -> np.ndarray:
        held, total = lengths(hz, held_s, rate, release_s)
        delay = max(2, int(rate / hz - 0.5))
        burst = lfilter([bright], [1, bright - 1], np.random.default_rng(seed).uniform(-1, 1, delay))
        feedback = np.zeros(delay + 2)
        rest = rate / hz - 0.5 - delay                       # the fractional part of the delay
        feedback[0], feedback[delay], feedback[delay + 1] = 1, -loss * (1 - min(0.5 + rest, 1)), -loss * min(0.5 + rest, 1)
        sound = lfilter([1], feedback, np.append(burst, np.zeros(max(total - delay, 0)))[:total]).astype(np.float32)
        sound /= max(float(np.abs(sound).max()), 1e-6)
        return sound * envelope(held, total, 16, int(release_s * rate))

    return tone


def filtered(rng: np.random.Generator) -> Tone:
    """A saw or pulse wave with slow attack and vibrato through a low-pass filter that follows the pitch: bowed or blown."""
    orders = np.arange(1, 65)
    duty = rng.uniform(0.15, 0.5)
    amplitudes = 1 / orders if rng.random() < 0.5 else np.abs(np.sin(np.pi * orders * duty)) / orders + 1e-4
    cut, attack_s, release_s = rng.uniform(2.5, 9), between(rng, 0.03, 0.15), between(rng, 0.05, 0.2)
    depth, speed = rng.uniform(8, 30) / 1200, rng.uniform(4.5, 6.5)

    def tone(hz: float, held_s: float, rate: int) -> np.ndarray:
        held, total = lengths(hz, held_s, rate, release_s)
        time = np.arange(total)
        phase = time * (hz / rate) + hz * depth * np.log(2) / (2 * np.pi * speed) * np.sin(2 * np.pi * speed / rate * time)
        sound = read(period(amplitudes, np.full(64, -np.pi / 2), hz, rate), phase)
        sound = lfilter(*butter(2, min(cut * hz / (rate / 2), 0.9)), sound).astype(np.float32)
        sound /= max(float(np.abs(sound).max()), 1e-6)
        return sound * envelope(held, total, int(attack_s * rate), int(release_s * rate))

    return tone


def pipes(rng: np.random.Generator) -> Tone:
    """The organ used in the demo."""
    def tone(hz: float, held_s: float, rate: int) -> np.ndarray:
        midi = 69 + 12 * np.log2(hz / organ.A4_HZ)
        return organ.tone(midi, max(int(held_s * rate), 32), rate)

    return tone


LEARNED = {"additive": additive, "modulated": modulated, "struck": struck}
HELD_OUT = {"plucked": plucked, "filtered": filtered, "pipes": pipes}


def plain(hz: float, held_s: float, rate: int) -> np.ndarray:
    """Tone of the musical teacher's input, instead of every instrument: four soft partials while the note is held."""
    held = max(int(held_s * rate), 32)
    turn = np.float32(2 * np.pi * hz / rate) * np.arange(held, dtype=np.float32)
    sound = np.sin(turn)
    for order in (2, 3, 4):
        if order * hz < 0.47 * rate:
            sound += np.sin(order * turn) / order**2
    return (sound * envelope(held, held, int(0.01 * rate), 1)).astype(np.float32)


def drum(kind: str, rng: np.random.Generator, rate: int) -> np.ndarray:
    """One stroke of a kick, a snare or a hat: (samples,) float32."""
    seconds = {"kick": 0.25, "snare": 0.18, "hat": 0.06}[kind] * rng.uniform(0.7, 1.4)
    time = np.arange(int(seconds * rate), dtype=np.float32) / rate
    fade = np.exp(-5 * time / seconds)
    if kind == "kick":
        return (np.sin(2 * np.pi * (50 * time + 8 * (1 - np.exp(-time * 30)))) * fade).astype(np.float32)
    noise = rng.standard_normal(len(time)).astype(np.float32) * fade / 2
    if kind == "snare":
        return noise + np.sin(2 * np.pi * 190 * time).astype(np.float32) * fade * 0.5
    return np.diff(noise, prepend=np.float32(0))
