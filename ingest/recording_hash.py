"""Identify the recording in a file by its encoded audio.  path -> 40 hex digits, or `b:` and the digest of the file's bytes.

The hash is blake2b over the audio packets, not decoded, with codec, sample rate and channels.  Tags, covers, padding, seek
tables and the container's headers are not part of it, so it survives retagging, renaming and remuxing.  Boundaries between
packets do not count, since FFmpeg cuts PCM into packets of any size.

PCM, FLAC and MPEG frames are found by their headers, all other packets by FFmpeg's demuxers.  Where several files follow each
other in one, all of them count, as in decoding.  A file that cannot be demuxed to its end is identified by its bytes.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np

from tonelake.ingest.containers import audio_parts, is_mpeg, pcm_headers
from tonelake.ingest.errors import AudioError
from tonelake.ingest.ffmpeg_reader import file_argument
from tonelake.ingest.flac_frames import flac_parts
from tonelake.ingest.libraries import import_library
from tonelake.ingest.mpeg_frames import Stream, mpeg_streams
from tonelake.ingest.pcm_reader import sample_bytes
from tonelake.ingest.readers import DecoderError
from tonelake.ingest.tag_blocks import Bytes, audio_end, audio_start, file_bytes, release

DIGEST_SIZE = 20                         # bytes
BLOCK = 1 << 20                          # bytes hashed at once
LAYERS = {1: "mp1", 2: "mp2", 3: "mp3", 4: "aac"}
ADTS = 4
ADTS_SYNC = 0xFFF0
STREAMINFO = 34                          # bytes

Hasher = Any                             # of hashlib, which has no public type


def recording_of(path: Path, digest: str) -> str:
    """The identity of the recording in a file; `digest`: of the file's bytes (`ingest.scan.file_digest`)."""
    hasher = hashlib.blake2b(digest_size=DIGEST_SIZE)
    try:
        if any(add(path, hasher) for add in (_add_pcm, _add_flac, _add_mpeg, _add_packets)):
            return hasher.hexdigest()
    except (AudioError, OSError, ValueError):
        pass
    return recording_of_bytes(digest)


def recording_of_bytes(digest: str) -> str:
    """The identity of a file of which only the digest of its bytes is known."""
    return f"b:{digest}"


def derived_recording(recording: str, *settings: object) -> str:
    """The identity of audio that is computed from a recording with these settings, such as a separated stem."""
    return hashlib.blake2b("\0".join((recording, *map(str, settings))).encode(), digest_size=DIGEST_SIZE).hexdigest()


def _begin(hasher: Hasher, codec: str, rate: int, channels: int) -> None:
    hasher.update(f"{codec} {rate} {channels}\0".encode())


def _add_bytes(hasher: Hasher, data: Bytes, start: int, end: int) -> None:
    """Hash some bytes of a file, a block at a time; hashed pages leave this process's memory."""
    with memoryview(data) as view:
        for at in range(start, end, BLOCK):
            hasher.update(view[at : min(at + BLOCK, end)])
            release(data, at, min(at + BLOCK, end))


def _add_pcm(path: Path, hasher: Hasher) -> bool:
    """Hash the samples of a WAV, AIFF or similar file as they are stored; False if it is of another kind, or compressed."""
    headers = pcm_headers(path)
    if not headers or any(header.coding == "compressed" or not sample_bytes(header) for header in headers):
        return False
    with file_bytes(path) as data:
        end = audio_end(data)
        for header in headers:
            order = "be" if header.big_endian else "le"
            kind = "f" if header.coding == "float" else "s" if header.signed else "u"
            _begin(hasher, f"pcm_{kind}{header.bits}/{8 * sample_bytes(header)}{order}", header.rate, header.channels)
            _add_bytes(hasher, data, header.start, min(header.start + header.available, end))
    return True


def _add_flac(path: Path, hasher: Hasher) -> bool:
    """Hash the frames of a FLAC file, which follow its metadata blocks; False if it is none.  RFC 9639, section 8."""
    with file_bytes(path) as data:
        start = audio_start(data)
        parts = flac_parts(path) if data[start : start + 4] == b"fLaC" else []
        for part in parts:
            at, is_last = part.start + 4, False
            info = data[at + 4 : at + 4 + STREAMINFO]
            while not is_last and at + 4 <= part.end:
                is_last = bool(data[at] & 0x80)
                at += 4 + int.from_bytes(data[at + 1 : at + 4], "big")
            if at >= part.end:
                return False
            _begin(hasher, "flac", part.rate, (info[12] >> 1 & 7) + 1)
            _add_bytes(hasher, data, at, part.end)
    return bool(parts)


def _add_mpeg(path: Path, hasher: Hasher) -> bool:
    """Hash the frames of an mp1, mp2, mp3 or ADTS file; False if it is none."""
    if not is_mpeg(path):
        return False
    streams = [stream for stream in mpeg_streams(path) if stream.offsets]
    with file_bytes(path) as data:
        for stream in streams:
            _begin(hasher, LAYERS[stream.layer], stream.rate, stream.channels)
            (_add_adts if stream.layer == ADTS else _add_frames)(hasher, data, stream)
    return bool(streams)


def _add_frames(hasher: Hasher, data: Bytes, stream: Stream) -> None:
    starts = np.array(stream.offsets, np.int64)
    ends = starts + np.array(stream.sizes, np.int64)
    gaps = np.flatnonzero(starts[1:] != ends[:-1]) + 1               # frames follow each other without gaps
    for start, end in zip(starts[[0, *gaps]].tolist(), ends[[*(gaps - 1), -1]].tolist(), strict=True):
        _add_bytes(hasher, data, start, min(end, len(data)))


def _add_adts(hasher: Hasher, data: Bytes, stream: Stream) -> None:
    for start, size in zip(stream.offsets, stream.sizes, strict=True):
        hasher.update(_without_adts(data[start : start + size]))


def _add_packets(path: Path, hasher: Hasher) -> bool:
    """Hash the packets that FFmpeg demuxes from each part of a file; False if there are none, or if it fails on the way."""
    av = import_library("av")
    av.logging.set_level(None)
    size = path.stat().st_size
    count = 0
    for part in audio_parts(path):
        file = file_argument(path, None if part == (0, size) else part)
        try:
            with av.open(file, metadata_errors="ignore") as container:
                if not container.streams.audio:
                    return False
                stream = container.streams.audio[0]
                context = stream.codec_context
                has_adts = context.codec.canonical_name == "aac" and not context.extradata
                _begin(hasher, context.codec.canonical_name, context.sample_rate, context.channels)
                for packet in container.demux(stream):
                    if packet.size:
                        hasher.update(_without_adts(bytes(packet)) if has_adts else packet)
                        count += 1
        except (DecoderError, av.error.FFmpegError, ValueError):
            return False
        finally:
            if not isinstance(file, str):
                file.close()
    return count > 0


def _without_adts(packet: bytes) -> bytes:
    """An AAC packet without its ADTS header, as MP4 stores it.  ISO/IEC 14496-3, 1.A.2.2."""
    if len(packet) < 9 or int.from_bytes(packet[:2], "big") & 0xFFF6 != ADTS_SYNC:
        return packet
    return packet[7 if packet[1] & 1 else 9 :]
