"""Files cut short, padded, with junk around the music, and with holes inside."""

from __future__ import annotations

import re
from collections.abc import Iterator

from situations import FLAGGED, KINDS, READ, REFUSED, Case, Outcome, Situation

STREAMS = ("mp3 no xing", "adts", "mp2", "ac3")
WITHOUT_FRAMING = ("wav", "rf64", "w64", "aiff", "aifc", "au", "caf", "caf alac")  # no checksum: a hole is not noticed
PADDINGS = {
    "a newline behind": b"\n", "a zero behind": b"\0", "1,000 zeros behind": bytes(1_000),
    "300,000 zeros behind": bytes(300_000),
    "text behind": b"<html><body>the connection was closed by the server</body></html>\r\n" * 60,
}


def situations(seed: int) -> Iterator[Situation]:
    for kind in KINDS.values():
        for keep in (0.3, 0.6, 0.85):
            yield _cut(Case(kind, f"{keep:.0%} kept", seed), keep)
        yield _one_byte_short(Case(kind, "one byte short", seed))
        for name, padding in PADDINGS.items():
            case = Case(kind, name, seed)
            yield case.situation(lambda case=case, padding=padding: case.encode() + padding, ffmpeg=kind.ffmpeg_ends)
        case = Case(kind, "random bytes behind", seed)
        yield case.situation(lambda case=case: case.encode() + _junk(case, 700), ffmpeg=kind.ffmpeg_ends)
        if kind.name not in WITHOUT_FRAMING:
            yield _hole(Case(kind, "a hole of zeros", seed))
            if kind.name != "m4a alac":  # as above
                yield _noise(Case(kind, "a hole of noise", seed))
    for name in ("mp3 cbr", "mp3 vbr", *STREAMS):
        case = Case(KINDS[name], "2,000 zeros before", seed)
        yield case.situation(lambda case=case: bytes(2_000) + case.encode(), case.delayed())
        case = Case(KINDS[name], "text before", seed)
        yield case.situation(lambda case=case: b"HTTP/1.0 200 OK\r\nServer: Icecast\r\n\r\n" + case.encode(),
                             case.delayed(), case.delayed(FLAGGED))
    for name in ("opus", "ogg vorbis", "ogg flac"):
        yield _missing_page(Case(KINDS[name], "a page missing", seed))
        yield _no_last_page(Case(KINDS[name], "no last page", seed))


def _junk(case: Case, size: int) -> bytes:
    """Random bytes below 0x80, among which no decoder finds the head of a frame."""
    return case.rng.integers(0, 0x80, size, dtype="u1").tobytes()


def _prefix(case: Case, how: str, keep: float) -> Outcome:
    """At most the whole tune, at least a good part of what was kept."""
    return Outcome(kind=how, tune=case.tune, seconds=(0.4 * keep * case.tune.seconds, (keep + 0.25) * case.tune.seconds + 0.15),
                   lag_s=max(case.kind.lag_s, 0.002), level=case.kind.level, purity=case.kind.purity)


def _cut(case: Case, keep: float) -> Situation:
    """Refused, or read as far as it goes with a flag; a stream that states no length may do without one."""
    right = [_prefix(case, FLAGGED, keep), Outcome(kind=REFUSED)]
    if not case.kind.states_length:
        right = [_prefix(case, READ, keep), right[0]]
        if keep * case.tune.seconds < 1.5:
            right.append(Outcome(kind=REFUSED, says="clips need at least"))
        elif case.kind.name == "m4a fragmented":                     # the heads of fragments state more than follows
            right.append(Outcome(kind=REFUSED, says="truncated"))

    def data() -> bytes:
        whole = case.encode()
        return whole[: int(len(whole) * keep)]

    return case.situation(data, *right, ffmpeg=False)


def _one_byte_short(case: Case) -> Situation:
    """At most one frame is lost, or one page: read or flagged, never refused, unless an index at the end is incomplete.

    A page of Ogg can hold seconds, so that its loss must be flagged.
    """
    paged = case.kind.name in ("ogg vorbis", "ogg flac", "opus")
    most = (case.tune.seconds - (1.6 if paged else 0.35), case.tune.seconds + max(case.kind.length_s, 0.06))
    right = [case.outcome(how, seconds=most) for how in ((FLAGGED,) if paged else (READ, FLAGGED))]
    if paged or case.kind.name in ("m4a aac", "m4a alac", "flac", "caf alac"):
        right.append(Outcome(kind=REFUSED))
    return case.situation(lambda: case.encode()[:-1], *right, ffmpeg=False)


def _hole(case: Case) -> Situation:
    """Zeros over a tenth of the file, in its middle."""
    def data() -> bytes:
        whole = case.encode()
        first, last = int(len(whole) * 0.5), int(len(whole) * 0.6)
        return whole[:first] + bytes(last - first) + whole[last:]

    return case.situation(data, *_damaged(case), ffmpeg=False)


def _noise(case: Case) -> Situation:
    def data() -> bytes:
        whole = case.encode()
        first, last = int(len(whole) * 0.5), int(len(whole) * 0.56)
        return whole[:first] + case.rng.integers(0, 256, last - first, dtype="u1").tobytes() + whole[last:]

    return case.situation(data, *_damaged(case), ffmpeg=False)


def _damaged(case: Case) -> tuple[Outcome, ...]:
    """Flagged, with the beginning as it was, or refused."""
    start = type(case.tune)(case.tune.notes[:1])
    return (
        Outcome(kind=FLAGGED, tune=start, seconds=(0.3 * case.tune.seconds, 1.3 * case.tune.seconds + 0.2),
                lag_s=max(case.kind.lag_s, 0.005), level=0.15, purity=0.9),
        Outcome(kind=REFUSED),
    )


def _pages(data: bytes) -> list[bytes]:
    starts = [found.start() for found in re.finditer(b"OggS\0", data)]
    return [data[start:end] for start, end in zip(starts, [*starts[1:], len(data)], strict=True)]


def _missing_page(case: Case) -> Situation:
    case.tune = case.tune.then(case.new_tune()).then(case.new_tune())            # long enough for several pages

    def data() -> bytes:
        pages = _pages(case.encode())
        return b"".join(page for number, page in enumerate(pages) if number != (len(pages) + 2) // 2)

    return case.situation(data, *_damaged(case), ffmpeg=False)


def _no_last_page(case: Case) -> Situation:
    """As a recording that was stopped: flagged, since a cut file looks like it."""
    case.tune = case.tune.then(case.new_tune()).then(case.new_tune())
    right = [Outcome(kind=how, tune=case.tune, seconds=(1.0, case.tune.seconds), lag_s=case.kind.lag_s, level=case.kind.level,
                     purity=case.kind.purity) for how in (FLAGGED,)]
    return case.situation(lambda: b"".join(_pages(case.encode())[:-1]), *right, Outcome(kind=REFUSED), ffmpeg=False)
