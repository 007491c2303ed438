"""Bach's chorales as clips: windows of bars, rendered by a built-in organ whenever they are read.

Nothing of the corpus is copied: a clip's source is `chorale:NAME`, and its samples are rendered from the notes between its
start and its end.  The default set leaves out two things that would bias a study: Roman-numeral analyses (block chords
without voices) and windows that repeat another window note for note.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from tonelake.ingest.chorale_scores import Score, chorale_names
from tonelake.ingest.collector import Collector
from tonelake.ingest.decoder_pool import DecoderPool
from tonelake.ingest.errors import AudioError
from tonelake.ingest.file_table import FileTable
from tonelake.ingest.report import IngestReport
from tonelake.ingest.scan import clip_id
from tonelake.store import InputError, Lake, cores, sync_clips

SEED_SUFFIXES = (".mxl", ".xml", ".rntxt")
PIECES_EACH = 10                         # parsed by each process: starting one takes as long as parsing these
CLEAN_SUFFIXES = (".mxl", ".xml")


def ingest_chorales(
    lake: Lake, *, bars: int = 4, hop: int = 2, limit: int | None = None, seed_rule: bool = False
) -> IngestReport:
    """Add the corpus, cut by `bars` every `hop` bars, full windows only; label columns piece, bwv, tune, key, meter, title.

    `seed_rule`: all but the Humdrum files, with analyses and repeated windows: 430 pieces, 3,008 snippets at 4 bars every 2.
    `limit`: number of pieces, spread over the corpus.
    """
    if bars < 1 or hop < 1 or (limit is not None and limit < 1):
        raise InputError("--bars, --hop and --limit are at least 1")
    suffixes = SEED_SUFFIXES if seed_rule else CLEAN_SUFFIXES
    names = [name for name in chorale_names() if name.endswith(suffixes)]
    if limit is not None and limit < len(names):
        names = [names[i * len(names) // limit] for i in range(limit)]
    lake.check_writable()
    files = FileTable(lake)
    before = set(lake.clips.read(["source"], superseded=True)["source"])
    found: list[str] = []                # pieces that were parsed
    collector = Collector(lake, files)
    seen: set[bytes] | None = None if seed_rule else set()
    repeated = 0
    requests = [{"do": "parse", "source": f"chorale:{name}"} for name in names]
    try:
        with DecoderPool(min(cores(), -(-len(names) // PIECES_EACH))) as pool:
            for request, reply in lake.progress(pool.map(requests), len(names), "parsing"):
                if isinstance(reply, AudioError):        # a file that this music21 cannot parse
                    collector.fail(request["source"], str(reply))
                    continue
                score = Score.from_dict(reply["score"])
                rows, left_out = cut_score(score, bars, hop, seen)
                repeated += left_out
                found.append(request["source"])
                files.note_read(request["source"], None, score.digest, score.digest, {}, None)
                collector.add(rows)
                collector.succeed(request["source"])
    finally:
        collector.flush()
    added = collector.added
    rule = "the seed's rule (analyses and repeated windows kept)" if seed_rule else (
        f"the clean rule (no Roman-numeral analyses; {repeated} windows that repeat another left out)"
    )
    snippets = added.new + added.known + added.changed
    note = f"{len(names)} pieces, {snippets} snippets of {bars} bars every {hop}, by {rule}"
    synced = sync_clips(lake)
    new = len(set(found) - before)
    return IngestReport(
        recordings=len(names), added=added, failed=collector.failed, superseded=synced.superseded, notes=(note,),
        new=new, known=len(names) - new - collector.failed,
    )


def cut_score(score: Score, bars: int, hop: int, seen: set[bytes] | None) -> tuple[list[dict[str, Any]], int]:
    """Windows of a piece as rows of `clips`, and the number left out because their notes are in `seen`, which is extended."""
    rows, left_out = [], 0
    for start, length in windows(score, bars, hop):
        content = np.round(np.array(sorted(score.window(start, length).tolist())), 6).tobytes()
        if seen is not None and content in seen:
            left_out += 1
            continue
        if seen is not None:
            seen.add(content)
        rows.append(clip_row(score, start, length) | {"cut": f"{bars}bars/{hop}"})
    return rows, left_out


def windows(score: Score, bars: int, hop: int) -> list[tuple[float, float]]:
    """(start, length) in quarter notes of the full windows of a piece."""
    return [
        (float(score.bars[first, 0]), float(score.bars[first : first + bars, 1].sum()))
        for first in range(0, len(score.bars) - bars + 1, hop)
    ]


def clip_row(score: Score, start: float, length: float) -> dict[str, Any]:
    """A window as a row of `clips`."""
    start_s, duration_s = start * score.quarter_s, length * score.quarter_s
    return {
        "clip_id": clip_id(score.digest, start_s, duration_s), "track": score.piece, "recording": score.digest,
        "source": f"chorale:{score.name}", "labelled": ["artist", "title", "track"], "digest": score.digest,
        "start_s": start_s, "duration_s": duration_s, "dataset": "chorales",
        "artist": "Johann Sebastian Bach", "title": score.title, "piece": score.piece,
        "bwv": score.piece.removeprefix("bwv"), "tune": score.tune, "key": score.key, "meter": score.meter_at(start),
    }
