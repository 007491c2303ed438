"""The identity of a recording survives all that leaves its encoded audio as it is, and nothing else."""

from __future__ import annotations

import shutil
import subprocess

import numpy as np
import pytest
from sounds import encode, melody, write
from tagged import ape_of, frames_of, id3, id3v1

from tonelake.ingest.recording_hash import derived_recording, recording_of
from tonelake.ingest.scan import file_digest

SUFFIXES = (".wav", ".flac", ".aiff", ".ogg", ".mp3", ".opus", ".m4a")
TAGS = {"title": "Another title", "artist": "Someone else", "album": "An album"}
needs_ffmpeg = pytest.mark.skipif(shutil.which("ffmpeg") is None, reason="ffmpeg is not installed")


def identity(path):
    return recording_of(path, file_digest(path))


def make(path, seed=1, channels=2, **options):
    writer = encode if path.suffix in (".mp3", ".opus", ".m4a") else write
    return writer(path, melody(2, seed=seed, channels=channels), **options)


def remux(path, other, *options):
    subprocess.run(["ffmpeg", "-v", "error", "-y", "-i", path, "-c", "copy", *options, other], check=True, timeout=60)
    return other


@needs_ffmpeg
@pytest.mark.parametrize("suffix", SUFFIXES)
def test_new_tags_and_a_new_container_leave_the_recording_as_it_is(tmp_path, suffix):
    path = make(tmp_path / f"a{suffix}")
    words = [word for name, text in TAGS.items() for word in ("-metadata", f"{name}={text * 20}")]
    extra = ["-movflags", "+faststart"] if suffix == ".m4a" else []
    other = remux(path, tmp_path / f"b{suffix}", *words, *extra)
    assert file_digest(path) != file_digest(other)
    assert identity(path) == identity(other) and not identity(path).startswith("b:")


@needs_ffmpeg
@pytest.mark.parametrize(
    ("suffix", "other"), [(".m4a", ".aac"), (".mp3", ".mka"), (".flac", ".oga"), (".opus", ".mka"), (".wav", ".w64")]
)
def test_audio_that_is_copied_to_another_container_is_the_same_recording(tmp_path, suffix, other):
    path = make(tmp_path / f"a{suffix}")
    assert identity(remux(path, tmp_path / f"b{other}")) == identity(path)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_other_audio_is_another_recording(tmp_path, suffix):
    found = {identity(make(tmp_path / f"{seed}-{channels}{suffix}", seed, channels)) for seed in (1, 2) for channels in (1, 2)}
    assert len(found) == 4


def test_tags_at_both_ends_of_an_mp3_are_not_part_of_it(tmp_path):
    plain = make(tmp_path / "a.mp3")
    audio = plain.read_bytes()
    audio = audio[audio.index(b"\xff\xfb") :]
    for number, (head, tail) in enumerate((
        (b"", b""), (id3(frames_of(TAGS)), b""), (b"", id3v1(TAGS)), (b"", ape_of(TAGS)),
        (id3(frames_of(TAGS)), ape_of(TAGS) + id3v1(TAGS)), (ape_of(TAGS), b""),
    )):
        path = tmp_path / f"{number}.mp3"
        path.write_bytes(head + audio + tail)
        assert identity(path) == identity(plain), number


def test_padding_of_flac_and_chunks_of_wav_are_not_part_of_it(tmp_path):
    flac = make(tmp_path / "a.flac")
    data = flac.read_bytes()
    (tmp_path / "b.flac").write_bytes(data[:42] + b"\x01" + (5_000).to_bytes(3, "big") + bytes(5_000) + data[42:])
    assert identity(tmp_path / "b.flac") == identity(flac)
    wav = make(tmp_path / "a.wav")
    data = bytearray(wav.read_bytes() + b"LIST" + (12).to_bytes(4, "little") + b"INFOINAM" + bytes(4))
    data[4:8] = (len(data) - 8).to_bytes(4, "little")
    (tmp_path / "b.wav").write_bytes(data)
    assert identity(tmp_path / "b.wav") == identity(wav)


def test_both_files_of_a_joined_one_count(tmp_path):
    for suffix in (".flac", ".mp3", ".ogg", ".m4a", ".wav"):
        parts = [make(tmp_path / f"{seed}{suffix}", seed).read_bytes() for seed in (1, 2, 3)]
        found = set()
        for number, second in enumerate((parts[1], parts[2], b"")):
            path = tmp_path / f"joined{number}{suffix}"
            path.write_bytes(parts[0] + second)
            found.add(identity(path))
        assert len(found) == 3, suffix


def test_a_cut_file_and_one_without_audio_are_identified(tmp_path):
    path = make(tmp_path / "a.ogg")
    (tmp_path / "cut.ogg").write_bytes(path.read_bytes()[:-2_000])
    assert identity(tmp_path / "cut.ogg") != identity(path)
    (tmp_path / "noise.mp3").write_bytes(np.random.default_rng(0).bytes(3_000))
    assert identity(tmp_path / "noise.mp3") == "b:" + file_digest(tmp_path / "noise.mp3")


def test_derived_audio_has_an_identity_of_its_settings():
    names = {derived_recording("ab", *settings) for settings in (("x", "drums"), ("x", "bass"), ("xd", "rums"), ("x", 1))}
    assert len(names) == 4 and derived_recording("ab", "x", 1) in names
