"""Decode mp1, mp2, mp3 and ADTS frame by frame: FFmpeg's decoders, fed with the frames that `mpeg_frames` finds.

FFmpeg's own demuxer takes bytes of pictures in tags for frames, and does not reach joined files.  Here, the position of every
sample follows from the number of its frame, so that a seek is exact.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from tonelake.ingest.ffmpeg_reader import reason, silence, to_float
from tonelake.ingest.libraries import import_library
from tonelake.ingest.mono import Block
from tonelake.ingest.mpeg_frames import CODECS, SIDE_INFO, Stream, mpeg_streams
from tonelake.ingest.readers import DecoderError, Reader
from tonelake.ingest.tag_blocks import Bytes, file_bytes

PREROLL_S = 0.5                          # decoded and dropped after a seek: mp3's bit reservoir, AAC's overlap
RESERVOIR, HEADER_BYTES = 511, 6         # of an mp3: longest bit reservoir; header and checksum of a frame
SEEKING_LAYERS = (1, 3, 4)               # FFmpeg's decoder of layer II dithers: its samples depend on those before
CUT_FRAMES = 2                           # may fail at the start: those of a cut stream depend on frames before
PROBED = 50                              # frames decoded to find out the output of an AAC stream


def open_mpeg(path: Path, first_s: int = 0) -> Reader:
    """Open an mp3 or ADTS file from second `first_s`; from the start where seeking is not exact.

    Raises DecoderError if the file does not begin with such frames.
    """
    streams = mpeg_streams(path)
    if not streams:
        raise DecoderError(f"{path.name}: is not audio that can be read (it has no frames of mp3 or AAC)")
    head = streams[0]
    rate, frame_samples = head.rate, head.frame_samples
    if head.layer == 4:                  # spectral band replication doubles the rate
        rate, frame_samples = _probe(path, head)
    seeks = len(streams) == 1 and head.layer in SEEKING_LAYERS and not head.holes
    reader = Reader(
        rate=rate, channels=head.channels or 2, promised_s=_promised_s(streams), blocks=iter(()),
        first=first_s * rate if seeks else 0,
    )
    reader.blocks = _blocks(path, streams, reader, frame_samples)
    return reader


def _promised_s(streams: list[Stream]) -> float | None:
    """Length by the numbers of frames, if each file has one, without the encoder's delay and padding."""
    if not all(stream.counted for stream in streams):
        return None
    samples = [(stream.keep or (stream.counted or 0) * stream.frame_samples) - stream.skip for stream in streams]
    return sum(count / stream.rate for count, stream in zip(samples, streams, strict=True))


def _probe(path: Path, stream: Stream) -> tuple[int, int]:
    """(rate, samples of a frame) of an AAC stream, by decoding its first frames."""
    av = import_library("av")
    decoder = _decoder(stream)
    with file_bytes(path) as data:
        for offset, size in zip(stream.offsets[:PROBED], stream.sizes[:PROBED], strict=True):
            try:
                for frame in decoder.decode(av.Packet(data[offset : offset + size])):
                    return frame.sample_rate, frame.samples
            except av.error.FFmpegError:
                continue
    raise DecoderError(f"{path.name}: its first frames do not decode")


def _decoder(stream: Stream) -> Any:
    av = import_library("av")
    av.logging.set_level(None)
    return av.CodecContext.create(CODECS[stream.layer], "r")


def _blocks(path: Path, streams: list[Stream], reader: Reader, frame_samples: int) -> Iterator[Block]:
    decoder: Any = None
    with file_bytes(path) as data:
        for stream in streams:
            if decoder is None or stream.counted or stream.layer != streams[0].layer:
                decoder = _decoder(stream)
            size = frame_samples if stream is streams[0] else stream.frame_samples
            first = reader.first + stream.skip if stream is streams[0] else stream.skip
            number = _begin_at(stream, first // size) if reader.first else 0
            at = number * size           # samples before the next block, the encoder's delay included
            for rate, block in _decoded(path.name, data, stream, decoder, number, size, reader):
                for part in _cut(block, at, first, stream):
                    yield rate, part
                at += len(block)


def _begin_at(stream: Stream, number: int) -> int:
    """Frame at which decoding begins so that frame `number` is exact: what it depends on precedes it by PREROLL_S, and by the
    bytes of the longest bit reservoir, which are many frames at low bit rates."""
    begin, found = min(number, len(stream.offsets)), 0
    side = HEADER_BYTES + SIDE_INFO.get((stream.frame_samples, stream.channels), 0)
    earliest = begin - int(PREROLL_S * stream.rate / stream.frame_samples) - 1
    while begin > 0 and (begin > earliest or found < RESERVOIR):
        begin -= 1
        found += max(1, stream.sizes[begin] - side) if begin < number - 2 else 0
    return begin


def _cut(block: np.ndarray, at: int, first: int, stream: Stream) -> Iterator[np.ndarray]:
    """The part of a block at sample `at` without the samples before `first` and without the encoder's padding."""
    padding = (len(block), len(block))
    if stream.keep is not None and stream.counted:
        end = stream.counted * stream.frame_samples
        padding = (min(max(stream.keep - at, 0), len(block)), min(max(end - at, 0), len(block)))
    start = min(max(first - at, 0), len(block))
    for part in (block[start : padding[0]], block[max(start, padding[1]) :]):
        if len(part):
            yield part


def _decoded(
    name: str, data: Bytes, stream: Stream, decoder: Any, number: int, frame_samples: int, reader: Reader
) -> Iterator[Block]:
    """Decode the frames of a stream from `number` on; one that fails becomes silence if later ones decode."""
    av = import_library("av")
    lost_frames = max(0, (stream.counted or 0) - len(stream.offsets))
    failed, absent, started = 0, 0, False                            # since the last frame that decoded; any before
    trouble: BaseException | None = None
    rate = stream.rate
    for index in range(number, len(stream.offsets)):
        offset, size = stream.offsets[index], stream.sizes[index]
        if index in stream.holes:
            mean_size = (offset - stream.holes[index] - stream.offsets[0]) / index if index else size
            missing = min(lost_frames, round(stream.holes[index] / max(1, mean_size)))
            lost_frames, absent, failed = lost_frames - missing, absent + missing, failed + 1
            reader.gap_s += missing * frame_samples / rate
        try:
            frames = decoder.decode(av.Packet(data[offset : offset + size]))
        except av.error.MemoryError:
            raise
        except av.error.FFmpegError as error:
            failed, absent, trouble = failed + 1, absent + 1, error
            continue
        for frame in frames:
            block = to_float(frame, name)
            rate = frame.sample_rate
            for part in silence(absent * frame_samples, block.shape[1]):
                yield rate, part
            if started or failed > CUT_FRAMES:                       # an error with audio behind it is damage
                reader.bad_packets += failed
            failed, absent, started = 0, 0, True
            yield rate, block
    if trouble is not None and not started:
        raise DecoderError(f"{name}: decoding fails ({reason(trouble)})") from trouble
