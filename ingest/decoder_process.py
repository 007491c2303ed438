"""The decoder process, run by `ingest.decoder_pool`.  Reads one request a line from standard input until it closes.

Once its imports worked it writes the line READY.  A reply is one line of JSON, followed by as many bytes of float32 samples
as it states.  No pickle crosses the pipe, and nothing that this process does, a crash included, can harm its parent.
"""

from __future__ import annotations

import importlib
import json
import os
import signal
import sys
from functools import cache
from pathlib import Path

READY = b"tonelake decoder: ready\n"
NICENESS = 10                            # a tenth of the time of a process of usual priority, where both want a processor
MEMORY_LIMIT = 8 << 30                   # bytes of address space: a decompression bomb fails here instead of swapping
# Modules of ingest; decoding libraries are loaded when they are needed.
ALWAYS_USED = ("chorale_scores", "recording_hash", "scan", "sources", "tags")


def answer(request: dict) -> tuple[dict, bytes]:
    """Reply to one request, whose `do` is `digest`, `length`, `identify`, `scan`, `parse`, `events`, `read` or `libraries`."""
    from tonelake.ingest.chorale_scores import load_score
    from tonelake.ingest.chorale_sources import parse_chorale
    from tonelake.ingest.libraries import library_versions
    from tonelake.ingest.scan import MIN_SECONDS, file_digest, promised_length, scan_file
    from tonelake.ingest.sources import local_file, read_source
    from tonelake.ingest.tags import read_all_tags

    source, skip = request["source"], request.get("skip", 0)
    if request["do"] == "libraries":
        return {"libraries": library_versions()}, b""
    if request["do"] == "length":
        return {"length_s": promised_length(local_file(source))}, b""
    if request["do"] == "digest":
        path = local_file(source)
        length_s = promised_length(path) if request.get("length") else None
        return {"digest": file_digest(path), "length_s": length_s}, b""
    if request["do"] == "scan":
        path = local_file(source)
        scan = scan_file(path, skip, request.get("shortest_s", MIN_SECONDS))
        recording = request.get("recording") or identify(path, scan.digest, skip)
        return {"scan": scan.to_dict(), "recording": recording, "tags": read_all_tags(path)}, b""
    if request["do"] == "identify":
        path = local_file(source)
        length_s = promised_length(path) if request.get("length") else None
        digest = file_digest(path)
        return {
            "digest": digest, "recording": identify(path, digest, skip), "tags": read_all_tags(path), "length_s": length_s,
        }, b""
    if request["do"] == "events":
        from tonelake.ingest.events.reading import answer_events

        return answer_events(request), b""
    if request["do"] == "parse":
        return {"score": load_score(parse_chorale(source).name).to_dict()}, b""
    give_way()
    samples = read_source(source, request["start_s"], request["duration_s"], request["rate"], request.get("digest"), skip)
    return {"samples": len(samples)}, samples.astype("<f4").tobytes()


def identify(path: Path, digest: str, skip: int) -> str:
    """The recording in a file.  If a library crashed on the file (`skip`), it is not asked to demux it."""
    from tonelake.ingest.recording_hash import recording_of, recording_of_bytes

    return recording_of_bytes(digest) if skip else recording_of(path, digest)


@cache
def give_way() -> None:
    """Lower this process's priority, once: an encoder that shares the processors with it waits for its slowest thread.

    If samples are what the encoder waits for, the processors are free, and the priority does not matter.
    """
    if hasattr(os, "nice"):
        os.nice(NICENESS)


def main() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)                     # the parent handles Ctrl-C
    replies = os.fdopen(os.dup(1), "wb")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)                     # output of libraries must not mix with the replies
    try:
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (MEMORY_LIMIT, resource.getrlimit(resource.RLIMIT_AS)[1]))
    except (ImportError, ValueError, OSError):
        pass                                                         # not available on this platform
    for name in ALWAYS_USED:
        importlib.import_module(f"tonelake.ingest.{name}")
    from tonelake.ingest.errors import DecoderStartError
    from tonelake.store import TonelakeError

    replies.write(READY)
    replies.flush()
    for line in sys.stdin.buffer:
        request = json.loads(line)
        try:
            head, body = answer(request)
        except DecoderStartError as error:
            head, body = {"broken": str(error)}, b""
        except ImportError as error:
            head, body = {"broken": f"decoder process: {error}. Check the installation with `tonelake doctor`"}, b""
        except TonelakeError as error:
            head, body = {"error": str(error)}, b""
        except Exception as error:       # unexpected error of a decoding library: it concerns this file only
            head, body = {"error": f"{Path(request['source']).name}: cannot be decoded ({type(error).__name__}: {error})"}, b""
        replies.write(json.dumps(head | {"bytes": len(body)}).encode() + b"\n")
        replies.write(body)
        replies.flush()


if __name__ == "__main__":
    main()
