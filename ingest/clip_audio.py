"""Clips of a lake -> their samples, decoded ahead in worker processes: the stage before the encoder."""

from __future__ import annotations

from collections.abc import Generator

import numpy as np
import polars as pl

from tonelake.ingest.decoder_pool import DecoderPool
from tonelake.ingest.errors import AudioError

COLUMNS = ("clip_id", "source", "digest", "start_s", "duration_s")


def read_clips(
    clips: pl.DataFrame, rate: int, workers: int | None = None
) -> Generator[tuple[str, np.ndarray | Exception], None, None]:
    """(clip id, samples) for each row of clips, in their order; an AudioError where a clip cannot be read.

    Samples: (samples,) float32 at `rate` Hz.  `clips` needs the columns of COLUMNS.
    """
    requests = ({"do": "read", "rate": rate} | row for row in clips.select(COLUMNS).iter_rows(named=True))
    with DecoderPool(workers) as pool:
        for request, reply in pool.map(requests):
            yield request["clip_id"], reply if isinstance(reply, AudioError) else reply["samples"]
