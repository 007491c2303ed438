"""Files that are refused whatever their container: without samples, shorter than a second, silent, not finite, too loud."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

import numpy as np
from coded_files import ogg_pages
from pcm_files import Samples, aiff, caf, pcm, w64, wav
from situations import KINDS, REFUSED, Case, Outcome, Situation
from tunes import spread

WITHOUT_SAMPLES = (
    "wav", "rf64", "w64", "aiff", "aifc", "au", "caf", "flac", "ogg vorbis",
)
FLOATS: dict[str, tuple[Callable[[Samples], bytes], str]] = {
    "wav": (wav, "<"), "w64": (w64, "<"), "caf": (caf, ">"), "aifc": (partial(aiff, compression=b"fl32"), ">"),
}


def situations(seed: int) -> Iterator[Situation]:
    for kind in KINDS.values():
        c = Case(kind, "shorter than a second", seed)
        yield c.situation(lambda c=c: c.kind.encode(c.sound()[: round(0.6 * c.rate)], c.rate), _refused("long"), ffmpeg=False)
        c = Case(kind, "silence", seed)
        yield c.situation(lambda c=c: c.kind.encode(np.zeros((3 * c.rate, c.channels)), c.rate), _refused("silent"),
                          ffmpeg=False)
    for name in WITHOUT_SAMPLES:
        c = Case(KINDS[name], "no samples", seed)
        yield c.situation(lambda c=c: c.kind.encode(np.zeros((0, c.channels)), c.rate), _refused(), ffmpeg=False)
    for name in ("opus", "ogg flac"):
        c = Case(KINDS[name], "headers without sound", seed)
        yield c.situation(lambda c=c: b"".join(page.to_bytes() for page in list(ogg_pages(c.encode()))[:2]), _refused(),
                          ffmpeg=False)
    for name, (write, order) in FLOATS.items():
        for what, value, says in (("a NaN inside", np.nan, "NaN"), ("an infinity inside", np.inf, "NaN|infinite")):
            c = Case(KINDS[name], what, seed)
            yield c.situation(partial(_with_sample, c, write, order, value), _refused(says), ffmpeg=False)
        c = Case(KINDS[name], "thirty times too loud", seed)
        loud = c.tune.louder(30)
        yield c.situation(lambda c=c, loud=loud, write=write, order=order: write(pcm(
            spread(loud, c.rate, c.channels), c.rate, 32, order=order, is_float=True)), _refused("peak"), ffmpeg=False)


def _with_sample(case: Case, write: Callable[[Samples], bytes], order: str, value: float) -> bytes:
    """A file of floats, one of which is `value`."""
    sound = case.sound()
    sound[len(sound) // 3, 0] = value
    return write(pcm(sound, case.rate, 32, order=order, is_float=True))


def _refused(says: str = "") -> Outcome:
    return Outcome(kind=REFUSED, says=says)
