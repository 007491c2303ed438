"""The decoding process.  Run by `ingest.decoder_pool`, one request a line on standard input, until it closes.

A reply is one line of JSON, followed by as many bytes of float32 samples as it says.  No pickle crosses the pipe, and
nothing this process does, a crash included, can harm the one that asked.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path

MEMORY_LIMIT = 8 << 30                   # bytes of address space: a decompression bomb ends here, not in swap


def answer(request: dict) -> tuple[dict, bytes]:
    """Do one request: `digest`, `scan`, `parse` or `read`."""
    from tonelake.ingest.chorale_scores import load_score
    from tonelake.ingest.scan import file_digest, promised_length, scan_file
    from tonelake.ingest.sources import read_source, to_path
    from tonelake.ingest.tags import read_tags

    source = request["source"]
    if request["do"] == "digest":
        length_s = promised_length(to_path(source)) if request.get("length") else None
        return {"digest": file_digest(to_path(source)), "length_s": length_s}, b""
    if request["do"] == "scan":
        path: Path = to_path(source)
        return {"scan": scan_file(path).to_dict(), "tags": read_tags(path)}, b""
    if request["do"] == "parse":
        return {"score": load_score(source.removeprefix("chorale:")).to_dict()}, b""
    samples = read_source(source, request["start_s"], request["duration_s"], request["rate"], request.get("digest"))
    return {"samples": len(samples)}, samples.astype("<f4").tobytes()


def main() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)                     # Ctrl-C is the parent's to handle
    replies = os.fdopen(os.dup(1), "wb")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)                     # whatever a library prints stays out of the replies
    try:
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (MEMORY_LIMIT, resource.getrlimit(resource.RLIMIT_AS)[1]))
    except (ImportError, ValueError, OSError):
        pass                                                         # not on this platform
    from tonelake.store import TonelakeError

    for line in sys.stdin.buffer:
        try:
            head, body = answer(json.loads(line))
        except TonelakeError as error:
            head, body = {"error": str(error)}, b""
        except Exception as error:       # a decoder library's own surprise: this file fails, the next one may not
            head, body = {"error": f"{type(error).__name__}: {error}"}, b""
        replies.write(json.dumps(head | {"bytes": len(body)}).encode() + b"\n")
        replies.write(body)
        replies.flush()


if __name__ == "__main__":
    main()
