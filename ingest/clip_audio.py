"""Read the samples of a lake's clips, decoded ahead in worker processes.  The stage before the encoder."""

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
    """Yield (clip id, samples) for each row of `clips`, in order; an AudioError in place of samples that cannot be read.

    Samples: (samples,) float32 at `rate` Hz.  `clips` needs the columns of COLUMNS.
    Raises DecoderStartError if the installation cannot decode.
    """
    requests = ({"do": "read", "rate": rate} | row for row in clips.select(COLUMNS).iter_rows(named=True))
    with DecoderPool(workers) as pool:
        for request, reply in pool.map(requests):
            yield request["clip_id"], reply if isinstance(reply, AudioError) else reply["samples"]
