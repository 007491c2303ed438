"""Samples and identity of chorales.  A source of `chorale_sources`, a start and a length in seconds -> (samples,) float32.

The organ renders the notes of the span alone: a note that began earlier starts at its beginning.  By a soundfont the whole
piece is rendered and the span is cut from it, as from a recording: a note that began earlier is heard as it is by then, and
releases and reverberation of earlier notes are part of the span.  So any part equals that part of the whole, sample by sample.
The same FluidSynth on the same machine gives the same samples; its version is not part of a recording's identity.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from tonelake.ingest.chorale_scores import Score, load_score
from tonelake.ingest.chorale_sources import ChoraleSource, Rendering, parse_chorale, soundfont_of
from tonelake.ingest.decode import resample
from tonelake.ingest.errors import AudioError
from tonelake.ingest.organ import render
from tonelake.ingest.recording_hash import derived_recording
from tonelake.ingest.soundfont_rendering import RATE, render_soundfont
from tonelake.ingest.soundfonts import soundfont_digest

RENDER_VERSION = 1                       # part of a recording's identity: raise it when rendering changes samples
SCORE_DIGITS = 32                        # of a digest: that of the notes comes first


def chorale_digest(score: Score, rendering: Rendering) -> str:
    """Hex digits that identify what a piece is made from: of its notes, then of the soundfont, if it is played by one."""
    return score.digest + (soundfont_digest(rendering.soundfont) if rendering.soundfont is not None else "")


def chorale_recording(score: Score, rendering: Rendering) -> str:
    """The identity of a rendering.  On the organ: a hash of the notes; by a soundfont: of notes, voices and its settings."""
    if rendering.soundfont is None:
        return score.digest
    return derived_recording(
        score.digest, "soundfont", RENDER_VERSION, soundfont_digest(rendering.soundfont), rendering.programs, rendering.reverb,
        score.parts,
    )


def soundfont_differs(source: str, digest: str) -> bool:
    """Whether the soundfont of a source is there with other bytes than in `digest`; False for the organ."""
    soundfont = soundfont_of(source)
    return soundfont is not None and soundfont.exists() and soundfont_digest(soundfont) != digest[SCORE_DIGITS:]


def read_chorale(source: str, start_s: float, duration_s: float, rate: int, digest: str | None = None) -> np.ndarray:
    """Part of a piece as (samples,) float32 at `rate` Hz.  `digest`: `chorale_digest` when it was ingested.

    Raises AudioError if the piece or its soundfont differs from what was ingested, or cannot be rendered.
    """
    piece = parse_chorale(source)
    score = load_score(piece.name)
    if digest is not None and score.digest != digest[:SCORE_DIGITS]:
        raise AudioError(f"{source}: its notes differ from those ingested, since another music21 is installed. Ingest it again")
    soundfont = piece.rendering.soundfont
    if soundfont is None:
        notes = score.window(start_s / score.quarter_s, duration_s / score.quarter_s)
        notes[:, :2] *= score.quarter_s
        return render(notes, duration_s, rate, voices=score.voices)
    found = soundfont_digest(soundfont)
    if digest is not None and found != digest[SCORE_DIGITS:]:
        raise AudioError(
            f"{soundfont}: the soundfont has been replaced since the chorales were ingested. Put the former file back, or run "
            "`tonelake ingest chorales` with it again"
        )
    first, count = round(start_s * rate), round(duration_s * rate)
    part = _whole_piece(piece, found, rate)[first : first + count]
    return np.pad(part, (0, count - len(part)))


@lru_cache(maxsize=4)                    # clips of one piece follow each other
def _whole_piece(piece: ChoraleSource, soundfont: str, rate: int) -> np.ndarray:
    """A whole piece by a soundfont of that digest: (samples,) float32 at `rate` Hz."""
    score = load_score(piece.name)
    notes = score.notes.copy()
    notes[:, :2] *= score.quarter_s
    try:
        return resample(render_soundfont(notes, score.voice_of_notes, piece.rendering), RATE, rate)
    except AudioError as error:
        raise AudioError(f"{piece.name}: {error}") from error
