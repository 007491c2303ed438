"""Tasks of frame probes: which outputs a head has at each frame, and the events that they are learned from.

    notes     multilabel: onset, frame and offset of each pitch ("onset 60", "frame 60", "offset 60"), MIDI numbers
    onsets    multilabel: "onset"
    beats     multilabel: "beat" (downbeats included) and "downbeat"
    chords    multiclass: 12 major and 12 minor triads and "N" (no chord), in Harte's syntax ("C:maj", "A:min")
    key       multiclass: 12 major and 12 minor keys ("C major", "A minor")
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import lru_cache
from typing import Literal

from tonelake.store import InputError

FRAME_TASKS = ("notes", "onsets", "beats", "chords", "key")
NOTE_GROUPS = ("onset", "frame", "offset")
PIANO = (21, 108)                        # lowest and highest MIDI number of a piano
ROOTS = ("C", "C#", "D", "D#", "E", "F", "F#", "G", "G#", "A", "A#", "B")
CHORDS = (*(f"{root}:maj" for root in ROOTS), *(f"{root}:min" for root in ROOTS), "N")
KEYS = (*(f"{root} major" for root in ROOTS), *(f"{root} minor" for root in ROOTS))
NO_CHORD = CHORDS.index("N")


@dataclass(frozen=True, kw_only=True)
class FrameTask:
    """One task: a head has an output for each entry of `outputs` at each frame."""

    name: str                                             # one of FRAME_TASKS
    kind: Literal["multilabel", "multiclass"]
    outputs: tuple[str, ...]
    event_kinds: tuple[str, ...]                          # kinds of events that the targets are made from
    groups: dict[str, slice] = field(hash=False)          # outputs that belong together, such as the onsets of all pitches
    lowest: int | None = None                             # MIDI number of the first output of a group; None without pitches

    @property
    def pitches(self) -> range:
        """MIDI numbers of the outputs of a group; empty for a task without pitches."""
        if self.lowest is None:
            return range(0)
        group = self.groups["frame"]
        return range(self.lowest, self.lowest + group.stop - group.start)


@lru_cache(maxsize=64)
def frame_task(name: str, lowest: int = PIANO[0], highest: int = PIANO[1]) -> FrameTask:
    """Return a task by name.  `lowest` and `highest` are the MIDI numbers of the range of pitches of notes, both included.

    Raises InputError for an unknown name and for an empty or impossible range.

    >>> task = frame_task("notes", 60, 61)
    >>> task.outputs
    ('onset 60', 'onset 61', 'frame 60', 'frame 61', 'offset 60', 'offset 61')
    >>> task.groups["frame"], frame_task("chords").outputs[-2:]
    (slice(2, 4, None), ('B:min', 'N'))
    """
    if name == "notes":
        if not 0 <= lowest <= highest <= 127:
            raise InputError(f"pitches {lowest} to {highest}: not a range of MIDI numbers. Give 0 <= lowest <= highest <= 127")
        count = highest - lowest + 1
        return FrameTask(
            name=name, kind="multilabel", event_kinds=("note",), lowest=lowest,
            outputs=tuple(f"{group} {pitch}" for group in NOTE_GROUPS for pitch in range(lowest, highest + 1)),
            groups={group: slice(i * count, (i + 1) * count) for i, group in enumerate(NOTE_GROUPS)},
        )
    if name == "onsets":
        return multilabel(name, ("onset",), ("onset", "note"))
    if name == "beats":
        return multilabel(name, ("beat", "downbeat"), ("beat", "downbeat"))
    if name == "chords":
        return FrameTask(name=name, kind="multiclass", outputs=CHORDS, event_kinds=("chord",), groups={"chord": slice(0, 25)})
    if name == "key":
        return FrameTask(name=name, kind="multiclass", outputs=KEYS, event_kinds=("key",), groups={"key": slice(0, 24)})
    raise InputError(f"task {name!r}: unknown. Choose one of {', '.join(FRAME_TASKS)}")


def multilabel(name: str, outputs: tuple[str, ...], kinds: tuple[str, ...]) -> FrameTask:
    """Return a task whose outputs are groups of their own."""
    groups = {output: slice(i, i + 1) for i, output in enumerate(outputs)}
    return FrameTask(name=name, kind="multilabel", outputs=outputs, event_kinds=kinds, groups=groups)
