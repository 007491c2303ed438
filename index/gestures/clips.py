"""Compute and store the gestures of clips that have tokens, and read them."""

from __future__ import annotations

import logging
from typing import Any

import polars as pl

from tonelake.index.gestures.onsets import RATE
from tonelake.index.gestures.stream import GestureStream
from tonelake.index.search.names import find_clip
from tonelake.index.tokens.sequences import drop_outdated
from tonelake.index.tokens.vocabulary import Vocabulary, find_vocabulary
from tonelake.ingest import read_clips
from tonelake.store import Lake, chunks

CLIPS_PER_WRITE = 256
SCHEMA: dict[str, Any] = {
    "clip_id": pl.String, "number": pl.Int32, "start_s": pl.Float64, "end_s": pl.Float64, "token": pl.Int32,
    "token_share": pl.Float32, "loudness": pl.Float32, "centroid": pl.Float32, "pitch": pl.Float32,
    "pitch_classes": pl.List(pl.Float32), "consonance": pl.Float32, "ioi_s": pl.Float64, "ratio": pl.String,
    "ratio_numerator": pl.Int16, "ratio_denominator": pl.Int16,
}

log = logging.getLogger(__name__)


def compute_gestures(
    lake: Lake, name: str | None = None, *, grid_s: float | None = None, space: str | None = None, where: str | None = None,
    workers: int | None = None,
) -> tuple[Vocabulary, int, int]:
    """Store the gestures of clips that have tokens; return the vocabulary, the number of clips done and of clips that failed.

    Gestures begin at onsets, or every `grid_s` seconds.  Clips that have gestures of this kind keep them, those of another
    kind are replaced.  A clip whose audio cannot be read is left out with a warning.  An interrupted call can be resumed.
    Raises InputError for a grid out of range.
    """
    vocabulary = find_vocabulary(lake, name, space=space)
    chosen = lake.spaces.get(vocabulary.space)
    stored, digest = lake.gestures(chosen), vocabulary.digest
    GestureStream(grid_s=grid_s)
    drop_outdated(lake, chosen)
    segmentation = "onsets" if grid_s is None else f"grid {grid_s:g} s"
    known = set(stored.ids(digest, segmentation))
    kept = set(lake.clips.ids(where)) - known
    due = [clip_id for clip_id in lake.tokens(chosen).ids(digest) if clip_id in kept]
    done = failed = 0
    parts = list(chunks(due, CLIPS_PER_WRITE))
    for ids in lake.progress(parts, len(parts), f"gestures of {vocabulary.name}"):
        sequences = {one.clip_id: one for one in lake.tokens(chosen).each(digest, ids)}
        clips = lake.clips.take(ids, ["source", "digest", "start_s", "duration_s"])
        rows = []
        for clip_id, samples in read_clips(clips, RATE, workers):
            if isinstance(samples, Exception):
                log.warning("clip %s: has no gestures (%s)", clip_id, samples)
                failed += 1
                continue
            stream, one = GestureStream(grid_s=grid_s), sequences[clip_id]
            found = stream.push(samples, one.frame_s, one.tokens) + stream.finish()
            rows += [{"clip_id": clip_id, **row} for row in found]
            done += 1
        if rows:
            stored.replace(digest, segmentation, pl.DataFrame(rows, schema=SCHEMA, orient="row"))
    return vocabulary, done, failed


def gestures_of_clip(lake: Lake, clip: str, name: str | None = None, *, space: str | None = None) -> pl.DataFrame:
    """Return the gestures of one clip, one row each, with the columns of `store.Gestures`; no rows if there are none."""
    vocabulary = find_vocabulary(lake, name, space=space)
    chosen = lake.spaces.get(vocabulary.space)
    return lake.gestures(chosen).read(vocabulary.digest, [find_clip(lake, clip)["clip_id"]]).drop("clip_id")
