"""The Lake: LanceDB tables, embedding spaces and runs on disk.  Imports nothing of ours."""

from store.clips import Added, Clips
from store.errors import (
    ClipNotFound,
    FilterError,
    InputError,
    LakeError,
    SpaceMismatch,
    SpaceNotFound,
    TonelakeError,
)
from store.failures import Failure, Failures, failure_id
from store.fragments import Fragment, append_fragments, write_fragment
from store.frames import Frames, FrameStates
from store.imports import CLIENT, put_off
from store.lake import Lake
from store.machine import cores, memory_bytes, share_cores
from store.places import Places
from store.pool import choose_pool
from store.projection import Projection, extend_projected, is_projection, make_projected, read_projection
from store.space import Space, Spaces
from store.table import Snapshot, chunks
from store.text import printable
from store.tokens import Tokens, TokenSequence
from store.tracks import DUPLICATE_COLUMN, rows_of, track_numbers
from store.vectors import LayerVectors, Vectors, fits

__all__ = [
    "DUPLICATE_COLUMN", "Added", "ClipNotFound", "Clips", "Failure", "Failures", "FilterError", "Fragment", "FrameStates",
    "Frames", "InputError", "Lake", "LakeError", "LayerVectors", "Places", "Projection", "Snapshot", "Space", "SpaceMismatch",
    "SpaceNotFound", "Spaces", "TokenSequence", "Tokens",
    "TonelakeError", "Vectors", "append_fragments", "chunks", "cores", "extend_projected", "failure_id",
    "fits", "is_projection", "make_projected", "memory_bytes", "printable", "read_projection", "rows_of",
    "track_numbers", "write_fragment",
]

choose_pool()
share_cores()
put_off(CLIENT)
