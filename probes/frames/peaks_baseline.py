"""A transcription without training: peaks of harmonic salience in stored spectra.  It shows what learning adds.

Stored frames of `vqt`, `cqt` or `logmel` (log amplitudes) -> probabilities like those of a head for notes, so that `decode` and
`choose_decoding` apply: only the thresholds are chosen on validation clips.

    strength     log amplitude at a pitch, 0 at 50 dB below the clip's loudest moments, 1 there
    salience     strength, times the mean strength of its overtones 2 to 4 as far as the spectrum has them; less half of the
                 salience an octave, a twelfth and two octaves below, whose overtone it can be; local maxima over pitch
    onset        rise of the salience over ONSET_S, centred at the frame
"""

from __future__ import annotations

import numpy as np

from tonelake.probes.frames.peaks import frames_within, median_period
from tonelake.probes.frames.tasks import FrameTask
from tonelake.store import InputError

SPECTRA = ("vqt", "cqt", "logmel")       # encoders whose frames are spectra
RANGE_DB = 50.0
DB_PER_UNIT = 40.0                       # of stored spectra: log10(amplitude) / 2 + 1
LOUDEST = 0.999                          # quantile of a clip's values
OVERTONES = (2, 3, 4)
BELOW = (12, 19, 24)                     # semitones down to notes with an overtone at the pitch
ONSET_S = 0.035                          # to both sides
BESIDE = 0.3                             # factor of pitches that are not local maxima


def spectrum_frequencies(encoder: str) -> np.ndarray:
    """Return the centre frequency in Hz of each dimension of a spectral encoder.  Raises InputError for other encoders."""
    if encoder in ("vqt", "cqt"):        # 3 bins a semitone from a third below A0; the middle one has the pitch's frequency
        return 440.0 * 2.0 ** ((21 - 69 + (np.arange(309) - 1) / 3) / 12)
    if encoder == "logmel":              # 229 bands on the HTK scale, 30 Hz to 8 kHz
        low, high = (2595.0 * np.log10(1 + hz / 700.0) for hz in (30.0, 8_000.0))
        return 700.0 * (10.0 ** (np.linspace(low, high, 231)[1:-1] / 2595.0) - 1)
    raise InputError(f"encoder {encoder!r}: is not a spectrum. Use a space of vqt, cqt or logmel")


def spectral_peaks(task: FrameTask, states: np.ndarray, frame_s: np.ndarray, frequencies_hz: np.ndarray) -> np.ndarray:
    """Return (frame, output) float32 in [0, 1] for the task notes, from (frame, bin) log amplitudes.  Offsets are zero."""
    values = np.asarray(states, np.float32)
    loudest = float(np.quantile(values, LOUDEST)) if values.size else 0.0
    strength = np.clip(1 + (values - loudest) * DB_PER_UNIT / RANGE_DB, 0, 1)
    margin = max(BELOW)                  # pitches below the range, whose overtones are in it
    pitches = np.arange(task.pitches.start - margin, task.pitches.stop)
    fundamental = strength_at(strength, frequencies_hz, pitches)
    overtones = np.mean([strength_at(strength, frequencies_hz, pitches + 12 * np.log2(n)) for n in OVERTONES], axis=0)
    salience = fundamental * (0.5 + 0.5 * overtones)
    below = np.max([salience[:, margin - step:salience.shape[1] - step] for step in BELOW], axis=0)
    own = np.clip(salience[:, margin:] - 0.5 * below, 0, 1)
    neighbours = np.pad(own, ((0, 0), (1, 1)))
    peak = (own >= neighbours[:, :-2]) & (own >= neighbours[:, 2:])
    frames = np.where(peak, own, BESIDE * own)
    reach = max(frames_within(ONSET_S, median_period(frame_s)), 1)
    padded = np.pad(frames, ((reach, reach), (0, 0)), mode="edge")
    onsets = np.clip(padded[2 * reach:] - padded[:-2 * reach], 0, 1)
    found = np.zeros((len(values), len(task.outputs)), np.float32)
    found[:, task.groups["onset"]], found[:, task.groups["frame"]] = onsets, frames
    return found


def strength_at(strength: np.ndarray, frequencies_hz: np.ndarray, pitches: np.ndarray) -> np.ndarray:
    """Return (frame, pitch) strengths at MIDI pitches, linear between bins; 0 outside the spectrum."""
    hz = 440.0 * 2.0 ** ((pitches - 69) / 12)
    at = np.interp(np.log(hz), np.log(frequencies_hz), np.arange(len(frequencies_hz)))
    low = np.minimum(at.astype(np.int64), len(frequencies_hz) - 2)
    share = (at - low).astype(np.float32)
    found = (1 - share) * strength[:, low] + share * strength[:, low + 1]
    edge = 2.0 ** (1 / 24)               # half a semitone
    inside = (hz >= frequencies_hz[0] / edge) & (hz <= frequencies_hz[-1] * edge)
    return np.where(inside, found, 0)
