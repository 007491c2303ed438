"""Choose the decoders of a file by its content: which library, from which bytes, and whether it may seek.

A file may hold several in sequence: joined WAVs, FLACs, MP4s, and chained Ogg streams; each is decoded by itself.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import lru_cache, partial
from pathlib import Path

from tonelake.ingest.errors import AudioError
from tonelake.ingest.ffmpeg_reader import open_ffmpeg
from tonelake.ingest.flac_frames import flac_parts
from tonelake.ingest.mono import Block
from tonelake.ingest.mpeg_frames import mpeg_streams
from tonelake.ingest.mpeg_reader import open_mpeg
from tonelake.ingest.ogg_pages import Link, ogg_links
from tonelake.ingest.pcm_headers import FORMS, PcmHeader, after_samples, read_header
from tonelake.ingest.pcm_reader import can_read, open_pcm, sample_bytes
from tonelake.ingest.readers import DecoderError, Reader
from tonelake.ingest.sndfile_reader import open_sndfile
from tonelake.ingest.tag_blocks import audio_end, audio_start, file_bytes, find_all, skip_padding
from tonelake.ingest.text_links import link_text

Open = Callable[[Path, int], Reader]     # (path, first second)
MAX_PARTS = 1_000                        # files in one
EXTRA_S, EXTRA_BYTES = 0.1, 4_096        # more behind the declared end is reported
ASF_PROPERTIES = bytes.fromhex("a1dcab8c47a9cf118ee400c00c205365")
WAVPACK = b"wvpk"
STARTS = (b"TTA1\1\0", WAVPACK, bytes.fromhex("3026b2758e66cf11a6d900aa0062ce6c"))    # the last: ASF
VIDEO = (b"\0\0\1\xba", b"\x1aE\xdf\xa3", b"0&\xb2u", b"FLV\1")      # MPEG-PS, Matroska, ASF, FLV: no search for mp3 frames


def decoders(path: Path) -> list[Open]:
    """Functions that open a file, in the order in which they are tried.  Raises AudioError if it cannot be read at all."""
    try:
        if path.is_dir():
            raise AudioError(f"{path.name}: is a folder named like an audio file")
        stat = path.stat()
        if not stat.st_size:
            raise AudioError(f"{path.name}: is empty (0 bytes)")
        if (target := link_text(path)) is not None:
            raise AudioError(
                f"{path.name}: is a link to {target} that was unpacked as text. Unpack the archive where links can be made"
            )
        return _decoders_of_state(path, stat.st_mtime_ns, stat.st_size)
    except OSError as error:
        raise AudioError(f"{path.name}: cannot be read: {error.strerror or error}") from error


@lru_cache(maxsize=8)                    # clips of one file follow each other
def _decoders_of_state(path: Path, _mtime_ns: int, _size: int) -> list[Open]:
    with file_bytes(path) as data:
        start = audio_start(data)
        mark = data[start : start + 12]
        is_stream = data[0:1] == data[188:189] == b"G"               # an MPEG transport stream
    for marks, at, choose in CHOICES:
        if mark[at : at + 4] in marks:
            return choose(path, start)
    parts = _repeated(path)
    if len(parts) > 1:
        return [partial(_open_joined, [partial(_open_part, part=part) for part in parts], None)]
    if mark[:4] not in VIDEO and not is_stream and mpeg_streams(path):
        return [open_mpeg, _by_ffmpeg, _by_sndfile]
    return [_by_ffmpeg, _by_sndfile]


def _by_ffmpeg(path: Path, first_s: int) -> Reader:
    """FFmpeg takes tags around some formats for damage, so it is given the bytes between them."""
    start, end = _audio_start(path), _audio_end(path)
    part = (start, end) if start or end < path.stat().st_size else None
    reader = open_ffmpeg(path, first_s, part=part)
    reader.here = _asf_here(path)
    return reader


def _open_part(path: Path, _: int, *, part: tuple[int, int]) -> Reader:
    return open_ffmpeg(path, 0, part=part)


def _repeated(path: Path) -> list[tuple[int, int]]:
    """Bytes of each file in a file, for formats that FFmpeg reads to the end of the first."""
    with file_bytes(path) as data:
        start, end = audio_start(data), audio_end(data)
        mark = next((mark for mark in STARTS if data[start : start + len(mark)] == mark), None)
        starts = [start]
        for at in find_all(data, mark) if mark else ():
            if len(starts) == MAX_PARTS or at + len(mark or b"") > end:
                break
            if at > start and (mark != WAVPACK or _starts_wavpack(data[at : at + 32])):
                starts.append(at)
    return list(zip(starts, [*starts[1:], end], strict=True))


def _starts_wavpack(block: bytes) -> bool:
    """Whether a WavPack block is the first of a file: it begins at sample 0 and is the first of its channels."""
    return len(block) == 32 and not any(block[16:20]) and any(block[20:24]) and bool(block[25] & 8)


def _audio_start(path: Path) -> int:
    with file_bytes(path) as data:
        return audio_start(data)


def _audio_end(path: Path) -> int:
    with file_bytes(path) as data:
        return audio_end(data)


def _asf_here(path: Path) -> float:
    """Share of an ASF (wma) that the file has, by the size in its header; 1 for other formats.  ASF 1.20, section 3.2."""
    with path.open("rb") as file:
        head = file.read(8_192)
    at = head.find(ASF_PROPERTIES)
    stated = int.from_bytes(head[at + 40 : at + 48], "little") if head[:4] == VIDEO[2] and at > 0 else 0
    return min(1.0, path.stat().st_size / stated) if stated else 1.0


def _by_sndfile(path: Path, first_s: int) -> Reader:
    return open_sndfile(path, first_s, seeks=False)


# -- WAV, RF64, Wave64, AIFF

def _pcm(path: Path, start: int) -> list[Open]:
    headers, extra = _pcm_headers(path, start)
    if not headers:
        return [_by_sndfile, _by_ffmpeg]
    head = headers[0]
    promises = [header.promised_s for header in headers]
    promised_s = sum(filter(None, promises)) if all(promises) else None
    order: list[Open] = [
        partial(_open_sndfile, promised_s=promised_s),
        partial(_open_ffmpeg, promised_s=promised_s, part=(start, _audio_end(path)) if start else None),
    ]
    if all(can_read(header) for header in headers):
        own = partial(_open_pcm, headers=headers)
        order = [own, *order] if len(headers) > 1 or start or _is_odd(head) else [*order, own]
    extra = extra or (len(headers) > 1 and order[0].func is not _open_pcm)  # type: ignore[attr-defined]
    return [partial(_noted, choice, extra, headers[-1].here) for choice in order]


def _open_pcm(path: Path, first_s: int, *, headers: list[PcmHeader]) -> Reader:
    return open_pcm(path, headers, first_s)


def _open_sndfile(path: Path, first_s: int, *, promised_s: float | None) -> Reader:
    return open_sndfile(path, first_s, promised_s=promised_s)


def _open_ffmpeg(path: Path, first_s: int, *, promised_s: float | None, part: tuple[int, int] | None) -> Reader:
    return open_ffmpeg(path, first_s, promised_s=promised_s, part=part, trust_container=False)


def _pcm_headers(path: Path, start: int) -> tuple[list[PcmHeader], bool]:
    """Headers of the files in a file, and whether bytes behind their declared end are not read."""
    headers: list[PcmHeader] = []
    with file_bytes(path) as data:
        end = audio_end(data)
        at: int | None = start
        while at is not None and len(headers) < MAX_PARTS:
            header = read_header(path, at)
            if header is None:
                break
            headers.append(header)
            at, behind = after_samples(path, header, end)
            if behind:
                behind = end - skip_padding(data, end - behind)
            if behind and behind > max(EXTRA_BYTES, EXTRA_S * header.rate * header.frame_bytes):
                return headers, True
    return headers, False


def _is_odd(header: PcmHeader) -> bool:
    """Whether the libraries misread samples, or their number, that the header describes."""
    width = sample_bytes(header)
    if header.size is None or header.wide or (width == 8 and header.coding == "integer"):
        return True
    disagree = header.frames is not None and abs(header.size // header.frame_bytes - header.frames) > 1
    return disagree or (header.coding == "integer" and width != -(-header.bits // 8))


def _noted(choice: Open, extra: bool, here: float, path: Path, first_s: int) -> Reader:
    reader = choice(path, first_s)
    reader.extra, reader.here = reader.extra or extra, here
    return reader


# -- FLAC

def _flac(path: Path, start: int) -> list[Open]:
    parts = flac_parts(path)
    if not parts:
        return [_by_sndfile, _by_ffmpeg]
    promises = [None if part.longer or not part.rate else part.samples / part.rate for part in parts]
    by_ffmpeg: list[Open] = [
        partial(_open_flac, part=(part.start, part.end) if start or len(parts) > 1 else None, promised_s=promised)
        for part, promised in zip(parts, promises, strict=True)
    ]
    if len(parts) > 1:
        return [partial(_open_joined, by_ffmpeg, sum(filter(None, promises)) if all(promises) else None)]
    if start or parts[0].longer or not parts[0].samples:
        return [*by_ffmpeg, _by_sndfile]
    return [lambda path, first_s: open_sndfile(path, first_s, promised_s=promises[0]), *by_ffmpeg]


def _open_flac(path: Path, _: int, *, part: tuple[int, int] | None, promised_s: float | None) -> Reader:
    return open_ffmpeg(path, 0, part=part, promised_s=promised_s, trust_container=False)


# -- Ogg

def _ogg(path: Path, start: int) -> list[Open]:
    links = [link for link in ogg_links(path) if link.codec] or ogg_links(path)
    if len(links) > 1:
        return [partial(_open_joined, [partial(_open_link, link=link, whole=False) for link in links], None)]
    if not links:
        return [_by_sndfile, _by_ffmpeg]
    by_ffmpeg = partial(_open_link, link=links[0], whole=not start)
    if links[0].codec == "vorbis" and not start:
        return [partial(_open_vorbis, link=links[0]), by_ffmpeg]
    return [by_ffmpeg, _by_sndfile]


def _open_vorbis(path: Path, first_s: int, *, link: Link) -> Reader:
    """By libsndfile, which seeks wrongly into the last page, and drops damaged pages silently."""
    unsafe = link.granules[-1] - link.granules[-3] if len(link.granules) >= 3 else None
    return open_sndfile(path, first_s, seeks=unsafe is not None, unsafe_end=unsafe or 0, exact=True)


def _open_link(path: Path, first_s: int, *, link: Link, whole: bool) -> Reader:
    if len(link.granules) < 3 or link.lost_pages:
        first_s = 0
    part = None if whole else (link.start, link.end)
    if link.begins_late and link.first_granule is not None and not link.lost_pages:
        # FFmpeg counts the first packets of such a stream from 0.  The promise leaves the first page out.
        reader = open_ffmpeg(path, 0, part=part, in_order=True, trust_container=False)
        reader.promised_s = (link.granules[-1] - link.first_granule) / reader.rate
        return reader
    return open_ffmpeg(path, first_s, part=part, last_granules=link.granules)


# -- MP4

def _mp4(path: Path, start: int) -> list[Open]:
    parts = _mp4_parts(path, start)
    if len(parts) > 1:
        return [partial(_open_joined, [partial(_open_part, part=part) for part in parts], None)]
    return [_by_ffmpeg, _by_sndfile]


def _mp4_parts(path: Path, start: int) -> list[tuple[int, int]]:
    """Bytes of the files in a file: each begins with `ftyp` and has a `moov`.  ISO/IEC 14496-12, section 4.2."""
    starts, has_movie, at, size = [start], False, start, path.stat().st_size
    with path.open("rb") as file:
        while at + 8 <= size and len(starts) < MAX_PARTS:
            file.seek(at)
            head = file.read(16)
            length, name = int.from_bytes(head[:4], "big"), head[4:8]
            if length == 1:
                length = int.from_bytes(head[8:16], "big")
            if name == b"ftyp" and has_movie:
                starts.append(at)
                has_movie = False
            has_movie = has_movie or name == b"moov"
            if length < 8:
                break
            at += length
    return list(zip(starts, [*starts[1:], size], strict=True))


# -- what is demuxed: `ingest.recording_hash`

def pcm_headers(path: Path) -> list[PcmHeader]:
    """Headers of the WAV, AIFF or similar files in a file; empty if it is of another format."""
    with file_bytes(path) as data:
        start = audio_start(data)
        is_pcm = data[start : start + 4] in FORMS
    return _pcm_headers(path, start)[0] if is_pcm else []


def is_mpeg(path: Path) -> bool:
    """Whether a file is decoded frame by frame as mp1, mp2, mp3 or ADTS."""
    return decoders(path)[0] is open_mpeg


def audio_parts(path: Path) -> list[tuple[int, int]]:
    """Bytes of each file in a file, without tags around them."""
    with file_bytes(path) as data:
        start, end = audio_start(data), audio_end(data)
        mark = data[start : start + 12]
    if mark[:4] == b"OggS":
        links = [link for link in ogg_links(path) if link.codec] or ogg_links(path)
        return [(link.start, link.end) for link in links] if len(links) > 1 else [(start, end)]
    return _mp4_parts(path, start) if mark[4:8] == b"ftyp" else _repeated(path)


# -- several files in one

def _open_joined(parts: list[Open], promised_s: float | None, path: Path, _: int) -> Reader:
    """Several readers, one after the other, always from the start."""
    head = parts[0](path, 0)
    reader = Reader(rate=head.rate, channels=head.channels, promised_s=promised_s, blocks=iter(()), close=head.close)

    def blocks() -> Iterator[Block]:
        failed = 0
        for number, open_part in enumerate(parts):
            try:
                current = open_part(path, 0) if number else head
            except DecoderError:
                failed += 1
                continue
            reader.close = current.close
            bad, gap_s = reader.bad_packets + failed, reader.gap_s
            for block in current.blocks:
                reader.bad_packets, reader.gap_s, failed = bad + current.bad_packets, gap_s + current.gap_s, 0
                yield block
            current.close()
        reader.extra = failed > 0

    reader.blocks = blocks()
    return reader


CHOICES: tuple[tuple[tuple[bytes, ...], int, Callable[[Path, int], list[Open]]], ...] = (
    (FORMS, 0, _pcm), ((b"fLaC",), 0, _flac), ((b"OggS",), 0, _ogg), ((b"ftyp",), 4, _mp4),
)
