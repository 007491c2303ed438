"""Files whose header states no length, a wrong one, or a time at which they do not begin."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

from coded_files import mp3_frames, ogg_pages, with_granules, with_xing_frames
from pcm_files import aiff, au, caf, chunk, rf64, w64, wav, wav_format
from situations import FLAGGED, KINDS, READ, REFUSED, Case, Outcome, Situation

# Sizes that programs write if they cannot return to the header: GStreamer and FFmpeg 0; SoX, LAME and espeak 0x7FFFF000;
# arecord 0x80000000; FFmpeg and mpg123 0xFFFFFFFF; SoX in AIFF 0x7F000008; FFmpeg in RF64 0, in Wave64 2^63 - 1.
PLACEHOLDERS = (0, 0x7FFFF000, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)
LONG_PLACEHOLDERS = (0, 2**63 - 1, 2**64 - 1)
INFO = chunk(b"LIST", b"INFO" + chunk(b"ISFT", b"Lavf59.27.100\0"))
# Containers whose time stamps can begin late: FFmpeg's name, codec and options.
TIMED = {
    "webm opus": ("webm", "libopus", {}), "mka flac": ("matroska", "flac", {}), "mka aac": ("matroska", "aac", {}),
    "mpegts aac": ("mpegts", "aac", {}), "m4a aac": ("ipod", "aac", {}), "wma": ("asf", "wmav2", {}),
    "m4a fragmented": ("mp4", "aac", {"movflags": "frag_keyframe+empty_moov", "frag_duration": "500000"}),
}
PIPED = {
    "wma": ("asf", "wmav2"), "tta": ("tta", "tta"), "wavpack": ("wv", "wavpack"), "ogg flac": ("ogg", "flac"),
    "opus": ("ogg", "libopus"), "mp3 vbr": ("mp3", "libmp3lame"),
}


def situations(seed: int) -> Iterator[Situation]:
    for make in (_streamed_pcm, _long_placeholders, _streamed, _late, _begun_midway):
        yield from make(seed)
    for make in (_wrong_sizes, _wrong_fields, _wrong_length):
        yield from make(seed)


def _case(kind: str, what: str, seed: int) -> Case:
    return Case(KINDS[kind], what, seed)


def _wav_of(case: Case, bits: int = 16, *, fmt: dict[str, Any] | None = None, **fields) -> bytes:
    samples = case.pcm(bits)
    return wav(samples, fmt=None if fmt is None else wav_format(samples, **fmt), **fields)


def _aiff_of(case: Case, order: str = ">", **fields) -> bytes:
    return aiff(case.pcm(order=order), **fields)


def _streamed_pcm(seed: int) -> Iterator[Situation]:
    """Sizes of 32 bits written before the length was known.  FFmpeg reads nothing from several of these, its own included."""
    for size in PLACEHOLDERS:
        stated = f"stream of size {size:#x}"
        riff = min(size + 36, 0xFFFFFFFF) if size else 0
        c = _case("wav", stated, seed)
        yield c.situation(partial(_wav_of, c, data_size=size, riff_size=riff))
        c = _case("wav", f"{stated}, 24 bits, extensible, a LIST before", seed)
        yield c.situation(partial(_wav_of, c, 24, fmt={"valid_bits": 24}, data_size=size, riff_size=riff, before=INFO))
        c = _case("aiff", stated, seed)
        frames = size if size >= 0x80000000 else size // (2 * c.channels)
        yield c.situation(partial(_aiff_of, c, frames=frames, data_size=size, form_size=riff), ffmpeg=False)
        c = _case("aifc", stated, seed)
        frames = size if size >= 0x80000000 else size // (2 * c.channels)
        yield c.situation(partial(_aiff_of, c, "<", compression=b"sowt", frames=frames, data_size=size, form_size=size),
                          ffmpeg=False)
    c = _case("aiff", "stream of SoX", seed)
    yield c.situation(partial(_aiff_of, c, frames=0x7F000000 // (2 * c.channels), data_size=0x7F000008, form_size=0x7F000050))
    c = _case("au", "stream", seed)
    yield c.situation(lambda c=c: au(c.pcm(order=">"), 3, size=0xFFFFFFFF))
    c = _case("caf", "stream", seed)
    yield c.situation(lambda c=c: caf(c.pcm(order=">"), size=-1))


def _long_placeholders(seed: int) -> Iterator[Situation]:
    """Sizes of 64 bits written before the length was known."""
    for size in LONG_PLACEHOLDERS:
        c = _case("rf64", f"stream of size {size:#x}", seed)
        yield c.situation(lambda c=c, size=size: rf64(c.pcm(), data=size, riff=size, frames=0), ffmpeg=False)
        c = _case("w64", f"stream of size {size:#x}", seed)
        yield c.situation(lambda c=c, size=size: w64(c.pcm(), data=size, riff=2**64 - 1),
                          *([c.outcome()] if size else _undefined(c)), ffmpeg=False)
    for size in PLACEHOLDERS[1:]:
        c = _case("w64", f"stream of size {size:#x}", seed)
        yield c.situation(lambda c=c, size=size: w64(c.pcm(), data=size + 24))
        c = _case("rf64", f"ds64 of size {size:#x}", seed)
        yield c.situation(lambda c=c, size=size: rf64(c.pcm(), data=size, riff=size + 72, frames=size // 4))
        c = _case("rf64", f"chunk of size {size:#x}, with a ds64 that counts", seed)
        yield c.situation(lambda c=c, size=size: rf64(c.pcm(), chunk_size=size),
                          *([c.outcome()] if size == 0xFFFFFFFF else _undefined(c)))


def _undefined(case: Case) -> list[Outcome]:
    """A header that its specification does not define may be refused as well."""
    return [case.outcome(), case.outcome(FLAGGED), Outcome(kind=REFUSED)]


def _streamed(seed: int) -> Iterator[Situation]:
    """Compressed files written before the length was known."""
    c = _case("flac", "stream", seed)
    yield c.situation(lambda c=c: _flac_frames(c.encode(), 0))
    c = _case("flac", "stream without a digest and frame sizes", seed)
    yield c.situation(partial(_bare_flac, c))
    c = _case("mp3 vbr", "stream: a Xing header that counts nothing", seed)
    yield c.situation(lambda c=c: with_xing_frames(c.encode(), 0), c.delayed())
    c = _case("mp3 vbr", "stream: LAME's first frame left empty", seed)
    yield c.situation(partial(_empty_first_frame, c), c.delayed())
    for kind in ("webm opus", "mka flac", "mka aac"):
        container, codec, _ = TIMED[kind]
        c = _case(kind, "live stream, without sizes and duration", seed)
        yield c.situation(partial(c.by_ffmpeg, container, codec, bit_rate=128_000, options={"live": "1"}, seekable=False),
                          c.delayed())
    for kind, (container, codec) in PIPED.items():
        c = _case(kind, "written to a pipe", seed)
        yield c.situation(partial(c.by_ffmpeg, container, codec, bit_rate=128_000, seekable=False), c.delayed())
    for flags in ("frag_keyframe+empty_moov", "dash+frag_keyframe+empty_moov+global_sidx", "cmaf"):
        c = _case("m4a fragmented", flags.replace("+", " "), seed)
        yield c.situation(partial(c.by_ffmpeg, "mp4", "aac", bit_rate=160_000,
                                  options={"movflags": flags, "frag_duration": "700000"}))
    c = _case("m4a aac", "index before the sound", seed)
    yield c.situation(partial(c.by_ffmpeg, "ipod", "aac", bit_rate=160_000, options={"movflags": "faststart"}))


def _flac_frames(data: bytes, frames: int) -> bytes:
    """A FLAC with another number of samples in its STREAMINFO: 36 bits from the lower half of byte 21."""
    return data[:21] + bytes([data[21] & 0xF0 | frames >> 32]) + struct.pack(">I", frames & 0xFFFFFFFF) + data[26:]


def _bare_flac(case: Case) -> bytes:
    data = bytearray(_flac_frames(case.encode(), 0))
    data[12:18], data[26:42] = bytes(6), bytes(16)                   # sizes of frames, MD5
    return bytes(data)


def _empty_first_frame(case: Case) -> bytes:
    data = case.encode()
    start = data.index(b"\xff", 10 + int.from_bytes(data[8:10], "big"))
    first = mp3_frames(data[start:])[0]
    return first[:4] + bytes(len(first) - 4) + data[start + len(first) :]


def _late(seed: int) -> Iterator[Situation]:
    """Segments of a longer stream: their time stamps begin late."""
    for kind in ("opus", "ogg vorbis", "ogg flac"):
        for offset_s in (5, 3_600):
            c = _case(kind, f"begins at {offset_s:,} s", seed)
            yield c.situation(lambda c=c, offset_s=offset_s: with_granules(c.encode(), offset_s * c.rate))
    c = _case("opus", "end trimmed by the last page", seed)
    yield c.situation(partial(_with_end, c, -300), c.outcome(seconds=(c.tune.seconds - 0.03, c.tune.seconds)))
    for kind, (container, codec, options) in TIMED.items():
        for offset_s in (7, 600):
            c = _case(kind, f"begins at {offset_s} s", seed)
            yield c.situation(partial(c.by_ffmpeg, container, codec, bit_rate=128_000, start_s=offset_s,
                                      options=options | {"avoid_negative_ts": "disabled"}), c.delayed())


def _with_end(case: Case, samples: int) -> bytes:
    """An Ogg stream whose last page is so many samples later."""
    data = case.encode()
    return with_granules(data, 0, end=list(ogg_pages(data))[-1].granule + samples)


def _begun_midway(seed: int) -> Iterator[Situation]:
    """Recorded streams, which begin in the middle of a frame."""
    for kind in ("mp3 no xing", "adts", "mp2", "ac3"):
        c = _case(kind, "begins in the middle of a frame, as a recorded stream does", seed)
        rest = c.tune.after(0.6)
        bounds = (rest.seconds - 0.6, c.tune.seconds)
        yield c.situation(partial(_without_start, c), *(Outcome(kind=how, seconds=bounds) for how in (READ, FLAGGED)))


def _without_start(case: Case) -> bytes:
    data = case.encode()
    return data[round(len(data) * 0.5 / case.tune.seconds) + 7 :]


def _wrong_sizes(seed: int) -> Iterator[Situation]:
    """PCM whose header states half of the length that there is, or twice."""
    makers: dict[str, Callable[[Case, float], bytes]] = {
        "wav": lambda c, factor: wav(s := c.pcm(), data_size=int(s.frames * factor) * s.block),
        "aiff": lambda c, factor: aiff(s := c.pcm(order=">"), frames=(n := int(s.frames * factor)), data_size=n * s.block + 8),
        "au": lambda c, factor: au(s := c.pcm(order=">"), 3, size=int(s.frames * factor) * s.block),
        "caf": lambda c, factor: caf(s := c.pcm(order=">"), size=int(s.frames * factor) * s.block + 4),
        "w64": lambda c, factor: w64(s := c.pcm(), data=int(s.frames * factor) * s.block + 24),
        "rf64": lambda c, factor: rf64(s := c.pcm(), frames=(n := int(s.frames * factor)), data=n * s.block),
    }
    for kind, make in makers.items():
        c = _case(kind, "half of its length stated", seed)
        half = (c.tune.seconds * 0.45, c.tune.seconds * 0.55)
        yield c.situation(partial(make, c, 0.5), c.outcome(), c.outcome(FLAGGED), c.outcome(FLAGGED, seconds=half),
                          ffmpeg=False)
        c = _case(kind, "twice its length stated", seed)
        yield c.situation(partial(make, c, 2.0), c.outcome(FLAGGED), Outcome(kind=REFUSED), ffmpeg=False)


def _wrong_fields(seed: int) -> Iterator[Situation]:
    """Fields beside the length that are wrong, and chunks around the sound."""
    for what, factor in (("a byte rate of 0", 0), ("half the byte rate", 0.5), ("ten times the byte rate", 10)):
        c = _case("wav", what, seed)
        yield c.situation(partial(_wav_of, c, fmt={"byte_rate": int(2 * c.channels * c.rate * factor)}))
    for what, factor in (("a fact chunk that states half", 0.5), ("a fact chunk that states twice", 2)):
        c = _case("wav", what, seed)
        fact = chunk(b"fact", struct.pack("<I", int(c.tune.seconds * c.rate * factor)))
        yield c.situation(partial(_wav_of, c, before=fact))
    for what, size in (("of 0", 0), ("that is too small", 1_000), ("that is too large", 10**8)):
        c = _case("wav", f"a RIFF size {what}", seed)
        yield c.situation(partial(_wav_of, c, riff_size=size))
    c = _case("aiff", "no number of samples", seed)
    yield c.situation(partial(_aiff_of, c, frames=0))
    c = _case("wav", "chunks around the data, one of an odd size", seed)
    yield c.situation(partial(_wav_of, c, before=chunk(b"JUNK", bytes(27)) + chunk(b"bext", bytes(602)) + INFO,
                              after=chunk(b"cue ", bytes(28))))
    c = _case("aiff", "chunks around the sound, one of an odd size", seed)
    yield c.situation(partial(_aiff_of, c, before=chunk(b"NAME", b"title", order=">"),
                              after=chunk(b"ANNO", b"a remark", order=">")))


def _wrong_length(seed: int) -> Iterator[Situation]:
    """Compressed files whose header states another length than there is."""
    c = _case("flac", "a quarter of its length stated", seed)
    quarter = (c.tune.seconds * 0.2, c.tune.seconds * 0.3)
    yield c.situation(lambda c=c: _flac_frames(c.encode(), round(c.tune.seconds * c.rate / 4)), c.outcome(), c.outcome(FLAGGED),
                      c.outcome(FLAGGED, seconds=quarter), ffmpeg=False)
    c = _case("flac", "twice its length stated", seed)
    yield c.situation(lambda c=c: _flac_frames(c.encode(), round(c.tune.seconds * c.rate * 2)), c.outcome(FLAGGED),
                      Outcome(kind=REFUSED), ffmpeg=False)
    for kind in ("mp3 cbr", "mp3 vbr"):
        c = _case(kind, "half of its frames stated", seed)
        yield c.situation(lambda c=c: with_xing_frames(data := c.encode(), _stated(data) // 2), c.outcome(joins=1),
                          c.outcome(FLAGGED, joins=1), ffmpeg=False)
        c = _case(kind, "twice its frames stated", seed)
        yield c.situation(lambda c=c: with_xing_frames(data := c.encode(), _stated(data) * 2), c.outcome(FLAGGED, joins=1),
                          Outcome(kind=REFUSED), ffmpeg=False)
    for kind in ("ogg vorbis", "opus"):
        c = _case(kind, "a last page with a time far too late", seed)
        yield c.situation(partial(_with_end, c, 5 * c.rate), c.outcome(FLAGGED, joins=1), Outcome(kind=REFUSED), ffmpeg=False)
    for factor in (0.5, 2.0):
        for kind in ("m4a aac", "m4a alac"):
            c = _case(kind, f"{factor:g} times its length in mvhd and tkhd", seed)
            yield c.situation(lambda c=c, factor=factor: _movie_duration(c.encode(), factor))
        for kind in ("webm opus", "mka flac"):
            c = _case(kind, f"{factor:g} times its length stated", seed)
            yield c.situation(lambda c=c, factor=factor: _matroska_duration(c.encode(), factor),
                              *(_undefined(c) if factor > 1 else [c.outcome()]), ffmpeg=False)


def _stated(data: bytes) -> int:
    """The number of frames in the Xing or Info header of an mp3."""
    at = max(data.find(b"Xing", 0, 4096), data.find(b"Info", 0, 4096))
    return int.from_bytes(data[at + 8 : at + 12], "big")


def _movie_duration(data: bytes, factor: float) -> bytes:
    """An mp4 with another duration in its movie and track headers; samples, media header and edit list keep theirs."""
    out = bytearray(data)
    for name, offset in ((b"mvhd", 20), (b"tkhd", 24)):
        at = data.index(name) + offset
        out[at : at + 4] = struct.pack(">I", int(int.from_bytes(data[at : at + 4], "big") * factor))
    return bytes(out)


def _matroska_duration(data: bytes, factor: float) -> bytes:
    """A Matroska with another Duration, a float of 8 bytes behind its identifier 0x4489."""
    at = data.index(b"\x44\x89\x88") + 3
    return data[:at] + struct.pack(">d", struct.unpack(">d", data[at : at + 8])[0] * factor) + data[at + 8 :]
