"""Decode by libsndfile: WAV, FLAC, AIFF, Ogg Vorbis and more."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from tonelake.ingest.libraries import import_library
from tonelake.ingest.mono import Block
from tonelake.ingest.readers import DecoderError, Reader

UNKNOWN_FRAMES = 1 << 62                 # libsndfile reports this, or 0, if the header has no length


def open_sndfile(
    path: Path, first_s: int = 0, *, promised_s: float | None = None, seeks: bool = True, unsafe_end: int = 0,
    exact: bool = False,
) -> Reader:
    """Open a file from second `first_s`.

    `promised_s`: exact length by the header; `exact`: the library's own is.  `seeks`: whether its seeks are exact, except into
    the last `unsafe_end` samples; where they are not, what precedes is decoded and dropped.
    Raises DecoderError if libsndfile does not read it.
    """
    sf = import_library("soundfile")
    try:
        file = sf.SoundFile(os.fsencode(path))                       # bytes: the name may not be UTF-8
    except sf.LibsndfileError as error:
        why = str(error).split(": ", 1)[-1].rstrip(".")
        raise DecoderError(f"{path.name}: is not audio that can be read ({why})") from error
    if not file.frames < UNKNOWN_FRAMES or (first_s and seeks and not file.seekable()):
        file.close()
        raise DecoderError(f"{path.name}: has no length")
    rate = file.samplerate
    first = first_s * rate
    seek_to = max(0, min(first, file.frames - unsafe_end)) if seeks else 0
    if exact:
        promised_s = file.frames / rate

    def blocks() -> Iterator[Block]:
        at, drop = seek_to, first - seek_to
        try:
            if seek_to:
                file.seek(seek_to)
            # Blocks of a second: `mono` needs whole seconds.
            while len(block := file.read(rate, dtype="float32", always_2d=True)):
                at += len(block)
                block, drop = block[drop:], max(0, drop - len(block))
                yield rate, block
        except (sf.LibsndfileError, RuntimeError) as error:
            text = f"decoding fails at {at / rate:.1f} s ({error}): the file is truncated or damaged"
            raise DecoderError(f"{path.name}: {text}") from error

    return Reader(
        rate=rate, channels=file.channels, promised_s=promised_s, blocks=blocks(), first=first, close=file.close, exact=exact
    )
