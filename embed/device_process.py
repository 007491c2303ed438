"""The process of one device.  Run by `embed.device_processes`: its share as one line of JSON on standard input, and a line of JSON
on standard output for each clip that is done, at last the report."""

from __future__ import annotations

import json
import signal
import sys
from dataclasses import asdict
from typing import Any


def main() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)                     # Ctrl-C is the parent's to handle
    signal.signal(signal.SIGTERM, stop)
    share = json.loads(sys.stdin.readline())
    out = sys.stdout
    sys.stdout = sys.stderr              # whatever a library prints stays out of what is said

    def say(**event: Any) -> None:
        print(json.dumps(event), file=out, flush=True)

    from tonelake.store import TonelakeError, prepare_process

    prepare_process()

    try:
        say(report=asdict(work(share, say)))
    except TonelakeError as error:
        say(problem=str(error))
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)


def stop(*_: object) -> None:
    """Ended early: what is encoded is stored, undisturbed by a second signal."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    raise KeyboardInterrupt


def work(share: dict[str, Any], say: Any) -> Any:
    """Embed a share; its report."""
    import polars as pl

    from tonelake.embed.pipeline import embed_clips
    from tonelake.embed.settings import encoder_of
    from tonelake.embed.work import found_again
    from tonelake.store import Lake

    if share["device"] == "cpu":
        import torch

        torch.set_num_threads(share["threads"])
    lake = Lake(share["lake"], create=False)
    space = lake.spaces.get(share["space"])
    encoder = encoder_of(space, device=share["device"], home=lake.uri)
    mine = pl.Series(share["clip_ids"], dtype=pl.String)

    def told(outcomes: Any, total: int, label: str) -> Any:
        for clip_id, outcome in outcomes:
            yield clip_id, outcome
            say(clip=clip_id)

    return embed_clips(
        lake, space, encoder, found_again(share["read"]), frames=share["frames"],
        workers=share["workers"], progress=told, share=mine,
    )


if __name__ == "__main__":
    main()
