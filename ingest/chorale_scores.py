"""Read notes, bars, key, meters and tune of the Bach chorales in music21's corpus.

They are read directly from the parsed parts: ties are joined here (music21's stripTies takes half a minute for the corpus),
the bar grid is that of the first part, repeats are not expanded.  Parsing is forced from the file, so that music21 neither
writes nor reads pickles.  The encodings have their own terms: only labels are stored.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from tonelake.ingest.errors import AudioError
from tonelake.store import import_extra

DEFAULT_BPM = 96.0                       # 361 of 433 files have no tempo mark; most of the others have 96
TUNE_NOTES = 6                           # distinct notes on the beat that identify a tune
TICKS = 10_080                           # a quarter note, as in music21: divisible by every tuplet up to ten
TIED_BACK, TIED_FORWARD = ("stop", "continue"), ("start", "continue")        # music21's names of tie types


@dataclass(frozen=True, kw_only=True)
class Score:
    """One chorale.  Times in quarter notes from its beginning."""

    name: str                            # bwv66.6.mxl
    notes: np.ndarray                    # (note, 3) float64: start, length, MIDI pitch
    bars: np.ndarray                     # (bar, 2) float64: start, length
    meters: tuple[tuple[float, str], ...]        # (start, "4/4")
    key: str                             # "f# minor"
    tune: str                            # intervals of the melody's first notes, in semitones
    title: str
    voices: int
    parts: tuple[int, ...]               # number of notes of each voice; `notes` has them voice by voice
    quarter_s: float                     # length of a quarter note in seconds
    part_names: tuple[str, ...] = ()     # as written in the score, such as "Soprano"; "" for a part without a name

    def to_dict(self) -> dict[str, Any]:
        """Fields for JSON, with every number exact; see `from_dict`."""
        return asdict(self) | {"notes": self.notes.tolist(), "bars": self.bars.tolist()}

    @classmethod
    def from_dict(cls, fields: dict[str, Any]) -> Score:
        """The score whose `to_dict` is `fields`, before or after a round trip through JSON."""
        return cls(**fields | {
            "notes": np.array(fields["notes"], np.float64).reshape(-1, 3),
            "bars": np.array(fields["bars"], np.float64).reshape(-1, 2),
            "meters": tuple((start, meter) for start, meter in fields["meters"]),
            "parts": tuple(fields["parts"]),
            "part_names": tuple(fields.get("part_names", ())),
        })

    @property
    def piece(self) -> str:
        return Path(self.name).stem

    @property
    def voice_of_notes(self) -> np.ndarray:
        """The voice of each note, from 0, in the order of the score: (note,) int."""
        return np.repeat(np.arange(len(self.parts)), self.parts)

    def meter_at(self, quarter: float) -> str:
        """The time signature in force at a time."""
        return next((meter for start, meter in reversed(self.meters) if start <= quarter + 1e-6), self.meters[0][1])

    def window(self, start: float, length: float) -> np.ndarray:
        """Notes that sound in a span, cut at its ends, with times from its start: (note, 3) float64."""
        begin = np.maximum(self.notes[:, 0], start)
        end = np.minimum(self.notes[:, 0] + self.notes[:, 1], start + length)
        inside = end - begin > 1e-6
        return np.stack([begin - start, end - begin, self.notes[:, 2]], axis=1)[inside]

    @property
    def digest(self) -> str:
        """Hash of name, notes and tempo, so that two pieces with identical notes differ."""
        data = self.name.encode() + np.round(self.notes, 6).tobytes() + np.float64(self.quarter_s).tobytes()
        return hashlib.blake2b(data, digest_size=16).hexdigest()


def chorale_names() -> list[str]:
    """Bach files of the corpus, sorted: 408 MusicXML, 2 uncompressed, 3 Humdrum, 20 Roman-numeral analyses."""
    return sorted(_paths())


@lru_cache(maxsize=1)
def _paths() -> dict[str, Path]:
    import_extra("music21", "chorales", "Bach's chorales")
    from music21 import corpus

    return {Path(path).name: Path(path) for path in corpus.getComposer("bach")}


@lru_cache(maxsize=4)                    # clips of one piece follow each other
def load_score(name: str) -> Score:
    """Parse one file of the corpus.  Raises AudioError if this music21 does not have it."""
    from music21 import converter, stream

    path = _paths().get(name)
    if path is None:
        raise AudioError(f"chorale:{name}: is not in the corpus of the installed music21")
    parsed = converter.parse(path, forceSource=True)
    score = parsed.scores[0] if isinstance(parsed, stream.Opus) else parsed
    parts = list(score.parts)
    melody = next((part for part in parts if (part.partName or "").startswith("Soprano")), parts[0])
    voices = {id(part): part_notes(part) for part in parts}
    bars = [(float(bar.offset), float(bar.duration.quarterLength)) for bar in parts[0].getElementsByClass(stream.Measure)]
    return Score(
        name=name,
        notes=np.array([note for part in parts for note in voices[id(part)]], np.float64).reshape(-1, 3),
        bars=np.array(bars, np.float64).reshape(-1, 2),
        meters=_meters(parts[0]),
        key=_key(score, parts[0]),
        tune=tune_of(voices[id(melody)]),
        title=_titles().get(path.stem.removeprefix("bwv")) or path.stem,
        voices=len(parts),
        parts=tuple(len(voices[id(part)]) for part in parts),
        quarter_s=60.0 / _tempo(score),
        part_names=tuple(" ".join((part.partName or "").split()) for part in parts),
    )


def part_notes(part: Any) -> list[tuple[float, float, float]]:
    """(start, length, MIDI pitch) of a part's notes, voice by voice in each bar, tied notes joined, grace notes left out."""
    spans: list[tuple[float, float, float]] = []
    ties: list[str | None] = []
    elements = part.recurse().notes
    for element in elements:
        if element.duration.isGrace:
            continue
        # The iterator's own offset: getOffsetInHierarchy searches upwards from each note, a fifth of the time to parse.
        start, length = float(elements.currentHierarchyOffset()), float(element.quarterLength)
        for pitch, tie in zip(element.pitches, _ties(element), strict=True):
            spans.append((start, length, float(pitch.midi)))
            ties.append(tie)
    return join_ties(spans, ties)


def join_ties(
    spans: Sequence[tuple[float, float, float]], ties: Sequence[str | None]
) -> list[tuple[float, float, float]]:
    """Notes with each chain of ties joined into one, in the order of their first notes.

    `spans`: (start, length, MIDI pitch) in any order; `ties`: music21's tie type of each.  A tie joins two notes only if they
    have the same pitch and the second begins where the first ends, in whatever voice: scores contain ties across a gap.

    >>> join_ties([(0, 1, 60), (1, 2, 60), (3, 1, 60)], ["start", "continue", None])
    [(0, 3, 60), (3, 1, 60)]
    >>> join_ties([(0, 1, 60), (2, 1, 60)], ["start", "stop"])
    [(0, 1, 60), (2, 1, 60)]
    """
    joined = dict(enumerate(spans))
    open_at: dict[tuple[int, float], list[int]] = {}         # (end, pitch) -> notes that wait for the other end of their tie
    for at in sorted(range(len(spans)), key=lambda i: spans[i][0]):
        (start, length, midi), tie, first = spans[at], ties[at], at
        waiting = open_at.get((_tick(start), midi))
        if tie in TIED_BACK and waiting:
            first = waiting.pop(0)
            begin, so_far, _ = joined[first]
            joined[first] = (begin, so_far + length, midi)
            del joined[at]
        if tie in TIED_FORWARD:
            open_at.setdefault((_tick(start + length), midi), []).append(first)
    return list(joined.values())


def _tick(quarters: float) -> int:
    """A time as an integer, so that times that differ by rounding are equal."""
    return round(quarters * TICKS)


def _ties(element: Any) -> list[str | None]:
    """The tie type of each pitch of a note or chord.  A chord's own `tie` is that of its first tied note, so it is not used."""
    members = list(element.notes) if element.isChord else [element]
    return [member.tie.type if member.tie else None for member in members]


def tune_of(melody: list[tuple[float, float, float]]) -> str:
    """An identifier of a melody that is independent of key and ornament: the intervals, in semitones from the first note,
    of its first six distinct notes on the beat.

    >>> tune_of([(0, 1, 67), (1, 1, 67), (2, .5, 69), (2.5, .5, 70), (3, 1, 71)])
    '0 2 4'
    """
    on_beat = [midi for start, _, midi in sorted(melody) if abs(start - round(start)) < 1e-6]
    distinct = [midi for i, midi in enumerate(on_beat) if i == 0 or midi != on_beat[i - 1]]
    return " ".join(str(round(midi - distinct[0])) for midi in distinct[:TUNE_NOTES])


def _meters(part: Any) -> tuple[tuple[float, str], ...]:
    from music21 import meter

    marks = part.recurse().getElementsByClass(meter.TimeSignature)
    found = [(float(mark.getOffsetInHierarchy(part)), mark.ratioString) for mark in marks]
    return tuple(sorted(found)) or ((0.0, "4/4"),)


def _key(score: Any, part: Any) -> str:
    """The written key if its mode is written, else Krumhansl's estimate."""
    from music21 import key

    written = part.recurse().getElementsByClass(key.KeySignature).first()
    found = written if isinstance(written, key.Key) else score.analyze("key")
    tonic = found.tonic.name.replace("-", "b")
    return f"{tonic.lower() if found.mode == 'minor' else tonic} {found.mode}"


def _tempo(score: Any) -> float:
    """Quarter notes a minute: the first mark, or the default."""
    from music21 import tempo

    mark = score.recurse().getElementsByClass(tempo.MetronomeMark).first()
    return float(mark.getQuarterBPM() or DEFAULT_BPM) if mark is not None else DEFAULT_BPM


@lru_cache(maxsize=1)
def _titles() -> dict[str, str]:
    """Riemenschneider's titles by BWV number."""
    from music21.corpus import chorales

    return {str(bwv): entry["title"] for bwv, entry in chorales.ChoraleListRKBWV().byBWV.items()}
