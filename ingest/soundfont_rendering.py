"""Render a score by FluidSynth and a General MIDI soundfont.  Notes, programs and a soundfont -> (samples,) float32 mono.

The program `fluidsynth` is run in a process of its own, so that a damaged soundfont cannot harm a decoder.  Every part has a
MIDI channel of its own, without the one for drums; velocity is constant, panning central, A4 440 Hz, reverberation off unless
asked for, chorus always off.  Configuration files of FluidSynth are not read.  Notes begin within 3 ms of their time, because
FluidSynth handles events every 64 samples.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np

from tonelake.ingest.chorale_sources import Rendering
from tonelake.ingest.errors import AudioError
from tonelake.ingest.soundfonts import check_presets

RATE = 44_100                            # Hz; the usual rate of soundfonts, whose samples would alias at a lower one
GAIN = 0.2                               # of FluidSynth: its default.  Samples are floats, and scaled to PEAK afterwards
PEAK = 0.5                               # of full scale: soundfonts differ in loudness by 20 dB
SILENCE = 1e-4                           # of full scale, -80 dB, before scaling
TAIL_S = 2.0                             # rendered after the last note: releases end, reverberation fades
TICKS_PER_S = 10_000                     # of the MIDI file
VELOCITY = 80
REVERB_SEND, REVERB_LEVEL = 91, 40       # MIDI controller, and its value of General MIDI 2
CHOIR = (48, 60, 72)                     # pitches in the range of a choir
DRUMS = 9                                # MIDI channel, counted from 0
CHANNELS = tuple(channel for channel in range(16) if channel != DRUMS)
TIME_LIMIT_S = 300.0
FAILURES = ("Failed to load", "Unable to load", "Parameter ")        # beginnings of messages
OPTIONS = (
    "-n", "-i", "-q",                    # no MIDI input, no shell, no greeting
    "-f", os.devnull,                    # in place of the user's configuration file
    "-C", "0", "-r", str(RATE), "-g", str(GAIN), "-T", "raw", "-O", "float", "-E", "little",
    # One core: voices are added in the same order each time.  No default: it would replace a soundfont that cannot be loaded.
    "-o", "synth.cpu-cores=1", "-o", "synth.default-soundfont=", "-o", "synth.lock-memory=0",
    "-o", "synth.dynamic-sample-loading=1",
)


def render_soundfont(notes: np.ndarray, voice: np.ndarray, rendering: Rendering) -> np.ndarray:
    """Render notes to (samples,) float32 at RATE Hz, with a peak of PEAK, from time 0 to TAIL_S after the last note.

    `notes`: (note, 3) float64 of start in seconds, length in seconds and MIDI pitch; `voice`: (note,) int, from 0.
    Raises AudioError if FluidSynth is not installed, the soundfont lacks a program, or the result is silent.
    """
    soundfont = rendering.soundfont
    assert soundfont is not None
    programs = voice_programs(rendering.programs, int(voice.max(initial=0)) + 1)
    check_presets(soundfont, rendering.programs)
    with tempfile.TemporaryDirectory(prefix="tonelake-") as folder:
        score, sound = Path(folder) / "score.mid", Path(folder) / "sound.raw"
        score.write_bytes(midi_file(notes, voice, programs, reverb=rendering.reverb))
        command = [
            fluidsynth_program(), *OPTIONS, "-R", str(int(rendering.reverb)), "-F", str(sound),
            os.path.abspath(soundfont), str(score),  # noqa: PTH100 - keeps links
        ]
        try:
            done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, timeout=TIME_LIMIT_S, check=False)
        except subprocess.TimeoutExpired as error:
            raise AudioError(
                f"{soundfont.name}: FluidSynth took longer than {TIME_LIMIT_S:.0f} s. Choose another soundfont"
            ) from error
        problem = _problem(done.stderr.decode(errors="replace"))
        if done.returncode or problem or not sound.is_file():
            reason = problem or f"exit status {done.returncode}"
            raise AudioError(f"{soundfont.name}: FluidSynth cannot play it ({reason}). Choose another soundfont")
        samples = np.fromfile(sound, "<f4")
    count = round(((notes[:, 0] + notes[:, 1]).max(initial=0.0) + TAIL_S) * RATE)        # versions render on for a while or not
    mono = samples[: min(len(samples) // 2, count) * 2].reshape(-1, 2).mean(axis=1)
    mono = np.pad(mono, (0, count - len(mono)))
    peak = float(np.abs(mono).max(initial=0.0))
    if not peak > SILENCE or not np.isfinite(peak):
        listed = ",".join(map(str, rendering.programs))
        raise AudioError(f"{soundfont.name}: program {listed} is silent in the range of the notes. Choose another --program")
    return mono * np.float32(PEAK / peak)


def check_sound(rendering: Rendering) -> None:
    """Raise AudioError unless each program of a rendering sounds in the range of a choir."""
    for program in dict.fromkeys(rendering.programs):
        chord = np.array([[0, 0.5, pitch] for pitch in CHOIR], np.float64)
        render_soundfont(chord, np.zeros(len(chord), int), replace(rendering, programs=(program,)))


def voice_programs(programs: tuple[int, ...], voices: int) -> tuple[int, ...]:
    """The program of each voice.  Raises AudioError if several programs are given, but fewer than voices."""
    if len(programs) == 1:
        return programs * voices
    if len(programs) < voices:
        raise AudioError(
            f"{voices} voices, but {len(programs)} programs are given. Give --program one for all voices, or {voices}"
        )
    return programs[:voices]


def midi_file(notes: np.ndarray, voice: np.ndarray, programs: tuple[int, ...], *, reverb: bool = False) -> bytes:
    """A Standard MIDI File of format 0, one quarter note a second, that ends TAIL_S after the last note.

    `reverb`: send every channel to the reverberation, which soundfonts need not do themselves.
    """
    from music21 import midi

    channels = [CHANNELS[number % len(CHANNELS)] for number in range(len(programs))]
    events = [(0, 0, channel, program, 0) for channel, program in zip(channels, programs, strict=True)]
    events += [(0, 1, channel, REVERB_SEND, REVERB_LEVEL) for channel in sorted(set(channels)) if reverb]
    spans = note_spans(notes, np.array(channels)[voice])
    for channel, pitch, first, last in spans:
        events += [(first, 3, channel, pitch, VELOCITY), (last, 2, channel, pitch, 0)]           # ends sort before beginnings
    end = max((last for *_, last in spans), default=0) + round(TAIL_S * TICKS_PER_S)

    track, now = midi.MidiTrack(0), 0

    def append(event: midi.MidiEvent, at: int) -> None:
        nonlocal now
        track.events += [midi.DeltaTime(track, time=at - now), event]
        now = at

    kinds = midi.ChannelVoiceMessages
    order = (kinds.PROGRAM_CHANGE, kinds.CONTROLLER_CHANGE, kinds.NOTE_OFF, kinds.NOTE_ON)
    tempo = midi.MidiEvent(track, type=midi.MetaEvents.SET_TEMPO)
    tempo.data = (1_000_000).to_bytes(3, "big")                      # microseconds in a quarter note
    append(tempo, 0)
    for at, kind, channel, value, level in sorted(events):
        event = midi.MidiEvent(track, type=order[kind], channel=channel + 1)
        if kind:
            event.parameter1, event.parameter2 = value, level
        else:
            event.data = value
        append(event, at)
    last_event = midi.MidiEvent(track, type=midi.MetaEvents.END_OF_TRACK)
    last_event.data = b""
    append(last_event, end)
    file = midi.MidiFile()
    file.format, file.ticksPerQuarterNote, file.tracks = 0, TICKS_PER_S, [track]
    return file.writestr()


def note_spans(notes: np.ndarray, channel: np.ndarray) -> list[tuple[int, int, int, int]]:
    """(channel, pitch, first tick, last tick) of the notes, where notes of one channel and pitch never overlap.

    A channel can sound a pitch once.  Notes that begin together become the longest of them; one that begins while another
    sounds ends it and lasts until the later end.  Notes shorter than a tick are left out.

    >>> note_spans(np.array([[0, 2, 60], [0, 1, 60], [1.5, 0.1, 60], [3, 0, 60]]), np.zeros(4, int))
    [(0, 60, 0, 15000), (0, 60, 15000, 20000)]
    """
    ticks = np.rint(np.stack([notes[:, 0], notes[:, 0] + notes[:, 1]], axis=1) * TICKS_PER_S).astype(int)
    rows = np.concatenate([channel[:, None], np.rint(notes[:, 2:3]).astype(int), ticks], axis=1)
    spans: list[tuple[int, int, int, int]] = []
    for at_channel, pitch, first, last in sorted(map(tuple, rows.tolist())):
        if last <= first:
            continue
        if spans and spans[-1][:2] == (at_channel, pitch) and first < spans[-1][3]:
            _, _, begun, until = spans.pop()
            if first > begun:
                spans.append((at_channel, pitch, begun, first))
            last = max(last, until)
        spans.append((at_channel, pitch, first, last))
    return spans


def fluidsynth_program() -> str:
    """The path of the program.  Raises AudioError if it is not installed."""
    found = shutil.which("fluidsynth")
    if found is None:
        raise AudioError(
            "fluidsynth: is not installed, and soundfonts are played by it. Install the package fluidsynth (Debian, Ubuntu, "
            "Fedora) or fluid-synth (Homebrew on macOS)"
        )
    return found


def fluidsynth_version() -> str:
    """The version of the installed program, such as 2.3.1.  Raises AudioError if there is none."""
    done = subprocess.run(
        [fluidsynth_program(), "--version"], stdin=subprocess.DEVNULL, capture_output=True, timeout=TIME_LIMIT_S, check=False
    )
    words = done.stdout.decode(errors="replace").split()
    return next((word for word in words if word[:1].isdigit()), "of unknown version")


def _problem(messages: str) -> str | None:
    """Why FluidSynth could not load a soundfont, from its messages: it exits with 0 nevertheless."""
    lines = [line.strip().removeprefix("fluidsynth: error: ") for line in messages.splitlines()]
    failed = [line for line in lines if line.startswith(FAILURES)]
    return failed[0] if failed else None
