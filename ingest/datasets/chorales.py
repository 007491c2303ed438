"""Bach's chorales as clips: windows of bars, rendered by a built-in organ or a soundfont whenever they are read.

Nothing of the corpus is copied: a clip's source names the piece and how it is played (`ingest.chorale_sources`), and its
samples are rendered from the notes.  Renderings of a piece are recordings of their own of one track, distinguished by the label
`timbre`.  The default set leaves out two things that would bias a study: Roman-numeral analyses (block chords without voices)
and windows that repeat another window note for note.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from tonelake.ingest.chorale_audio import chorale_digest, chorale_recording
from tonelake.ingest.chorale_labels import SCORE_FILLS, ChoraleLabels, labelled_row, stored_marks
from tonelake.ingest.chorale_scores import Score, chorale_names
from tonelake.ingest.chorale_sources import ChoraleSource, Rendering
from tonelake.ingest.collector import Collector
from tonelake.ingest.decoder_pool import DecoderPool
from tonelake.ingest.errors import AudioError
from tonelake.ingest.events.chorale_events import recording_events
from tonelake.ingest.file_table import FileTable
from tonelake.ingest.general_midi import parse_programs
from tonelake.ingest.labels import stored_as_text
from tonelake.ingest.moved_soundfonts import follow_soundfont
from tonelake.ingest.report import IngestReport
from tonelake.ingest.scan import clip_id
from tonelake.ingest.soundfont_rendering import check_sound, fluidsynth_version, voice_programs
from tonelake.ingest.tables import ListColumns
from tonelake.store import Added, InputError, Lake, cores, sync_clips, tidy

SEED_SUFFIXES = (".mxl", ".xml", ".rntxt")
PIECES_EACH = 10                         # parsed by each process: starting one takes as long as parsing these
CLEAN_SUFFIXES = (".mxl", ".xml")
CHURCH_ORGAN = 19                        # of General MIDI: what the built-in organ imitates


def ingest_chorales(
    lake: Lake, *, bars: int = 4, hop: int = 2, limit: int | None = None, seed_rule: bool = False,
    soundfont: str | Path | None = None, program: str | int | Sequence[str | int] | None = None, reverb: bool = False,
    labels: str | Path | None = None, multi: ListColumns = (),
) -> IngestReport:
    """Add the corpus, cut by `bars` every `hop` bars, full windows only.

    Label columns: piece, bwv, tune, key, meter, title and timbre.  Stores the events of each piece (`lake.events`): its notes,
    beats, downbeats, key, and chords where the notes are exactly one (`ingest.events.chorale_events`).

    `seed_rule`: all but the Humdrum files, with analyses and repeated windows: 430 pieces, 3,008 snippets at 4 bars every 2.
    `limit`: number of pieces, spread over the corpus.
    `soundfont`: a SoundFont 2 file, by which FluidSynth plays the pieces in place of the built-in organ; its clips are added
    beside those of the organ.  `program`: numbers (0 to 127) or names of General MIDI, one for all voices or one for each, from
    the soprano down; default: 19, church organ.  `reverb`: with FluidSynth's reverberation.
    `labels`: a CSV or JSON file of label columns, joined by piece, bwv or name; its values replace those of the score.
    `multi`: columns that become lists, split at `|` or `;`, or at the separator in `tags=,` or {"tags": ","}.
    Raises InputError, before anything is written, if the soundfont or the labels are unusable.
    """
    if bars < 1 or hop < 1 or (limit is not None and limit < 1):
        raise InputError("--bars, --hop and --limit are at least 1")
    rendering = checked_rendering(soundfont, program, reverb)
    suffixes = SEED_SUFFIXES if seed_rule else CLEAN_SUFFIXES
    names = [name for name in chorale_names() if name.endswith(suffixes)]
    if limit is not None and limit < len(names):
        names = [names[i * len(names) // limit] for i in range(limit)]
    pieces = [ChoraleSource(name, rendering) for name in names]
    lake.check_writable()
    labels_of, notes = read_labels(lake, pieces, labels, multi)
    files = FileTable(lake)
    if rendering.soundfont is not None:
        follow_soundfont(lake, files, rendering.soundfont)
    before, marks = set(lake.clips.read(["source"], superseded=True)["source"]), stored_marks(lake)
    found: list[str] = []                # sources of pieces that were parsed
    emptied: list[dict[str, Any]] = []
    events: list[pl.DataFrame] = []
    collector = Collector(lake, files)
    seen: set[bytes] | None = None if seed_rule else set()
    repeated = 0
    requests = [{"do": "parse", "source": str(piece)} for piece in pieces]
    try:
        with DecoderPool(min(cores(), -(-len(names) // PIECES_EACH))) as pool:
            parsed = lake.progress(pool.map(requests), len(names), "parsing")
            for piece, (_, reply) in zip(pieces, parsed, strict=True):
                source = str(piece)
                score = reply if isinstance(reply, AudioError) else score_of(reply, rendering)
                if isinstance(score, AudioError):        # a file that this music21 cannot parse, or too many voices
                    collector.fail(source, str(score))
                    continue
                rows, left_out = cut_score(score, bars, hop, seen, rendering)
                repeated += left_out
                found.append(source)
                digest, recording = chorale_digest(score, rendering), chorale_recording(score, rendering)
                files.note_read(source, None, recording, digest, {}, None)
                if source in labels_of or marks:
                    rows = [labelled_row(row, labels_of.get(source, {}), marks.get(row["clip_id"], ())) for row in rows]
                    empty = [name for name, value in rows[0].items() if value is None] if rows else []
                    emptied += [{"clip_id": row["clip_id"], "emptied": empty} for row in rows if empty]
                collector.add(rows)
                collector.succeed(source)
                events += [recording_events(score, recording)] if rows else []
    finally:
        collector.flush()
        if events:
            lake.events.replace(pl.concat(events))
            tidy(lake.events.table)
    added = empty_labels(lake, emptied, collector.added)
    rule = "the seed's rule (analyses and repeated windows kept)" if seed_rule else (
        f"the clean rule (no Roman-numeral analyses; {repeated} windows that repeat another left out)"
    )
    snippets = added.new + added.known + added.changed
    note = f"{len(names)} pieces, {snippets} snippets of {bars} bars every {hop}, by {rule}"
    synced = sync_clips(lake)
    new = len(set(found) - before)
    return IngestReport(
        recordings=len(names), added=added, failed=collector.failed, superseded=synced.superseded,
        notes=(note, *rendering_notes(rendering), *notes), new=new, known=len(names) - new - collector.failed,
    )


def checked_rendering(
    soundfont: str | Path | None, program: str | int | Sequence[str | int] | None, reverb: bool
) -> Rendering:
    """The settings of a rendering.  Raises InputError if they contradict each other or the soundfont cannot play them."""
    if soundfont is None:
        if program is not None or reverb:
            raise InputError("--program, --reverb: apply to soundfonts, not to the built-in organ. Name one with --soundfont")
        return Rendering()
    path = Path(os.path.abspath(Path(soundfont).expanduser()))       # noqa: PTH100 - keeps links, unlike Path.resolve
    programs = parse_programs(CHURCH_ORGAN if program is None else program)
    rendering = Rendering(soundfont=path, programs=programs, reverb=reverb)
    try:
        check_sound(rendering)
    except AudioError as error:
        raise InputError(str(error)) from error
    return rendering


def read_labels(
    lake: Lake, pieces: Sequence[ChoraleSource], file: str | Path | None, multi: ListColumns
) -> tuple[dict[str, dict[str, Any]], tuple[str, ...]]:
    """Labels by source of the pieces that a row matches, and a note on the rows.  Raises InputError if they are unusable."""
    if file is None:
        if multi:
            raise InputError(f"--multi {' '.join(multi)}: names columns of a label file. Name the file with --labels")
        return {}, ()
    table = ChoraleLabels(Path(file).expanduser(), multi=multi, text=stored_as_text(lake))
    table.check(lake)
    found = {str(piece): table.of_piece(piece) for piece in pieces}
    return {source: labels for source, labels in found.items() if labels}, (table.report(len(pieces)),)


def score_of(reply: dict[str, Any], rendering: Rendering) -> Score | AudioError:
    """The score that a decoder parsed, or the reason why it cannot be rendered."""
    score = Score.from_dict(reply["score"])
    if rendering.soundfont is not None:
        try:
            voice_programs(rendering.programs, score.voices)
        except AudioError as error:
            return AudioError(f"{score.name}: {error}")
    return score


def empty_labels(lake: Lake, emptied: Sequence[dict[str, Any]], added: Added) -> Added:
    """Empty label columns of stored clips, and count the clips that change: `added` is what adding their rows counted.

    `emptied`: rows of clip_id and `emptied`, the columns whose cells are empty.
    """
    by_columns: dict[tuple[str, ...], list[str]] = {}
    for row in emptied:
        by_columns.setdefault(tuple(sorted(row["emptied"])), []).append(row["clip_id"])
    changed = 0
    for columns, ids in by_columns.items():
        stored = [name for name in columns if name in lake.clips.table.schema.names]
        values = pl.DataFrame({"clip_id": ids}).with_columns(pl.lit(None).alias(name) for name in stored)
        changed += len(lake.clips.update(values)) if stored else 0
    changed = min(changed, added.known)
    return replace(added, known=added.known - changed, changed=added.changed + changed)


def rendering_notes(rendering: Rendering) -> tuple[str, ...]:
    """A note on how the pieces are played, for a report."""
    if rendering.soundfont is None:
        return ()
    return (f"timbre {rendering.timbre!r}: rendered by FluidSynth {fluidsynth_version()} whenever a clip is read",)


def cut_score(
    score: Score, bars: int, hop: int, seen: set[bytes] | None, rendering: Rendering | None = None
) -> tuple[list[dict[str, Any]], int]:
    """Windows of a piece as rows of `clips`, and the number left out because their notes are in `seen`, which is extended.

    `rendering` None: on the organ.
    """
    rows, left_out = [], 0
    for start, length in windows(score, bars, hop):
        content = np.round(np.array(sorted(score.window(start, length).tolist())), 6).tobytes()
        if seen is not None and content in seen:
            left_out += 1
            continue
        if seen is not None:
            seen.add(content)
        rows.append(clip_row(score, start, length, rendering or Rendering()) | {"cut": f"{bars}bars/{hop}"})
    return rows, left_out


def windows(score: Score, bars: int, hop: int) -> list[tuple[float, float]]:
    """(start, length) in quarter notes of the full windows of a piece."""
    return [
        (float(score.bars[first, 0]), float(score.bars[first : first + bars, 1].sum()))
        for first in range(0, len(score.bars) - bars + 1, hop)
    ]


def clip_row(score: Score, start: float, length: float, rendering: Rendering | None = None) -> dict[str, Any]:
    """A window as a row of `clips`; `rendering` None: on the organ."""
    rendering = rendering or Rendering()
    start_s, duration_s = start * score.quarter_s, length * score.quarter_s
    recording = chorale_recording(score, rendering)
    return {
        "clip_id": clip_id(recording, start_s, duration_s), "track": score.piece, "recording": recording,
        "source": str(ChoraleSource(score.name, rendering)), "labelled": [*SCORE_FILLS],
        "digest": chorale_digest(score, rendering), "start_s": start_s, "duration_s": duration_s, "dataset": "chorales",
        "artist": "Johann Sebastian Bach", "title": score.title, "piece": score.piece,
        "bwv": score.piece.removeprefix("bwv"), "tune": score.tune, "key": score.key, "meter": score.meter_at(start),
        "timbre": rendering.timbre,
    }
