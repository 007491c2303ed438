"""Small files as other programs write them: tagged, streamed, joined, cut from a stream, in rare sample formats.

Each is read in full, at the right pitch and level, from any time, and with no flag that it does not deserve.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tonelake.ingest import AudioError
from tonelake.ingest.decode import read_audio
from tonelake.ingest.scan import scan_file

HOME = Path(__file__).parents[1] / "data" / "audio"
LOSSY_S = 0.07                           # an encoder's delay, where the file does not say how long it is
# Seconds, tolerance, Hz of each equal part, peak, flags.
FILES: dict[str, tuple[float, float, tuple[float, ...], float, list[str]]] = {
    "01-mp3-ape-cover/song.mp3": (3.0, 1e-6, (440,), 0.086, []),
    "02-mp3-one-byte-after/lyrics3.mp3": (3.0, 1e-6, (440,), 0.086, []),
    "02-mp3-one-byte-after/newline.mp3": (3.0, 1e-6, (440,), 0.086, []),
    "03-wav-of-a-pipe/sox_size.wav": (3.0, 0, (440,), 0.275, []),
    "03-wav-of-a-pipe/arecord_size.wav": (3.0, 0, (440,), 0.275, []),
    "05-opus-that-starts-late/seg0.opus": (4.0, 0.01, (440,), 0.139, ["truncated"]),       # cut from a stream: no last page
    "05-opus-that-starts-late/seg1.opus": (4.0, 0.01, (440,), 0.139, ["truncated"]),
    "05-opus-that-starts-late/seg2.opus": (4.0, 0.01, (440,), 0.139, ["truncated"]),
    "06-eight-channels/aac71.m4a": (2.0, 0.01, (440,), 0.19, []),
    "06-eight-channels/opus71.opus": (2.0, 0, (440,), 0.12, []),
    "06-eight-channels/vorbis71.ogg": (2.0, 0, (440,), 0.13, []),
    "08-joined-mono-stereo/stereo_then_mono.mp3": (6.0, LOSSY_S, (440, 1000), 0.12, []),
    "08-joined-mono-stereo/chained.ogg": (6.0, 0, (440, 1000), 0.138, []),
    "09-flac-longer-than-its-header/says_one_second.flac": (4.0, 0, (440,), 0.125, []),
    "09-flac-longer-than-its-header/two_joined.flac": (8.0, 0, (440, 440), 0.125, []),
    "21-wav-24-bits-in-4-bytes/arecord_s24_le.wav": (1.4, 0, (440,), 0.275, []),
    "21-wav-24-bits-in-4-bytes/left_aligned.wav": (1.4, 0, (440,), 0.275, []),
    "22-wav-64-bit-integers/int64.wav": (1.4, 0, (440,), 0.275, []),
}


def test_each_file_is_listed():
    files = {str(file.relative_to(HOME)) for file in HOME.rglob("*.*") if file.parent.name[:2] in {f[:2] for f in FILES}}
    assert files == {*FILES, "05-opus-that-starts-late/seg3.opus"}


def pitch(samples: np.ndarray, rate: int) -> float:
    """Hz of the loudest partial."""
    return float(np.argmax(np.abs(np.fft.rfft(samples * np.hanning(len(samples)))))) * rate / len(samples)


@pytest.mark.parametrize("name", FILES)
def test_length_pitch_level_and_flags(name):
    seconds, tolerance, pitches, peak, flags = FILES[name]
    scan = scan_file(HOME / name)
    assert abs(scan.duration_s - seconds) <= tolerance
    assert scan.flags == flags
    samples = read_audio(HOME / name, 0.0, scan.duration_s, scan.rate)
    assert len(samples) == round(scan.duration_s * scan.rate)
    assert np.abs(samples).max() == pytest.approx(peak, rel=0.03)
    for part, expected in zip(np.array_split(samples, len(pitches)), pitches, strict=True):
        middle = part[len(part) // 8 : -len(part) // 8]
        assert pitch(middle, scan.rate) == pytest.approx(expected, abs=2)


@pytest.mark.parametrize("name", FILES)
def test_reading_from_the_middle_equals_a_slice(name):
    scan = scan_file(HOME / name)
    whole = read_audio(HOME / name, 0.0, scan.duration_s, scan.rate)
    for first in (1, scan.rate // 3, len(whole) // 2, len(whole) - scan.rate // 4, len(whole) - 50):
        part = read_audio(HOME / name, first / scan.rate, 0.25, scan.rate)
        np.testing.assert_allclose(part, whole[first : first + round(0.25 * scan.rate)], atol=1e-6)


def test_the_remainder_of_a_stream_is_too_short():
    with pytest.raises(AudioError, match=r"seg3.opus: is 0\.01 s long"):
        scan_file(HOME / "05-opus-that-starts-late/seg3.opus")
