"""Read which presets a SoundFont 2 file has, and the digest of its bytes.

A soundfont is a RIFF file of form `sfbk`; the chunk `phdr` in its list `pdta` has a record of 38 bytes for each preset.
SoundFont Technical Specification 2.04, sections 4 and 7.2.  FluidSynth substitutes absent presets, so they are looked up here.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import BinaryIO

from tonelake.ingest.errors import AudioError
from tonelake.ingest.scan import file_digest

PRESET = struct.Struct("<20sHH14x")      # name, program, bank; the indexes of its zones follow
MAX_HEADERS = 4 << 20                    # bytes of preset headers: 100,000 presets


def soundfont_presets(path: Path) -> dict[int, str]:
    """Names of the presets of bank 0 by program.  Raises AudioError if the file is not a soundfont or cannot be read."""
    try:
        with path.open("rb") as file:
            headers = _preset_headers(file)
    except OSError as error:
        raise AudioError(
            f"{path}: the soundfont cannot be read: {error.strerror or error}. Put it back, or ingest the chorales again with "
            "--soundfont and the file's present place"
        ) from error
    if headers is None:
        raise AudioError(f"{path}: is not a SoundFont 2 file. Choose a file whose name ends in .sf2 or .sf3")
    presets = {
        program: name.split(b"\0")[0].decode("latin-1").strip() for name, program, bank in headers if bank == 0
    }
    if not presets:
        raise AudioError(f"{path}: has no presets in bank 0. Choose a soundfont with General MIDI instruments")
    return presets


def check_presets(path: Path, programs: tuple[int, ...]) -> None:
    """Raise AudioError unless the soundfont has these programs in bank 0."""
    presets = soundfont_presets(path)
    absent = sorted(set(programs) - set(presets))
    if absent:
        listed = ", ".join(f"{program} {presets[program]}" for program in sorted(presets)[:8])
        more = f" and {len(presets) - 8} others" if len(presets) > 8 else ""
        raise AudioError(
            f"{path.name}: has no program {', '.join(map(str, absent))} in bank 0. Choose --program among {listed}{more}"
        )


def soundfont_digest(path: Path) -> str:
    """blake2b of a soundfont's bytes, 32 hex digits.  Raises AudioError if it cannot be read."""
    try:
        stat = path.stat()
    except OSError as error:
        raise AudioError(
            f"{path}: the soundfont is missing ({error.strerror or error}). Put it back, or ingest the chorales again with "
            "--soundfont and the file's present place"
        ) from error
    return _digest_of_state(path, stat.st_mtime_ns, stat.st_size)


@lru_cache(maxsize=16)
def _digest_of_state(path: Path, mtime_ns: int, size: int) -> str:
    return file_digest(path)


def _preset_headers(file: BinaryIO) -> list[tuple[bytes, int, int]] | None:
    """(name, program, bank) of each preset, without the last record, which ends the list; None if the file has none."""
    form = file.read(12)
    if form[:4] != b"RIFF" or form[8:] != b"sfbk":
        return None
    for kind, size in _chunks(file, os.fstat(file.fileno()).st_size):
        if kind != b"LIST" or file.read(4) != b"pdta":
            continue
        for inner, length in _chunks(file, file.tell() + size - 4):
            if inner == b"phdr" and length <= MAX_HEADERS:
                data = file.read(length)
                return list(PRESET.iter_unpack(data[: len(data) // PRESET.size * PRESET.size]))[:-1]
    return None


def _chunks(file: BinaryIO, end: int) -> Iterator[tuple[bytes, int]]:
    """Identifier and size of each chunk from here to `end`, the file at its first byte."""
    at = file.tell()
    while at + 8 <= end:
        file.seek(at)
        head = file.read(8)
        if len(head) < 8:
            return
        size = int.from_bytes(head[4:], "little")
        yield head[:4], size
        at += 8 + size + size % 2
