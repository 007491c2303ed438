"""The process of one device, started by `embed.device_processes`.

It reads its share as one line of JSON from standard input, and writes a line of JSON to standard output for each clip that is
done, then one with the report.
"""

from __future__ import annotations

import json
import signal
import sys
from dataclasses import asdict
from typing import Any


def main() -> None:
    """Embed one share, and exit with 0, with 1 after an error of ours, or with 130 after an interruption."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)                     # Ctrl-C is the parent's to handle
    signal.signal(signal.SIGTERM, interrupt)
    share = json.loads(sys.stdin.readline())
    out = sys.stdout
    sys.stdout = sys.stderr              # keeps the output of libraries out of the protocol

    def send(**event: Any) -> None:
        print(json.dumps(event), file=out, flush=True)

    from tonelake.store import TonelakeError, prepare_process

    prepare_process(pandas=False)

    try:
        send(report=asdict(embed_share(share, send)))
    except TonelakeError as error:
        send(problem=str(error))
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)


def interrupt(*_: object) -> None:
    """Stop early: encoded clips are still stored, and further signals are ignored meanwhile."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    raise KeyboardInterrupt


def embed_share(share: dict[str, Any], send: Any) -> Any:
    """Embed the clips of a share, reporting each by `send`; returns the report."""
    import polars as pl

    from tonelake.embed.encoders.registry import needs_torch
    from tonelake.embed.pipeline import embed_clips
    from tonelake.embed.settings import encoder_of
    from tonelake.embed.work import object_by_qualified_name
    from tonelake.store import Lake

    lake = Lake(share["lake"], create=False)
    space = lake.spaces.get(share["space"])
    if share["device"] == "cpu" and needs_torch(space.location):
        import torch

        torch.set_num_threads(share["threads"])
    encoder = encoder_of(space, device=share["device"], home=lake.uri)
    mine = pl.Series(share["clip_ids"], dtype=pl.String)

    def report_each(outcomes: Any, total: int, label: str) -> Any:
        for clip_id, outcome in outcomes:
            yield clip_id, outcome
            send(clip=clip_id)

    lake.progress = report_each
    return embed_clips(
        lake, space, encoder, object_by_qualified_name(share["read"]), frames=share["frames"],
        workers=share["workers"], share=mine,
    )


if __name__ == "__main__":
    main()
