"""Baselines without training: harmonic peaks of spectra, and guesses that do not listen."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest
from event_tables import instants, notes, spans

from tonelake import Lake
from tonelake.embed.encoders.spectral_frames.constant_q import frequencies
from tonelake.embed.encoders.spectral_frames.encoder import CqtEncoder, LogMelEncoder, VqtEncoder
from tonelake.embed.encoders.spectral_frames.mel import constants
from tonelake.embed.settings import describe_space
from tonelake.evaluate import estimate_scores, score_clips, score_events
from tonelake.probes.frames import frame_results
from tonelake.probes.frames.baselines import frame_baselines
from tonelake.probes.frames.config import FrameProbeConfig
from tonelake.probes.frames.decoding import choose_decoding, decode
from tonelake.probes.frames.experiment import make_frame_experiment
from tonelake.probes.frames.peaks_baseline import spectral_peaks, spectrum_frequencies
from tonelake.probes.frames.tasks import frame_task
from tonelake.probes.frames.trivial_baselines import fit_trivial
from tonelake.store import FrameStates, InputError

RATE = 22_050
TASK = frame_task("notes")


def melody(pitches: list[int], length_s: float = 0.5) -> tuple[np.ndarray, pl.DataFrame]:
    """Plucked notes with ten overtones, one after the other, and their events."""
    time = np.arange(round(length_s * RATE)) / RATE
    parts = []
    for pitch in pitches:
        hz = 440 * 2 ** ((pitch - 69) / 12)
        tone = sum(np.sin(2 * np.pi * hz * n * time) / n for n in range(1, 11) if hz * n < 9_000)
        parts.append(0.1 * tone * np.exp(-2 * time) * np.minimum(time / 0.003, 1))
    rows = [(i * length_s, (i + 1) * length_s, pitch) for i, pitch in enumerate(pitches)]
    return np.concatenate(parts).astype(np.float32), notes(*rows)


def test_frequencies_are_those_of_the_encoders():
    assert spectrum_frequencies("vqt") == pytest.approx(frequencies())
    assert spectrum_frequencies("cqt") == pytest.approx(frequencies())
    _, bands = constants()
    peaks = bands.argmax(axis=0) * RATE / 2048
    assert np.abs(peaks - spectrum_frequencies("logmel"))[100:].max() < RATE / 2048
    with pytest.raises(InputError, match="not a spectrum"):
        spectrum_frequencies("mert-95m")


@pytest.mark.parametrize("encoder", [VqtEncoder, CqtEncoder, LogMelEncoder])
def test_a_melody_is_transcribed_without_training(encoder):
    def clip(pitches):
        samples, events = melody(pitches)
        states = encoder.__new__(encoder).states(samples, 0).astype(np.float16)
        frame_s = (np.arange(len(states)) * 256 + 128) / RATE
        p = spectral_peaks(TASK, states, frame_s, spectrum_frequencies(encoder.name))
        assert p.dtype == np.float32 and p.min() >= 0 and p.max() <= 1
        return p, frame_s, events, len(pitches) * 0.5

    settings = choose_decoding(TASK, [clip([60, 67, 55, 72, 64, 48, 71])])
    p, frame_s, events, duration = clip([62, 50, 69, 65, 57, 74])
    assert score_events("notes", events, decode(TASK, p, frame_s, settings), duration)["onset_f1"] > 0.75


def test_silence_has_no_peaks():
    p = spectral_peaks(TASK, np.full((50, 309), -1.0, np.float16), np.arange(50) * 0.0116, spectrum_frequencies("vqt"))
    assert not p[:, TASK.groups["onset"]].any()


def test_guesses_are_what_is_usual_in_the_training_set():
    training = [
        pl.concat([instants("beat", np.arange(0, 10, 0.5)), instants("downbeat", np.arange(0, 10, 2.0))]),
        instants("beat", np.arange(0, 3, 0.6)),
    ]
    beats = fit_trivial(frame_task("beats"), training).events(2.0)
    assert beats.filter(pl.col("kind") == "beat")["start_s"].to_list() == [0.0, 0.5, 1.0, 1.5]
    assert beats.filter(pl.col("kind") == "downbeat")["start_s"].to_list() == [0.0]
    chords = fit_trivial(frame_task("chords"), [spans("chord", (0, 4, "X"), (4, 6, "G:7"), (6, 7, "C"), (7, 8.5, "C"))])
    assert chords.events(9.0).select("start_s", "end_s", "value").rows() == [(0.0, 9.0, "C:maj")]
    keys = fit_trivial(frame_task("key"), [spans("key", (0, 1, "Eb major"))])
    assert keys.events(3.0)["value"].to_list() == ["D# major"]
    assert fit_trivial(frame_task("onsets"), [instants("onset", [0, 0.25, 0.5])]).events(1.0)["kind"].to_list() == ["onset"] * 4


@pytest.mark.parametrize("name", ["notes", "onsets", "beats", "chords", "key"])
def test_without_training_events_there_is_no_guess(name):
    assert len(fit_trivial(frame_task(name), [notes()]).events(5.0)) == 0


def baselines_of(lake: Lake, task: str):
    experiment = make_frame_experiment(lake, FrameProbeConfig(task, layers=("notes",), head="linear", lowest=60, highest=65))
    tests = frame_results.TestClips(experiment)
    return frame_baselines(experiment, lambda events: estimate_scores(score_clips(task, tests.pairs(events)), tests.units))


def test_runs_are_judged_beside_guesses(noted):
    found, missing = baselines_of(noted, "beats")
    assert found.keys() == {"grid"} and not missing
    assert 0 < found["grid"]["f1"].value < 0.6               # the right tempo at a wrong phase
    found, _ = baselines_of(noted, "key")
    assert found["most frequent"]["key_score"].value == pytest.approx(0.5, abs=0.45)


def test_runs_on_notes_are_judged_beside_peaks_of_a_spectrum_with_frames(own_notes):
    found, missing = baselines_of(own_notes, "notes")
    assert not found and "--encoder vqt --frames vqt" in missing[0]
    space = own_notes.spaces.make(describe_space(VqtEncoder.__new__(VqtEncoder), "spectrum", 30.0))
    ideal = own_notes.frames(own_notes.spaces.get("notes")).each(layer=1)
    own_notes.frames(space).add([shown_as_spectrum(frames) for frames in ideal])
    found, missing = baselines_of(own_notes, "notes")
    assert found.keys() == {"peaks of spectrum"} and not missing
    assert found["peaks of spectrum"]["onset_f1"].value > 0.6


def shown_as_spectrum(frames: FrameStates) -> FrameStates:
    """The notes of a clip as pure tones in 309 bins."""
    states = np.full((len(frames.frame_s), 309), -1.0, np.float16)
    for pitch in range(6):
        states[:, 3 * (60 + pitch - 21) + 1] = np.where(frames.states[:, 6 + pitch] > 0.5, 1.0, -1.0)
    return FrameStates(frames.clip_id, 0, frames.frame_s, states)
