"""Sample formats and codecs that a container may hold, and files under the name of another format."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

from coded_files import with_vbri
from pcm_files import Samples, aiff, au, caf, chunk, w64, wav, wav_format
from situations import KINDS, LOSSY, REFUSED, Case, Kind, Outcome, Situation

ROUGH = {"level": 0.1, "purity": 0.95}   # 8 bits and mu-law
ROUGHER = {"level": 0.12, "purity": 0.9, "length_s": 0.1}            # ADPCM and GSM, in whole blocks
FRAMED = LOSSY | {"length_s": 0.12, "lag_s": 0.06}
RATES = (8_000, 16_000, 22_050, 44_100, 48_000)
CODED_RATES = (32_000, 44_100, 48_000)
RARE_RATES = (6_000, 11_025, 37_800, 88_200, 96_000, 192_000)
FLOAT = {"is_float": True}
# Name of a codec of AIFF-C, bits, and how the samples are encoded.
AIFC = (
    (b"sowt", 16, {"order": "<"}), (b"NONE", 24, {}), (b"twos", 16, {}), (b"in24", 24, {}), (b"in32", 32, {}),
    (b"fl32", 32, FLOAT), (b"FL32", 32, FLOAT), (b"fl64", 64, FLOAT),
)
AU = ((2, 8, {}), (3, 16, {}), (4, 24, {}), (5, 32, {}), (6, 32, FLOAT), (7, 64, FLOAT))
CAF = ((16, "<", {}), (24, ">", {}), (24, "<", {}), (32, "<", {}), (32, "<", FLOAT), (64, ">", FLOAT))
# Container, suffix, FFmpeg's name of the container, its codec, exactness.
CODECS: tuple[tuple[str, str, str, str, dict[str, Any]], ...] = (
    ("mp4", ".mp4", "mp4", "libmp3lame", FRAMED), ("mp4", ".mp4", "mp4", "libopus", LOSSY), ("mp4", ".mp4", "mp4", "flac", {}),
    ("mov", ".mov", "mov", "pcm_s16be", {}), ("mov", ".mov", "mov", "pcm_s24le", {}), ("mov", ".mov", "mov", "aac", LOSSY),
    ("mka", ".mka", "matroska", "libmp3lame", FRAMED), ("mka", ".mka", "matroska", "pcm_s16le", {"length_s": 0.002}),
    ("mka", ".mka", "matroska", "libopus", LOSSY), ("mka", ".mka", "matroska", "alac", {"length_s": 0.1}),
    ("wav", ".wav", "wav", "libmp3lame", FRAMED), ("nut", ".nut", "nut", "libopus", FRAMED),
    ("avi", ".avi", "avi", "libmp3lame", FRAMED), ("flv", ".flv", "flv", "libmp3lame", FRAMED),
    ("latm", ".latm", "latm", "aac", FRAMED), ("aiff", ".aif", "aiff", "pcm_s16le", {}),
    ("caf", ".caf", "caf", "pcm_mulaw", ROUGH), ("caf", ".caf", "caf", "alac", {}),
    ("3gp", ".3gp", "3gp", "aac", LOSSY), ("ogg flac", ".ogg", "ogg", "flac", {}),
)
NAMES = (                                # container, and the suffix of another one
    ("mp3 cbr", ".wav"), ("mp3 no xing", ".wav"), ("wav", ".mp3"), ("m4a aac", ".mp3"), ("adts", ".m4a"), ("flac", ".ogg"),
    ("flac", ".mp3"), ("ogg vorbis", ".mp3"), ("opus", ".ogg"), ("ogg flac", ".flac"), ("aiff", ".wav"), ("wav", ".aiff"),
    ("webm opus", ".opus"), ("w64", ".wav"), ("au", ".wav"),
)


def situations(seed: int) -> Iterator[Situation]:
    for make in (_wav, _wav_codecs, _aiff, _au_caf_w64, _flac, _codecs, _mp3_opus, _renamed):
        yield from make(seed)


def _case(container: str, suffix: str, what: str, seed: int, rates: tuple[int, ...] = RATES, **exact) -> Case:
    return Case(Kind(container, suffix, _not_encoded, rates, **exact), what, seed)


def _not_encoded(*_: Any) -> bytes:
    raise AssertionError("these cases are written by their own functions")


def _wav_of(case: Case, bits: int = 16, *, fmt: dict[str, Any] | None = None, magic: bytes = b"RIFF", **encoding) -> bytes:
    samples = case.pcm(bits, **encoding)
    return wav(samples, fmt=None if fmt is None else wav_format(samples, **fmt), magic=magic)


def _wide(case: Case, *, left: bool, fmt: dict[str, Any]) -> bytes:
    """24 bits at the upper or the lower end of 4 bytes."""
    narrow = case.pcm(24)
    pieces = (narrow.body[at : at + 3] for at in range(0, len(narrow.body), 3))
    if left:
        body = b"".join(b"\0" + piece for piece in pieces)
    else:
        body = b"".join(piece + (b"\xff" if piece[2] & 0x80 else b"\0") for piece in pieces)
    samples = Samples(body, narrow.channels, narrow.rate, 32)
    return wav(samples, fmt=wav_format(samples, **fmt))


def _wav(seed: int) -> Iterator[Situation]:
    case = partial(_case, "wav", ".wav", seed=seed)
    for bits in (16, 24, 32):
        c = case(what=f"{bits} bits, extensible")
        yield c.situation(partial(_wav_of, c, bits, fmt={"valid_bits": bits}))
    c = case(what="20 valid of 24 bits")
    yield c.situation(partial(_wav_of, c, 24, fmt={"valid_bits": 20}))
    c = case(what="12 bits in 16, to the left")
    yield c.situation(partial(_wav_of, c, 16, fmt={"bits": 12}))
    c = case(what="float of 32 bits, extensible")
    yield c.situation(partial(_wav_of, c, 32, fmt={"valid_bits": 32}, **FLOAT))
    c = case(what="float of 64 bits")
    yield c.situation(partial(_wav_of, c, 64, **FLOAT))
    c = case(what="8 bits", **ROUGH)
    yield c.situation(partial(_wav_of, c, 8, unsigned=True))
    c = case(what="24 valid of 32 bits, extensible")                 # FFmpeg 5 takes them for 3 bytes
    yield c.situation(partial(_wide, c, left=True, fmt={"valid_bits": 24}), ffmpeg=False)
    for left in (True, False):           # WAVEFORMATEX defines neither
        c = case(what=f"24 bits in 4 bytes, to the {'left' if left else 'right'}")
        yield c.situation(partial(_wide, c, left=left, fmt={"bits": 24}), c.outcome(), Outcome(kind=REFUSED), ffmpeg=False)
    c = case(what="integers of 64 bits")
    yield c.situation(partial(_wav_of, c, 64), c.outcome(), Outcome(kind=REFUSED, says="64"))
    for bits in (16, 24, 32):
        c = case(what=f"RIFX of {bits} bits")                        # FFmpeg ignores the order of the bytes
        yield c.situation(partial(_wav_of, c, bits, order=">", magic=b"RIFX"), ffmpeg=False)
    for rate in RARE_RATES:
        c = case(what=f"{rate} Hz", rates=(rate,))
        yield c.situation(partial(_wav_of, c))
    for bits in (8, 24):
        rough = ROUGH if bits == 8 else {}
        c = case(what=f"an odd number of bytes of {bits} bits, and a chunk behind", channels=(1,), **rough)
        yield c.situation(partial(_odd, c, bits), c.outcome(seconds=(c.tune.seconds - 0.001, c.tune.seconds + 0.001)))


def _odd(case: Case, bits: int) -> bytes:
    samples = case.pcm(bits, unsigned=bits == 8)
    body = samples.body if len(samples.body) % 2 else samples.body[: -samples.block]
    title = chunk(b"LIST", b"INFO" + chunk(b"INAM", b"a title of some length\0\0"))
    return wav(Samples(body, samples.channels, samples.rate, samples.bits), after=title)


def _wav_codecs(seed: int) -> Iterator[Situation]:
    for subtype in ("ULAW", "ALAW", "IMA_ADPCM", "MS_ADPCM", "GSM610", "G721_32"):
        c = _case("wav", ".wav", subtype, seed, (8_000, 16_000, 22_050), channels=(1,), **ROUGHER)
        yield c.situation(partial(c.by_sndfile, "WAV", subtype), ffmpeg=subtype != "G721_32")
    for codec in ("adpcm_ima_wav", "adpcm_ms", "pcm_mulaw"):
        c = _case("wav", ".wav", f"{codec}, by FFmpeg", seed, **ROUGHER)
        yield c.situation(partial(c.by_ffmpeg, "wav", codec))
    c = _case("wav", ".wav", "aac inside", seed, CODED_RATES, **FRAMED)          # FFmpeg writes it and cannot read it
    yield c.situation(partial(c.by_ffmpeg, "wav", "aac"), c.outcome(), Outcome(kind=REFUSED, says="aac-inside"), ffmpeg=False)


def _aiff(seed: int) -> Iterator[Situation]:
    def make(case: Case, width: int, order: str = ">", is_float: bool = False, **fields) -> bytes:
        return aiff(case.pcm(width, order=order, is_float=is_float), **fields)

    for bits in (8, 16, 24, 32):
        c = _case("aiff", ".aiff", f"{bits} bits", seed, **(ROUGH if bits == 8 else {}))
        yield c.situation(partial(make, c, bits))
    c = _case("aiff", ".aiff", "12 bits in 16", seed)
    yield c.situation(partial(make, c, 16, bits=12))
    for name, bits, encoding in AIFC:
        c = _case("aifc", ".aif", name.decode(), seed)
        yield c.situation(partial(make, c, bits, compression=name, **encoding))
    for subtype in ("ULAW", "ALAW", "IMA_ADPCM", "GSM610"):
        c = _case("aifc", ".aif", subtype, seed, (8_000, 16_000), channels=(1,), **ROUGHER)
        yield c.situation(partial(c.by_sndfile, "AIFF", subtype), ffmpeg=subtype != "GSM610")


def _au_caf_w64(seed: int) -> Iterator[Situation]:
    for code, bits, encoding in AU:
        c = _case("au", ".au", f"encoding {code}", seed, **(ROUGH if bits == 8 else {}))
        yield c.situation(lambda c=c, code=code, bits=bits, more=encoding: au(c.pcm(bits, order=">", **more), code))
    for bits, order, encoding in CAF:
        what = f"{'float' if encoding else 'integers'} of {bits} bits, {'little' if order == '<' else 'big'} endian"
        c = _case("caf", ".caf", what, seed)
        yield c.situation(lambda c=c, bits=bits, order=order, more=encoding: caf(
            c.pcm(bits, order=order, **more), little=order == "<"))
    for bits, encoding in ((24, {}), (32, {}), (32, FLOAT), (64, FLOAT)):
        c = _case("w64", ".w64", f"{'float' if encoding else 'integers'} of {bits} bits", seed)
        yield c.situation(lambda c=c, bits=bits, more=encoding: w64(c.pcm(bits, **more)))


def _flac(seed: int) -> Iterator[Situation]:
    for subtype in ("PCM_S8", "PCM_24"):
        c = _case("flac", ".flac", subtype, seed, **(ROUGH if subtype == "PCM_S8" else {}))
        yield c.situation(partial(c.by_sndfile, "FLAC", subtype))
    c = _case("flac", ".flac", "655,350 Hz", seed, (655_350,), channels=(1,))
    yield c.situation(partial(c.by_sndfile, "FLAC", "PCM_16"))
    c = _case("flac", ".flac", "24 bits, by FFmpeg", seed)
    yield c.situation(partial(c.by_ffmpeg, "flac", "flac", sample_format="s32"))
    for block in (16, 65_535):
        c = _case("flac", ".flac", f"blocks of {block:,} samples", seed)
        yield c.situation(partial(c.by_ffmpeg, "flac", "flac", codec_options={"frame_size": str(block)}))


def _codecs(seed: int) -> Iterator[Situation]:
    """Codecs in containers where they are rare, and sound beside pictures."""
    for name, suffix, container, codec, exact in CODECS:
        rates = (48_000,) if codec == "libopus" else (44_100,) if container in ("flv", "avi") else CODED_RATES
        c = _case(name, suffix, f"{codec} inside", seed, rates, **exact)
        yield c.situation(partial(c.by_ffmpeg, container, codec))
    for picture, container in (("video", "mp4"), ("cover", "mov")):
        c = _case("mp4", ".mp4", f"a {picture} before the sound", seed, CODED_RATES, **LOSSY)
        yield c.situation(partial(c.by_ffmpeg, container, "aac", extra_streams=[picture]))


def _mp3_opus(seed: int) -> Iterator[Situation]:
    for rate in (8_000, 11_025, 12_000, 16_000):
        c = _case("mp3", ".mp3", f"{rate} Hz", seed, (rate,), **(LOSSY | {"length_s": 0.08}))
        yield c.situation(partial(c.by_ffmpeg, "mp3", "libmp3lame"))
    for mode in ("CONSTANT", "AVERAGE", "VARIABLE"):
        c = _case("mp3", ".mp3", f"by libsndfile, {mode.lower()} bit rate", seed, CODED_RATES, **LOSSY)
        yield c.situation(partial(c.by_sndfile, "MP3", "MPEG_LAYER_III", compression_level=0.5, bitrate_mode=mode))
    c = _case("mp3", ".mp3", "header of Fraunhofer's encoder", seed, CODED_RATES, **LOSSY)
    bare = partial(c.by_ffmpeg, "mp3", "libmp3lame", quality=3, options={"id3v2_version": "0"})
    yield c.situation(lambda: with_vbri(bare()), c.delayed())
    c = _case("opus", ".opus", "by libsndfile", seed, (8_000, 16_000, 24_000, 48_000), **LOSSY)
    yield c.situation(partial(c.by_sndfile, "OGG", "OPUS"))


def _renamed(seed: int) -> Iterator[Situation]:
    for name, suffix in NAMES:
        c = Case(KINDS[name], f"named {suffix}", seed)
        yield c.situation(c.encode, suffix=suffix)
