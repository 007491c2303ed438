"""Pages of an Ogg file: the streams that follow each other in it, their time stamps, and what is missing.

A granule position is the number of samples up to the end of the last packet that ends on a page.  It may begin anywhere
(RFC 7845, section 4.5).  Source: RFC 3533.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

from tonelake.ingest.tag_blocks import Bytes, audio_start, file_bytes

CONTINUED, FIRST, LAST = 1, 2, 4         # flags of a page
CODECS = {b"\x01vorbis": "vorbis", b"OpusHead": "opus", b"\x7fFLAC": "flac", b"Speex   ": "speex"}
KEPT_GRANULES = 8                        # of the last pages of a stream


@dataclass(kw_only=True)
class Link:
    """One logical stream of a file; several follow each other in a chained file."""

    start: int                           # bytes
    end: int
    serial: int
    codec: str | None = None             # None: not audio, or a rare codec
    granules: list[int] = field(default_factory=list)    # of the last KEPT_GRANULES pages that end a packet, increasing
    first_granule: int | None = None     # of the first page with audio
    first_packets: int = 0               # up to the end of that page, those of the header included
    block_samples: int = 0               # longest packet of a FLAC stream
    pages: int = 0
    number: int = 0                      # of the last page
    lost_pages: int = 0                  # pages missing before a later one
    ended: bool = False                  # the last page is marked as such

    @property
    def begins_late(self) -> bool:
        """Whether a FLAC stream's time stamps begin above 0: its first packets could not hold as many samples."""
        return self.first_granule is not None and self.first_granule > self.first_packets * self.block_samples > 0


def ogg_links(path: Path) -> list[Link]:
    """The streams that follow each other in an Ogg file; empty if it is of another format."""
    stat = path.stat()
    return _links_of_state(path, stat.st_mtime_ns, stat.st_size)


@lru_cache(maxsize=8)                    # clips of one file follow each other
def _links_of_state(path: Path, _mtime_ns: int, _size: int) -> list[Link]:
    with file_bytes(path) as data:
        start = audio_start(data)
        return _walk(data, start) if data[start : start + 4] == b"OggS" else []


def _walk(data: Bytes, at: int) -> list[Link]:
    links: list[Link] = []
    beginning = False                    # at the first pages of a link, one for each of its multiplexed streams
    while (page := data[at : at + 27]) and len(page) == 27:
        if page[:4] != b"OggS" or page[4]:
            found = data.find(b"OggS\0", at + 1)
            if found < 0:
                break
            at = found
            continue
        segments = data[at + 27 : at + 27 + page[26]]
        body = at + 27 + page[26]
        end = body + sum(segments)
        flags, serial, number = page[5], int.from_bytes(page[14:18], "little"), int.from_bytes(page[18:22], "little")
        if flags & FIRST:
            codec = next((name for mark, name in CODECS.items() if data[body : body + len(mark)] == mark), None)
            if not beginning or not links:
                links.append(Link(start=at, end=end, serial=serial, codec=codec))
            elif links[-1].codec is None and codec is not None:      # a video stream came first
                links[-1].serial, links[-1].codec = serial, codec
            beginning = True
        else:
            beginning = False
            if links and end > len(data) and serial == links[-1].serial:
                links[-1].ended = False
            if not links:
                links.append(Link(start=at, end=end, serial=serial))
        if end <= len(data):             # a page that is cut off does not end its stream
            link = links[-1]
            if serial == link.serial and link.first_granule is None:
                link.first_packets += sum(size < 255 for size in segments)
            if flags & FIRST and link.codec == "flac" and serial == link.serial:
                link.block_samples = int.from_bytes(data[body + 19 : body + 21], "big")
            _note(link, page, flags, serial, number)
        links[-1].end = min(end, len(data))
        at = end
    return links


def _note(link: Link, page: bytes, flags: int, serial: int, number: int) -> None:
    """Add one page to its link."""
    if serial != link.serial:
        return
    if link.pages and number > link.number + 1:
        link.lost_pages += number - link.number - 1
    granule = int.from_bytes(page[6:14], "little", signed=True)
    if granule >= 0 and not flags & FIRST and (granule or link.granules):
        if link.first_granule is None:
            link.first_granule = granule
        link.granules.append(granule)
        del link.granules[:-KEPT_GRANULES]
    link.number, link.pages, link.ended = number, link.pages + 1, bool(flags & LAST)
