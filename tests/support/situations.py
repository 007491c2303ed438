"""Files in every situation that audio is found in, each with what is right: length, pitch, level, and whether it is accepted.

`situations(seed)` yields them: for each container, files joined, cut short, padded, tagged, streamed, segmented, with wrong
headers, of several channels and in odd sample formats.  Another seed gives other tunes, rates, lengths and places.  A file is
made when `data` is called; `situation_check` compares the result of ingest with what is right.
"""

from __future__ import annotations

import importlib
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import numpy as np
from coded_files import by_ffmpeg, by_sndfile
from pcm_files import Samples, pcm
from tunes import Tune, random_tune, spread

GROUPS = ("channels", "formats", "headers", "joined", "tagged", "damaged", "unusable")
READ, FLAGGED, REFUSED = "read", "flagged", "refused"


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """One right outcome.  `kind`: read without a flag, read with a flag, or refused with a reason."""

    kind: str
    tune: Tune | None = None
    seconds: tuple[float, float] = (0.0, float("inf"))               # bounds of the length
    says: str = ""                                                   # a pattern that the flag or the reason contains
    lag_s: float = 0.002
    level: float = 0.03                                              # largest error of an amplitude, as a share
    purity: float = 0.98                                             # smallest share of a note's energy at its pitch


@dataclass(frozen=True, kw_only=True)
class Situation:
    """A file and its right outcomes; any of them will do."""

    container: str
    name: str
    suffix: str
    data: Callable[[], bytes]
    right: tuple[Outcome, ...]
    title: str | None = None                                         # by its tags
    title_may_be_absent: bool = True                                 # a tag in a rare form may be dropped, never garbled
    ffmpeg: bool = True                                              # whether ffmpeg's own decode is right as well

    @property
    def key(self) -> str:
        return f"{self.container}/{self.name}"

    @property
    def file_name(self) -> str:
        return "".join(letter if letter.isalnum() else "-" for letter in self.key) + self.suffix


@dataclass(frozen=True)
class Kind:
    """A container with a codec: how it is written, and how exact its decode must be."""

    name: str
    suffix: str
    encode: Callable[[np.ndarray, int], bytes]                       # (samples, channels) and rate in Hz -> file
    rates: tuple[int, ...] = (22_050, 32_000, 44_100, 48_000)
    channels: tuple[int, ...] = (1, 2)
    length_s: float = 1e-4                                           # error allowed of the length
    lag_s: float = 0.0005
    level: float = 0.01
    purity: float = 0.999
    states_length: bool = True                                       # whether a file cut short can be noticed
    joins: bool = False                                              # files put one after another are one stream
    ffmpeg_ends: bool = True                                         # FFmpeg stops at the declared end


def _sndfile(container: str, subtype: str) -> Callable[[np.ndarray, int], bytes]:
    return lambda sound, rate: by_sndfile(sound, rate, container, subtype)


def _ffmpeg(container: str, codec: str, **more) -> Callable[[np.ndarray, int], bytes]:
    return lambda sound, rate: by_ffmpeg(sound, rate, container, codec, **more)


LOSSY = {"length_s": 0.03, "level": 0.12, "purity": 0.97, "lag_s": 0.001}
FRAMED = LOSSY | {"length_s": 0.12, "lag_s": 0.06}                   # its encoder's delay is unknown to the decoder
MP3_RATES = (22_050, 24_000, 32_000, 44_100, 48_000)
KINDS = {
    kind.name: kind for kind in (
        Kind("wav", ".wav", _sndfile("WAV", "PCM_16"), channels=(1, 2, 6, 8)),
        Kind("rf64", ".wav", _sndfile("RF64", "PCM_16"), channels=(1, 2, 6, 8)),
        Kind("w64", ".w64", _sndfile("W64", "PCM_16"), channels=(1, 2, 6, 8), ffmpeg_ends=False),
        Kind("aiff", ".aiff", _sndfile("AIFF", "PCM_16"), channels=(1, 2, 6, 8)),
        Kind("aifc", ".aif", _sndfile("AIFF", "FLOAT"), channels=(1, 2, 6, 8)),
        Kind("au", ".au", _sndfile("AU", "PCM_16"), channels=(1, 2, 6, 8), ffmpeg_ends=False),
        Kind("caf", ".caf", _sndfile("CAF", "PCM_16"), channels=(1, 2, 6, 8)),
        Kind("caf alac", ".caf", _sndfile("CAF", "ALAC_16")),
        Kind("flac", ".flac", _sndfile("FLAC", "PCM_16"), channels=(1, 2, 6, 8), joins=True),
        Kind("wavpack", ".wv", _ffmpeg("wv", "wavpack")),
        Kind("tta", ".tta", _ffmpeg("tta", "tta")),
        Kind("ogg vorbis", ".ogg", _sndfile("OGG", "VORBIS"), channels=(1, 2, 6, 8), joins=True, **LOSSY),
        Kind("ogg flac", ".oga", _ffmpeg("ogg", "flac"), channels=(1, 2, 6, 8), joins=True),
        Kind("opus", ".opus", _ffmpeg("ogg", "libopus"), rates=(48_000,), channels=(1, 2, 6, 8), joins=True, **LOSSY),
        Kind("mp3 cbr", ".mp3", _ffmpeg("mp3", "libmp3lame", bit_rate=128_000), MP3_RATES, joins=True, **LOSSY),
        Kind("mp3 vbr", ".mp3", _ffmpeg("mp3", "libmp3lame", quality=3), MP3_RATES, joins=True, **LOSSY),
        Kind("mp3 no xing", ".mp3",
             _ffmpeg("mp3", "libmp3lame", quality=3, options={"write_xing": "0", "id3v2_version": "0"}),
             MP3_RATES, joins=True, states_length=False, **FRAMED),
        Kind("mp2", ".mp2", _ffmpeg("mp2", "mp2", bit_rate=192_000), (32_000, 44_100, 48_000), joins=True, states_length=False,
             **FRAMED),
        Kind("adts", ".aac", _ffmpeg("adts", "aac", bit_rate=128_000), (32_000, 44_100, 48_000), joins=True,
             states_length=False, **FRAMED),
        Kind("ac3", ".ac3", _ffmpeg("ac3", "ac3", bit_rate=192_000), (32_000, 44_100, 48_000), joins=True, states_length=False,
             **FRAMED),
        Kind("m4a aac", ".m4a", _ffmpeg("ipod", "aac", bit_rate=160_000), (32_000, 44_100, 48_000), channels=(1, 2, 6, 8),
             **LOSSY),
        Kind("m4a alac", ".m4a", _ffmpeg("ipod", "alac"), channels=(1, 2)),
        Kind("m4a fragmented", ".m4a", _ffmpeg("mp4", "aac", bit_rate=160_000, options={
            "movflags": "frag_keyframe+empty_moov+default_base_moof", "frag_duration": "500000"}),
            (32_000, 44_100, 48_000), states_length=False, **FRAMED),
        Kind("webm opus", ".webm", _ffmpeg("webm", "libopus"), (48_000,), channels=(1, 2, 6, 8), **LOSSY),
        Kind("mka flac", ".mka", _ffmpeg("matroska", "flac"), length_s=0.002),
        Kind("mka aac", ".mka", _ffmpeg("matroska", "aac", bit_rate=160_000), (32_000, 44_100, 48_000), **FRAMED),
        Kind("mpegts aac", ".ts", _ffmpeg("mpegts", "aac", bit_rate=160_000), (32_000, 44_100, 48_000), states_length=False,
             **FRAMED),
        Kind("wma", ".wma", _ffmpeg("asf", "wmav2", bit_rate=128_000), (32_000, 44_100), length_s=0.2, level=0.12, purity=0.97,
             lag_s=0.1),
    )
}


@dataclass
class Case:
    """Random choices of one situation: the same for a seed, a container and a name."""

    kind: Kind
    name: str
    seed: int
    rng: np.random.Generator = field(init=False)
    rate: int = field(init=False)
    channels: int = field(init=False)
    tune: Tune = field(init=False)

    def __post_init__(self) -> None:
        self.rng = np.random.default_rng([self.seed, zlib.crc32(f"{self.kind.name}/{self.name}".encode())])
        self.rate = int(self.rng.choice(self.kind.rates))
        self.channels = int(self.rng.choice([count for count in self.kind.channels if count <= 2]))
        self.tune = self.new_tune()

    def new_tune(self) -> Tune:
        return random_tune(self.rng, round(float(self.rng.uniform(2.6, 4.4)), 1))

    def sound(self) -> np.ndarray:
        """The tune on the case's channels: (samples, channels) float64."""
        return spread(self.tune, self.rate, self.channels)

    def pcm(self, bits: int = 16, **more) -> Samples:
        return pcm(self.sound(), self.rate, bits, **more)

    def by_sndfile(self, container: str, subtype: str, **more) -> bytes:
        return by_sndfile(self.sound(), self.rate, container, subtype, **more)

    def by_ffmpeg(self, container: str, codec: str, **more) -> bytes:
        return by_ffmpeg(self.sound(), self.rate, container, codec, **more)

    def encode(self, tune: Tune | None = None, *, rate: int | None = None, channels: int | None = None) -> bytes:
        """The case's tune, or another, in its container."""
        rate = rate or self.rate
        return self.kind.encode(spread(tune or self.tune, rate, channels or self.channels), rate)

    def outcome(self, how: str = READ, tune: Tune | None = None, *, seconds: tuple[float, float] | None = None, says: str = "",
                joins: int = 0, lag_s: float | None = None) -> Outcome:
        """An outcome with the container's exactness; each of `joins` places may add an encoder's delay and padding."""
        tune = tune or self.tune
        extra = 0.1 * joins if self.kind.length_s > 0.01 else 0.0
        if seconds is None:
            seconds = (tune.seconds - self.kind.length_s - extra, tune.seconds + self.kind.length_s + extra)
        lag = self.kind.lag_s if lag_s is None else lag_s
        return Outcome(kind=how, tune=None if how == REFUSED else tune, seconds=seconds, says=says, lag_s=lag + extra,
                       level=self.kind.level, purity=self.kind.purity)

    def delayed(self, how: str = READ) -> Outcome:
        """Read in full, with the encoder's delay if the codec has one: the header that states it is missing or not found."""
        if self.kind.length_s < 0.01:
            return self.outcome(how)
        bounds = (self.tune.seconds - max(0.05, self.kind.length_s), self.tune.seconds + 0.15)
        return self.outcome(how, seconds=bounds, lag_s=0.1)

    def situation(self, data: Callable[[], bytes], *right: Outcome, **more) -> Situation:
        more = {"suffix": self.kind.suffix} | more
        return Situation(container=self.kind.name, name=self.name, data=data, right=right or (self.outcome(),), **more)


def situations(seed: int = 0) -> Iterator[Situation]:
    """Every situation, with what is right."""
    return (situation for _, situation in grouped_situations(seed))


def grouped_situations(seed: int = 0) -> Iterator[tuple[str, Situation]]:
    """Every situation with the name of its group, which is that of a module: `situations_<group>`."""
    for group in GROUPS:
        for situation in importlib.import_module(f"situations_{group}").situations(seed):
            yield group, situation
