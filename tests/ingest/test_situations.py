"""Audio files in every situation, read as ingest reads them: length, pitch, level, flags and reads from the middle."""

from __future__ import annotations

import pytest
from situation_check import RIGHT, check, ffmpeg_available, ffmpeg_faults
from situations import KINDS, READ, situations
from tunes import CHECK_RATE, Tune, faults, random_tune

from tonelake.ingest import DecoderPool

SEED = 0
SITUATIONS = {situation.key: situation for situation in situations(SEED)}
SLOW = list(SITUATIONS.values())[::3]    # two minutes; `make bench-files` reads all of them, with other seeds
KNOWN = {                                # read wrongly today; one that becomes right must leave this list
    "wma/a hole of noise": "a gap of less than half a second between packets is taken for jitter, and ASF has no checksum",
    "wma/a hole of zeros": "as above",
    "caf/alac inside": "FFmpeg 8 removes the padding at the end twice: 0.05 s are lost, and the file is flagged",
}
FAST = (
    "wav/6 channels", "flac/8 channels", "opus/8 channels", "m4a aac/8 channels", "ogg vorbis/2 channels",
    "flac/channels that cancel", "mp3 cbr/channels that cancel",
    "wav/24 bits in 4 bytes, to the right", "wav/integers of 64 bits", "wav/20 valid of 24 bits", "aifc/sowt",
    "wav/libmp3lame inside", "mp3 cbr/named .wav", "m4a aac/named .mp3",
    "wav/stream of size 0x7ffff000", "wav/stream of size 0x80000000", "wav/stream of size 0xffffffff", "aiff/stream of SoX",
    "rf64/stream of size 0x0", "flac/stream", "mp3/header of Fraunhofer's encoder",
    "opus/begins at 5 s", "ogg vorbis/begins at 5 s", "ogg flac/begins at 5 s",
    "wav/half of its length stated", "wav/half the byte rate", "flac/a quarter of its length stated",
    "flac/two joined", "mp3 cbr/two joined", "mp3 cbr/stereo, then mono", "ogg vorbis/another rate behind",
    "wav/a second file behind the end",
    "mp3 cbr/APEv2 with a picture behind", "mp3 cbr/APEv2, Lyrics3 and ID3v1 behind", "adts/ID3v2 with a footer behind",
    "mp3 cbr/ID3v2.3 unsynchronised before", "flac/ID3v2.3 before",
    "wav/60% kept", "ogg vorbis/85% kept", "mp3 cbr/a newline behind", "opus/300,000 zeros behind", "flac/a hole of zeros",
)


@pytest.fixture(scope="module")
def pool():
    with DecoderPool(1, time_limit_s=120.0) as decoders:
        yield decoders


def wrong(situation, folder, pool) -> list[str]:
    """Differences between what ingest makes of a situation and what is right, and between that and the ffmpeg program."""
    path = folder / situation.file_name
    verdict = check(situation, path, pool)
    found = [] if verdict.kind == RIGHT else [f"{situation.key}: {verdict.kind}: {verdict.why}"]
    if situation.ffmpeg and ffmpeg_available():
        found += [f"{situation.key}: by ffmpeg: {fault}" for fault in ffmpeg_faults(situation, path)]
    return found


@pytest.mark.parametrize("key", FAST)
def test_a_file_is_read_flagged_or_refused_as_is_right(tmp_path, pool, key):
    assert not wrong(SITUATIONS[key], tmp_path, pool)


@pytest.mark.slow
@pytest.mark.parametrize("container", sorted({situation.container for situation in SLOW}))
def test_situations_of_a_container_have_a_right_outcome(tmp_path, pool, container):
    found = [situation for situation in SLOW if situation.container == container]
    faulty = [fault for situation in found if situation.key not in KNOWN for fault in wrong(situation, tmp_path, pool)]
    assert not faulty, f"{len(faulty)} of {len(found)}:\n" + "\n".join(faulty)


@pytest.mark.slow
@pytest.mark.parametrize("key", KNOWN)
def test_a_file_that_is_known_to_be_read_wrongly_still_is(tmp_path, pool, key):
    assert wrong(SITUATIONS[key], tmp_path, pool), f"{key} is right: remove it from KNOWN"


def test_situations_cover_the_containers_and_differ_by_seed():
    assert len(SLOW) >= 300
    assert len({situation.file_name for situation in SITUATIONS.values()}) == len(SITUATIONS)
    assert {situation.container for situation in SITUATIONS.values()} >= set(KINDS)
    others = {situation.key: situation for situation in situations(SEED + 1)}
    assert others.keys() == SITUATIONS.keys()
    key = "wav/2 channels"
    assert SITUATIONS[key].data() == SITUATIONS[key].data() != others[key].data()


@pytest.mark.parametrize(("change", "expected"), [
    (lambda sound: sound, ""),
    (lambda sound: sound * 1.414, "level"),
    (lambda sound: sound[::2], " Hz instead of "),
    (lambda sound: sound[1_200:], "s off"),
    (lambda sound: sound * 0, " Hz instead of "),
], ids=["unchanged", "louder", "an octave higher", "50 ms early", "silent"])
def test_the_check_notices_a_wrong_level_pitch_and_position(change, expected):
    import numpy as np

    tune: Tune = random_tune(np.random.default_rng(3), 3.0)
    found = "; ".join(faults(change(tune.samples(CHECK_RATE)).astype(np.float32), tune, lag_s=0.01, level=0.05, purity=0.98))
    assert (expected in found) if expected else not found


def test_the_check_notices_a_wrong_verdict(tmp_path, pool):
    """A whole file that ought to be flagged, and a refused one that ought to be read, count as wrong."""
    from dataclasses import replace

    whole, empty = SITUATIONS["wav/2 channels"], SITUATIONS["wav/60% kept"]
    assert whole.right[0].kind == READ
    flagged = replace(whole, right=(replace(whole.right[0], kind="flagged"),))
    assert check(flagged, tmp_path / "a.wav", pool).kind == "accepted wrongly"
    unread = replace(empty, right=whole.right, data=lambda: b"no audio")
    assert check(unread, tmp_path / "b.wav", pool).kind == "refused wrongly"
