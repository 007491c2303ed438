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
from store.lake import Lake
from store.machine import memory_bytes
from store.space import Space, Spaces
from store.table import Snapshot, chunks
from store.tracks import DUPLICATE_COLUMN, rows_of, track_numbers
from store.vectors import LayerVectors, Vectors, fits

__all__ = [
    "DUPLICATE_COLUMN", "Added", "ClipNotFound", "Clips", "Failure", "Failures", "FilterError", "Fragment", "FrameStates",
    "Frames", "InputError", "Lake", "LakeError", "LayerVectors", "Snapshot", "Space", "SpaceMismatch", "SpaceNotFound",
    "Spaces", "TonelakeError", "Vectors", "append_fragments", "chunks", "failure_id", "fits", "memory_bytes", "rows_of",
    "track_numbers", "write_fragment",
]
