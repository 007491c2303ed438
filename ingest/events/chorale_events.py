"""Events of chorales, exact, from the score that is rendered.  Source "chorale".

    note        every note with its voice as value, tied notes as one; velocity null, since all notes are equally loud
    beat        from the bars and meters; value: the number in the bar.  In compound meters (6/8, 9/8, 12/8) three eighths are a
                beat.  A short first bar is an upbeat, and a short bar after a short one continues it
    downbeat    the beats with number 1
    key         the key of the score, from beginning to end
    chord       where the notes that sound are exactly a triad or a seventh chord, in root position or inverted, in Harte's
                syntax without the bass; "N" where nothing sounds.  Everything else (passing notes, open fifths) has no chord
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

import numpy as np
import polars as pl

from tonelake.ingest.chorale_scores import Score
from tonelake.ingest.events.keys import key_name
from tonelake.ingest.events.label_events import TYPES, EventRow, instant, span

SOURCE = "chorale"
SAME = 1e-6                              # quarter notes; times that differ by less are equal
NAMES = ("C", "C#", "D", "D#", "E", "F", "F#", "G", "G#", "A", "A#", "B")
QUALITIES = {                            # pitch classes above the root
    "maj": (0, 4, 7), "min": (0, 3, 7), "dim": (0, 3, 6), "aug": (0, 4, 8),
    "7": (0, 4, 7, 10), "maj7": (0, 4, 7, 11), "min7": (0, 3, 7, 10), "hdim7": (0, 3, 6, 10), "dim7": (0, 3, 6, 9),
}


def chorale_events(score: Score) -> pl.DataFrame:
    """Events of a whole piece: kind, start_s, end_s, value, pitch, velocity, sorted by start."""
    quarters = [*note_rows(score), *beat_rows(score), *chord_rows(score.notes), *key_rows(score)]
    rows = [row._replace(start_s=row.start_s * score.quarter_s, end_s=row.end_s * score.quarter_s) for row in quarters]
    return pl.DataFrame(rows, schema=TYPES, orient="row").sort("start_s", "pitch", "end_s", "kind", maintain_order=True)


def recording_events(score: Score, recording: str) -> pl.DataFrame:
    """Events of one rendering of a piece, as `Events.replace` takes them."""
    return chorale_events(score).with_columns(recording=pl.lit(recording), source=pl.lit(SOURCE))


def note_rows(score: Score) -> Iterator[EventRow]:
    """Yield the notes, times in quarter notes."""
    for (start, length, midi), voice in zip(score.notes.tolist(), score.voice_of_notes.tolist(), strict=True):
        yield EventRow(
            "note", start_s=start, end_s=start + max(length, 0.0), value=voice_name(score, voice), pitch=midi
        )


def voice_name(score: Score, voice: int) -> str:
    """The name of a part, or its number if the score has none or several of that name."""
    names = score.part_names
    name = names[voice] if voice < len(names) else ""
    return name if name and names.count(name) == 1 else f"voice {voice + 1}"


def beat_rows(score: Score) -> Iterator[EventRow]:
    """Yield beats, and as further rows downbeats, times in quarter notes."""
    for start, number in beats(score):
        yield instant("beat", start, str(number))
        if number == 1:
            yield instant("downbeat", start, "1")


def beats(score: Score) -> Iterator[tuple[float, int]]:
    """Yield (quarter note, number in the bar) of every beat."""
    past = 0.0                           # of the bar's length, in quarter notes, what short bars before this one had
    for number, (start, length) in enumerate(score.bars.tolist()):
        full, beat = bar_and_beat(score.meter_at(start))
        is_short = length < full - SAME
        if not is_short or past + length > full + SAME:
            past = 0.0
        if number == 0 and is_short:
            past = full - length         # an upbeat
        first = int(np.ceil(past / beat - SAME))
        for at in range(first, int(np.ceil((past + length) / beat - SAME))):
            yield start + at * beat - past, at + 1
        past = (past + length) % full if is_short and past + length < full - SAME else 0.0


def bar_and_beat(meter: str) -> tuple[float, float]:
    """Length of a bar and of a beat in quarter notes.

    >>> bar_and_beat("4/4"), bar_and_beat("3/2"), bar_and_beat("12/8"), bar_and_beat("3/8")
    ((4.0, 1.0), (6.0, 2.0), (6.0, 1.5), (1.5, 0.5))
    """
    above, below = (int(part) for part in meter.split("/"))
    unit = 4.0 / below
    compound = below >= 8 and above > 3 and above % 3 == 0
    return above * unit, unit * 3 if compound else unit


def chord_rows(notes: np.ndarray) -> Iterator[EventRow]:
    """Yield chords, times in quarter notes: neighbouring spans with one label are one chord."""
    found: EventRow | None = None
    for start, end, label in harmonies(notes):
        if found is not None and found.value == label and start - found.end_s < SAME:
            found = found._replace(end_s=end)
            continue
        if found is not None and found.value is not None:
            yield found
        found = span("chord", start, end, label)
    if found is not None and found.value is not None:
        yield found


def harmonies(notes: np.ndarray) -> Iterator[tuple[float, float, str | None]]:
    """Yield (start, end, chord or None) of every span in which the same notes sound."""
    sounding = notes[notes[:, 1] > SAME]
    times = np.unique(np.round(np.concatenate([sounding[:, 0], sounding[:, 0] + sounding[:, 1]]), 6))
    if len(times) and times[0] > 0:
        times = np.concatenate([[0.0], times])
    for start, end in pairwise(times.tolist()):
        if end - start > 2 * SAME:
            middle = (start + end) / 2
            now = sounding[(sounding[:, 0] < middle) & (sounding[:, 0] + sounding[:, 1] > middle), 2]
            yield start, end, chord_of(now)


def chord_of(pitches: np.ndarray) -> str | None:
    """The chord that MIDI pitches are exactly, in Harte's syntax; "N" for none, None if they are not a chord of QUALITIES.

    Augmented triads and diminished seventh chords are symmetrical: their root is the lowest note.

    >>> [chord_of(np.array(pitches)) for pitches in ([52, 60, 67], [57, 60, 64, 67], [60, 67], [])]
    ['C:maj', 'A:min7', None, 'N']
    """
    if not len(pitches):
        return "N"
    classes = {round(pitch) % 12 for pitch in pitches}
    lowest = round(min(pitches)) % 12
    for root in sorted(classes, key=lambda pitch_class: (pitch_class != lowest, pitch_class)):
        above = tuple(sorted((pitch_class - root) % 12 for pitch_class in classes))
        for quality, intervals in QUALITIES.items():
            if above == intervals:
                return f"{NAMES[root]}:{quality}"
    return None


def key_rows(score: Score) -> Iterator[EventRow]:
    """Yield the key, if it is major or minor, times in quarter notes."""
    name = key_name(score.key)
    ends = np.concatenate([score.notes[:, 0] + score.notes[:, 1], score.bars.sum(axis=1)])
    if name is not None and len(ends) and ends.max() > 0:
        yield span("key", 0.0, float(ends.max()), name)
