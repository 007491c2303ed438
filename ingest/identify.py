"""Identify files without adding them to a lake: what the table of files holds of each."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from tonelake.ingest.decoder_pool import DecoderPool
from tonelake.ingest.errors import AudioError
from tonelake.ingest.file_stamps import is_gone, is_trusted, stamp_of
from tonelake.store import STAMP, cores


def identify_files(sources: Sequence[str], workers: int | None = None) -> Iterator[tuple[str, dict[str, Any] | None]]:
    """Yield (source, its recording, digest, stamp and tags) for each file; None in their place for a file that does not exist.

    A file that cannot be read has no digest.
    """
    stamps = {source: stamp_of(source) for source in sources}
    with DecoderPool(workers or cores()) as pool:
        for request, reply in pool.map({"do": "identify", "source": source} for source in sources):
            source = request["source"]
            if isinstance(reply, AudioError):
                yield source, None if is_gone(source) else {"recording": None, "digest": None}
                continue
            stamp = stamps[source]
            values = stamp if stamp is not None and is_trusted(stamp) else (None, None, None)
            yield source, reply["tags"] | {"recording": reply["recording"], "digest": reply["digest"]} | dict(
                zip(STAMP, values, strict=True)
            )
