"""Encode a file outside the lake in a space, for a query; with encoders and decoders, which other queries do without."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from tonelake.embed import ClipVectors, encode_clips, encoder_of
from tonelake.ingest import DecoderPool, to_source
from tonelake.store import Lake, Space, is_hybrid, is_projection, join_frames, read_hybrid, read_projection

MAX_QUERY_S = 600.0                      # longest part of a file outside the lake that is encoded
MIN_QUERY_S = 1.0                        # a shorter sound is repeated up to this length, the shortest clip of a lake


def encode_file(
    lake: Lake, path: Path, space: Space, pool: DecoderPool, frames: Sequence[int] = ()
) -> tuple[ClipVectors, dict[str, Any], tuple[str, ...]]:
    """Encode a file in a space; return its vectors, with the frames of the layers `frames`, its tags, and sentences about what
    is compared.

    If a file is longer than MAX_QUERY_S, its beginning is encoded.  A sound shorter than MIN_QUERY_S is repeated up to that
    length, as encoders and clips begin there; it is never padded with silence, which would be compared as well.
    For a projection the space that it was made from is encoded in, for a hybrid the space of each part.
    """
    if is_projection(space):
        return project_file(lake, path, space, pool)
    if is_hybrid(space):
        return join_file(lake, path, space, pool, frames)
    source = to_source(path)
    scanned = pool.ask({"do": "scan", "source": source, "shortest_s": 0.0})
    encoder = encoder_of(space, home=lake.uri)
    whole_s = scanned["scan"]["duration_s"]
    request = {
        "do": "read", "source": source, "start_s": 0.0, "duration_s": min(whole_s, MAX_QUERY_S), "rate": encoder.sample_rate
    }
    samples = pool.ask(request)["samples"]
    notes: tuple[str, ...] = ()
    if whole_s > MAX_QUERY_S:
        notes = (
            f"{path.name}: {clock(whole_s)} long; only the first {clock(MAX_QUERY_S)} is compared. Cut out another part to "
            "compare that, or ingest the file",
        )
    elif whole_s < MIN_QUERY_S:
        samples = np.resize(samples, round(MIN_QUERY_S * encoder.sample_rate))       # repeats
        notes = (f"{path.name}: {whole_s:.2f} s long; repeated up to {MIN_QUERY_S:g} s, the shortest sound that is compared",)
    return encode_clips(encoder, [samples], space.window_s, space.hop_s, tuple(frames))[0], scanned["tags"], notes


def project_file(
    lake: Lake, path: Path, space: Space, pool: DecoderPool
) -> tuple[ClipVectors, dict[str, Any], tuple[str, ...]]:
    """Encode a file as `encode_file` in the space that a projection was made from, and project its vectors."""
    projection = read_projection(lake, space)
    encoded, tags, notes = encode_file(lake, path, lake.spaces.get(projection.parent), pool)
    mean, largest = (
        projection.apply(np.concatenate([one[layer] for layer in projection.layers])[None])[0]
        for one in (encoded.mean, encoded.max)
    )
    return replace(encoded, mean=[mean], max=[largest]), tags, notes


def join_file(
    lake: Lake, path: Path, space: Space, pool: DecoderPool, frames: Sequence[int] = ()
) -> tuple[ClipVectors, dict[str, Any], tuple[str, ...]]:
    """Encode a file as `encode_file` in the space of each part of a hybrid, and join its vectors and frames."""
    hybrid = read_hybrid(lake, space)
    encoded: dict[str, ClipVectors] = {}
    tags: dict[str, Any] = {}
    notes: tuple[str, ...] = ()
    layers = {part.space.name: sorted({p.layer for p in hybrid.parts if p.space == part.space}) for part in hybrid.parts}
    for part in hybrid.parts:
        if part.space.name not in encoded:
            wanted = layers[part.space.name] if frames else ()
            encoded[part.space.name], tags, notes = encode_file(lake, path, part.space, pool, wanted)
    parts = [(encoded[part.space.name], part.layer, layers[part.space.name].index(part.layer)) for part in hybrid.parts]
    mean, largest = (hybrid.join([vectors[None] for vectors in some])[0] for some in (
        [one.mean[layer] for one, layer, _ in parts], [one.max[layer] for one, layer, _ in parts],
    ))
    joined = ClipVectors(mean=[mean], max=[largest], n_frames=0, frames=[], frame_s=np.empty(0, np.float32))
    if frames:
        frame_s, states = join_frames(hybrid, [one.frame_s for one, _, _ in parts], [one.frames[row] for one, _, row in parts])
        joined = replace(joined, n_frames=len(frame_s), frames=[states.astype(np.float16)], frame_s=frame_s)
    return joined, tags, notes


def clock(seconds: float) -> str:
    """Return seconds as minutes and seconds.

    >>> clock(1500.4)
    '25:00'
    """
    return f"{int(seconds) // 60}:{int(seconds) % 60:02d}"
