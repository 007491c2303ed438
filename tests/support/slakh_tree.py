"""A folder like Slakh2100: songs of four stems, each rendered from its MIDI file, and the mix.  The same each time."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
from sounds import write

RATE = 24_000
TICKS_PER_SECOND = 960                   # 480 a beat, at 120 beats a minute


class Stem(NamedTuple):
    """How one instrument plays and sounds."""

    instrument: str
    program: int
    pitches: tuple[int, ...]
    partials: tuple[float, ...]          # amplitude of each harmonic
    decay_s: float
    step_s: float                        # time from one note to the next


STEMS = (
    Stem("Bass", 33, (36, 40, 43, 48), (1.0, 0.5, 0.25), 0.5, 0.5),
    Stem("Drums", 128, (36, 38), (), 0.08, 0.25),
    Stem("Guitar", 25, (52, 55, 59, 64), (1.0, 0.7, 0.5, 0.3, 0.2), 0.35, 0.4),
    Stem("Piano", 0, (60, 64, 67, 72), (1.0, 0.3, 0.1), 0.6, 0.45),
)
Note = tuple[float, float, int, int]     # start and end in seconds, pitch, velocity


SIDES = {"train": 0.6, "validation": 0.2, "test": 0.2}           # folders of Slakh2100-redux, and shares of the songs


def make_slakh_tree(folder: Path, songs: int, seconds: float) -> Path:
    """Write songs `train/Track00001`, … with metadata.yaml, mix.wav, MIDI/S00.mid and stems/S00.wav."""
    sides = [side for side, share in SIDES.items() for _ in range(round(share * songs))]
    for song, side in enumerate(sides, start=1):
        home = folder / side / f"Track{song:05d}"
        total = np.zeros(round(seconds * RATE), np.float32)
        lines = ["UUID: 1", "stems:"]
        for number, stem in enumerate(STEMS):
            notes = notes_of(song, number, seconds)
            sound = render(stem, notes, seconds, np.random.default_rng((song, number, 1)))
            total += sound
            write(home / "stems" / f"S{number:02d}.wav", sound[:, None], rate=RATE)
            write_midi(home / "MIDI" / f"S{number:02d}.mid", stem, notes)
            drums = "true" if stem.program == 128 else "false"
            lines.append(
                f"  S{number:02d}: {{audio_rendered: true, inst_class: {stem.instrument}, is_drum: {drums}, "
                f"program_num: {stem.program}}}"
            )
        write(home / "mix.wav", total[:, None], rate=RATE)
        (home / "metadata.yaml").write_text("\n".join(lines) + "\n")
    return folder


def notes_of(song: int, stem: int, seconds: float) -> list[Note]:
    """Return the notes that one stem of a song plays: random pitches at a steady pace, with rests."""
    return play(STEMS[stem], seconds, np.random.default_rng((song, stem)))


def play(stem: Stem, seconds: float, rng: np.random.Generator) -> list[Note]:
    starts = np.arange(rng.uniform(0.1, 0.3), seconds - stem.step_s, stem.step_s)
    return [
        (float(start), float(start + 0.8 * stem.step_s), int(rng.choice(stem.pitches)), int(rng.integers(70, 120)))
        for start in starts if rng.random() < 0.85
    ]


def render(stem: Stem, notes: list[Note], seconds: float, rng: np.random.Generator) -> np.ndarray:
    """Return (samples,) float32 of a stem: decaying harmonics, or noise for drums."""
    sound = np.zeros(round(seconds * RATE) + RATE, np.float32)
    for start, end, pitch, velocity in notes:
        time_s = np.arange(round((end - start + 0.02) * RATE)) / RATE
        release = np.clip((end - start + 0.02 - time_s) / 0.02, 0, 1)
        shape = np.minimum(time_s / 0.003, 1) * np.exp(-time_s / stem.decay_s) * release
        if stem.partials:
            frequency = 440 * 2 ** ((pitch - 69) / 12)
            tone = sum(
                amplitude * np.sin(2 * np.pi * frequency * (number + 1) * time_s)
                for number, amplitude in enumerate(stem.partials)
            )
        else:
            tone = rng.standard_normal(len(time_s))
        first = round(start * RATE)
        sound[first : first + len(time_s)] += (0.12 * velocity / 127 * shape * tone).astype(np.float32)
    return sound[: round(seconds * RATE)]


def write_midi(path: Path, stem: Stem, notes: list[Note]) -> None:
    """Write the notes of a stem as a MIDI file of one track."""
    import mido

    channel = 9 if stem.program == 128 else 0
    messages = [mido.MetaMessage("set_tempo", tempo=500_000, time=0)]
    if channel == 0:
        messages.append(mido.Message("program_change", channel=channel, program=stem.program, time=0))
    timed = [(start, "note_on", pitch, velocity) for start, _, pitch, velocity in notes]
    timed += [(end, "note_off", pitch, 0) for _, end, pitch, _ in notes]
    now = 0
    for moment, kind, pitch, velocity in sorted(timed):
        tick = round(moment * TICKS_PER_SECOND)
        messages.append(mido.Message(kind, channel=channel, note=pitch, velocity=velocity, time=tick - now))
        now = tick
    file = mido.MidiFile(type=0, ticks_per_beat=TICKS_PER_SECOND // 2)
    file.tracks.append(mido.MidiTrack(messages))
    path.parent.mkdir(parents=True, exist_ok=True)
    file.save(path)
