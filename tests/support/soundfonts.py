"""Write small SoundFont 2 files: one looped sound for each program.  SoundFont Technical Specification 2.04."""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

RATE, ROOT = 44_000, 69                  # Hz, and the pitch of a period of PERIOD samples: 440 Hz
PERIOD, PERIODS = 100, 12
KEY_RANGE, SAMPLE_MODES, SAMPLE_ID, INSTRUMENT = 43, 54, 53, 41      # generators


def write_soundfont(
    path: Path, presets: Mapping[int, Sequence[float]], *, bank: int = 0, keys: tuple[int, int] = (0, 127)
) -> Path:
    """Write a soundfont: for each program the amplitudes of the partials of its sound, heard in a range of keys."""
    samples, headers, instruments, programs = b"", b"", [], []
    for number, (program, partials) in enumerate(sorted(presets.items())):
        phase = np.arange(PERIOD * PERIODS) * 2 * np.pi / PERIOD
        wave = sum(loudness * np.sin(partial * phase) for partial, loudness in enumerate(partials, start=1))
        start = len(samples) // 2
        samples += (np.asarray(wave) * 16_000).astype("<i2").tobytes() + bytes(2 * 46)       # 46 zeros follow each sample
        end = start + PERIOD * PERIODS
        headers += struct.pack(
            "<20sIIIIIBbHH", b"sound", start, end, start + PERIOD, end - PERIOD, RATE, ROOT, 0, 0, 1
        )
        instruments.append([(KEY_RANGE, keys[0] | keys[1] << 8), (SAMPLE_MODES, 1), (SAMPLE_ID, number)])
        programs.append((f"Sound {program}".encode(), program, bank, [(INSTRUMENT, number)]))
    headers += struct.pack("<20sIIIIIBbHH", b"EOS", 0, 0, 0, 0, 0, 0, 0, 0, 0)
    records = [(name, program, of, number) for number, (name, program, of, _) in enumerate(programs)]
    phdr = b"".join(struct.pack("<20sHHHIII", *one, 0, 0, 0) for one in [*records, (b"EOP", 0, 0, len(programs))])
    inst = b"".join(struct.pack("<20sH", b"instrument", n) for n in range(len(instruments)))
    inst += struct.pack("<20sH", b"EOI", len(instruments))
    pbag, pgen = _zones([generators for *_, generators in programs])
    ibag, igen = _zones(instruments)
    info = _chunk("ifil", struct.pack("<HH", 2, 1)) + _chunk("isng", b"EMU8000\0") + _chunk("INAM", b"test\0\0")
    names = ("phdr", "pbag", "pmod", "pgen", "inst", "ibag", "imod", "igen", "shdr")
    parts = (phdr, pbag, bytes(10), pgen, inst, ibag, bytes(10), igen, headers)
    data = b"".join(_chunk(name, part) for name, part in zip(names, parts, strict=True))
    lists = (b"INFO" + info, b"sdta" + _chunk("smpl", samples), b"pdta" + data)
    path.write_bytes(_chunk("RIFF", b"sfbk" + b"".join(_chunk("LIST", one) for one in lists)))
    return path


def _zones(owners: Sequence[Sequence[tuple[int, int]]]) -> tuple[bytes, bytes]:
    """Bags and generators of presets or instruments with one zone each, with the records that end them."""
    firsts = np.cumsum([0, *(len(generators) for generators in owners)])
    bags = b"".join(struct.pack("<HH", first, 0) for first in firsts)
    return bags, b"".join(struct.pack("<HH", *one) for generators in owners for one in generators) + bytes(4)


def _chunk(name: str, data: bytes) -> bytes:
    return name.encode() + struct.pack("<I", len(data)) + data + bytes(len(data) % 2)
