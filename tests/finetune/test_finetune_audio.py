"""Decoded audio of a run: reading, and resumption after a kill."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest

from tonelake.finetune import audio
from tonelake.store import InputError, LakeError

RATE = 16_000
CLIPS = pl.DataFrame({"clip_id": ["a", "b", "quiet", "bad", "c"], "duration_s": [0.5, 0.25, 0.1, 1.0, 0.3]})


class Killed(BaseException):
    """Ends the process as a signal would: no error handler runs."""


class Reader:
    """Yields audio by clip id, in reverse order as workers may finish; records the requested clips."""

    def __init__(self, stop_after: int = 99) -> None:
        self.stop_after, self.requested = stop_after, []

    def __call__(self, clips, rate, workers):
        self.requested.append(clips["clip_id"].to_list())
        for count, (clip, seconds) in enumerate(reversed(clips.rows())):
            if count == self.stop_after:
                raise Killed
            yield clip, ValueError("no sound in it") if clip == "bad" else wave(clip, seconds)


def wave(clip, seconds):
    generator = np.random.default_rng(list(clip.encode()))
    return (0 if clip == "quiet" else 3) * generator.standard_normal(round(seconds * RATE)).astype(np.float32)


def check(found, failed):
    assert failed == {"bad": "no sound in it"} and "bad" not in found
    for clip, seconds in CLIPS.filter(pl.col("clip_id") != "bad").rows():
        expected = wave(clip, seconds)
        step = (np.abs(expected).max() or 1) / audio.FULL_SCALE
        assert found.length(clip) == len(expected)
        np.testing.assert_allclose(found.read(clip), expected, atol=0.51 * step)
        np.testing.assert_array_equal(found.read(clip, 100, 50), found.read(clip)[100:150])
        assert len(found.read(clip, len(expected) - 10, 50)) == 10


def test_clips_are_decoded_once_and_read_back(tmp_path):
    reader = Reader()
    check(*audio.decode(tmp_path, CLIPS, reader, RATE))
    check(*audio.decode(tmp_path, CLIPS, reader, RATE))
    assert len(reader.requested) == 1


@pytest.mark.parametrize("stop_after", range(5))
def test_a_killed_process_resumes_after_the_last_complete_clip(tmp_path, stop_after):
    reader = Reader(stop_after)
    with pytest.raises(Killed):
        audio.decode(tmp_path, CLIPS, reader, RATE)
    reader.stop_after = 99
    check(*audio.decode(tmp_path, CLIPS, reader, RATE))
    done = {"c", "quiet", "b", "a"} & set(CLIPS["clip_id"].reverse()[:stop_after])
    assert reader.requested[1] == [clip for clip in CLIPS["clip_id"] if clip not in done]


@pytest.mark.parametrize("name", [audio.SAMPLES, audio.INDEX])
def test_truncated_files_are_completed_by_decoding_again(tmp_path, name):
    """As after a power loss: a line may be on disk without its samples, or as zeros."""
    audio.decode(tmp_path, CLIPS, Reader(), RATE)
    whole = {file: (tmp_path / file).read_bytes() for file in (audio.SAMPLES, audio.INDEX)}
    for end in np.linspace(0, len(whole[name]) - 1, 40).astype(int):
        for rest in (b"", b"\0" * 7)[: 1 if name == audio.SAMPLES else 2]:
            for file, content in whole.items():
                (tmp_path / file).write_bytes(content if file != name else content[:end] + rest)
            if name == audio.SAMPLES:                        # the index is never ahead of its samples
                lines = whole[audio.INDEX].splitlines(keepends=True)
                (tmp_path / audio.INDEX).write_bytes(b"".join(lines[:-1]))
            check(*audio.decode(tmp_path, CLIPS, Reader(), RATE))


def test_other_clips_or_another_rate_start_over(tmp_path):
    audio.decode(tmp_path, CLIPS, Reader(), RATE)
    for clips, rate in ((CLIPS[:2], RATE), (CLIPS[:2], RATE // 2)):
        reader = Reader()
        found, failed = audio.decode(tmp_path, clips, reader, rate)
        assert reader.requested == [["a", "b"]] and failed == {} and "c" not in found
        assert (tmp_path / audio.SAMPLES).stat().st_size == 2 * (found.length("a") + found.length("b"))


def test_unreadable_clips_and_a_full_disk_are_different_errors(tmp_path):
    with pytest.raises(InputError, match="none of 1 clips can be read: no sound in it"):
        audio.decode(tmp_path, CLIPS.filter(pl.col("clip_id") == "bad"), Reader(), RATE)

    def full(clips, rate, workers):
        raise OSError(28, "No space left on device")
        yield

    with pytest.raises(LakeError, match=r"0\.0 GB \(No space left on device\)\. Free some space, run again"):
        audio.decode(tmp_path, CLIPS, full, RATE)


def test_two_nodes_that_share_a_disk_decode_each_clip_once(tmp_path):
    """The second node begins while the first one is decoding."""
    import threading

    first, second = Reader(), Reader()
    begun, results = threading.Event(), []

    def slowly(clips, rate, workers):
        for found in first(clips, rate, workers):
            begun.set()
            threading.Event().wait(0.05)
            yield found

    one = threading.Thread(target=lambda: results.append(audio.decode(tmp_path, CLIPS, slowly, RATE)))
    one.start()
    assert begun.wait(10)
    check(*audio.decode(tmp_path, CLIPS, second, RATE))
    one.join()
    check(*results[0])
    assert len(first.requested) == 1 and second.requested == []
