"""Files put one after another: of one format, of other rates and channels, tagged, and containers that end before."""

from __future__ import annotations

from collections.abc import Iterator

from coded_files import multiplexed, with_serial
from situations import FLAGGED, KINDS, READ, Case, Outcome, Situation
from tag_blocks import id3v1, id3v2

WITHOUT_A_DELAY = ("ogg flac", "flac")


def situations(seed: int) -> Iterator[Situation]:
    for kind in KINDS.values():
        if not kind.joins:
            yield _behind_the_end(Case(kind, "a second file behind the end", seed))
            continue
        yield _joined(Case(kind, "two joined", seed))
        yield _joined(Case(kind, "three joined", seed), count=3)
        yield _joined(Case(kind, "mono, then stereo", seed), channels=(1, 2))
        yield _joined(Case(kind, "stereo, then mono", seed), channels=(2, 1))
        if len(kind.rates) > 1:
            yield _joined(Case(kind, "another rate behind", seed), rates=(kind.rates[-1], kind.rates[0]))
            yield _joined(Case(kind, "another rate and channel count behind", seed), rates=(kind.rates[0], kind.rates[-2]),
                          channels=(2, 1))
    for name in ("ogg vorbis", "ogg flac", "opus"):
        yield _beside(Case(KINDS[name], "another stream at the same time", seed))
    for name in ("mp3 cbr", "mp3 vbr", "mp3 no xing", "adts"):
        yield _joined(Case(KINDS[name], "two joined, each with its tags", seed), tagged=True)
    for name in ("mp3 no xing", "adts", "mp2"):
        yield _joined(Case(KINDS[name], "zeros between two", seed), between=bytes(3_000))


def _joined(case: Case, count: int = 2, rates: tuple[int, ...] = (), channels: tuple[int, ...] = (), *, tagged: bool = False,
            between: bytes = b"") -> Situation:
    parts = [case.tune, *(case.new_tune() for _ in range(count - 1))]
    whole = parts[0]
    for part in parts[1:]:
        whole = whole.then(part)

    def data() -> bytes:
        pieces = []
        for number, part in enumerate(parts):
            piece = case.encode(part, rate=rates[number] if rates else None, channels=channels[number] if channels else None)
            if case.kind.suffix in (".ogg", ".oga", ".opus"):
                piece = with_serial(piece, 1_000 + number)
            if tagged:
                piece = id3v2(f"Part {number}", "Ada", padding=500) + piece + id3v1(f"Part {number}", "Ada")
            pieces.append(piece)
        return between.join(pieces)

    joins = 0 if case.kind.name in WITHOUT_A_DELAY else count - 1
    first = case.outcome()
    right: list[Outcome] = [case.outcome(READ, whole, joins=joins)]
    if case.kind.name == "flac":         # its header states one length: at least a flag
        right += [case.outcome(FLAGGED, whole, joins=joins), case.outcome(FLAGGED, seconds=first.seconds)]
    return case.situation(data, *right, ffmpeg=False)


def _beside(case: Case) -> Situation:
    """Two streams interleaved: the first one is read."""
    other = case.new_tune()

    def data() -> bytes:
        return multiplexed(with_serial(case.encode(), 1_000), with_serial(case.encode(other), 1_001))

    return case.situation(data, case.outcome(), case.outcome(FLAGGED))


def _behind_the_end(case: Case) -> Situation:
    """A container that states its end: what follows is read, or flagged."""
    other = case.new_tune()
    whole = case.tune.then(other)
    right = [case.outcome(READ, whole, joins=1), case.outcome(FLAGGED, whole, joins=1), case.outcome(FLAGGED)]
    return case.situation(lambda: case.encode() + case.encode(other), *right, ffmpeg=False)
