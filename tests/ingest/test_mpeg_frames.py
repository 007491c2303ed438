"""Frames of mp3 and AAC, and the tags and junk around them."""

from __future__ import annotations

import numpy as np
import pytest
from sounds import encode, melody

from tonelake.ingest.decode import opened, read_audio
from tonelake.ingest.mpeg_frames import adts_header, mpeg_header, mpeg_streams
from tonelake.ingest.scan import scan_file
from tonelake.ingest.tag_blocks import audio_end, audio_start

FALSE_FRAMES = bytes.fromhex("fffb9064") * 2_000                     # as in the picture of a tag


def id3v2(body: bytes, footer: bool = False) -> bytes:
    size = bytes(len(body) >> shift & 0x7F for shift in (21, 14, 7, 0))
    head = bytes([4, 0, 0x10 if footer else 0]) + size
    return b"ID3" + head + body + (b"3DI" + head if footer else b"")


def apev2(body: bytes, header: bool = True) -> bytes:
    def block(flags: int) -> bytes:
        return b"APETAGEX" + b"".join(n.to_bytes(4, "little") for n in (2000, len(body) + 32, 1, flags)) + bytes(8)

    return (block(0xA0000000) if header else b"") + body + block(0x80000000 if header else 0)


def lyrics3(text: bytes) -> bytes:
    body = b"LYRICSBEGIN" + text
    return body + f"{len(body):06d}".encode() + b"LYRICS200"


ID3V1 = b"TAG" + b"\xff\xfb\x90\x64".ljust(125, b"\x20")
BEHIND = {
    "nothing": b"", "ID3v1": ID3V1, "APEv2": apev2(FALSE_FRAMES), "APEv1": apev2(FALSE_FRAMES, header=False),
    "APEv2 and ID3v1": apev2(FALSE_FRAMES) + ID3V1, "Lyrics3": lyrics3(b"la la"),
    "Lyrics3 v1": b"LYRICSBEGINlaLYRICSEND" + ID3V1,
    "all": apev2(FALSE_FRAMES) + lyrics3(b"la") + ID3V1, "ID3v2": id3v2(FALSE_FRAMES, footer=True), "newline": b"\n",
    "zeros": bytes(50_000), "tag and zeros": ID3V1 + bytes(3_000), "text": b"downloaded from example.org\r\n" * 40,
}
BEFORE = {
    "nothing": b"", "ID3v2": id3v2(FALSE_FRAMES), "two ID3v2": id3v2(b"a") + id3v2(FALSE_FRAMES),
    "padding": id3v2(bytes(200_000)),
    "zeros": bytes(2_000), "zeros behind a tag": id3v2(b"a") + bytes(1_000),
}


def adts(path, sound, rate=44_100):
    """Write AAC in ADTS."""
    import av

    m4a = encode(path.with_suffix(".m4a"), sound, rate)
    with av.open(str(m4a)) as source, av.open(str(path), "w", format="adts") as out:
        stream = out.add_stream_from_template(source.streams.audio[0])
        for packet in source.demux(source.streams.audio[0]):
            if packet.dts is not None:
                packet.stream = stream
                out.mux(packet)
    return path


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    folder = tmp_path_factory.mktemp("plain")
    sound = melody(3, channels=2)
    return {
        "mp3": encode(folder / "a.mp3", sound, options={"id3v2_version": "0"}).read_bytes(),
        "aac": adts(folder / "a.aac", sound).read_bytes(),
    }


@pytest.mark.parametrize("suffix", ["mp3", "aac"])
@pytest.mark.parametrize("before", BEFORE)
@pytest.mark.parametrize("behind", BEHIND)
def test_tags_and_padding_change_no_sample_and_are_not_damage(tmp_path, plain, suffix, before, behind):
    (tmp_path / "plain").write_bytes(plain[suffix])
    (tmp_path / "tagged").write_bytes(BEFORE[before] + plain[suffix] + BEHIND[behind])
    expected, found = scan_file(tmp_path / "plain"), scan_file(tmp_path / "tagged")
    assert (found.duration_s, found.flags, expected.flags) == (expected.duration_s, [], [])
    whole = [read_audio(tmp_path / name, 0.0, found.duration_s, found.rate) for name in ("plain", "tagged")]
    np.testing.assert_array_equal(*whole)


@pytest.mark.parametrize("behind", [name for name in BEHIND if name not in ("nothing", "newline", "zeros", "text")])
def test_the_end_of_the_audio_is_found_before_the_tags(plain, behind):
    assert audio_end(plain["mp3"] + BEHIND[behind]) == len(plain["mp3"])
    assert audio_start(id3v2(b"abc") + plain["mp3"]) == 13


def test_the_encoders_delay_and_padding_are_left_out_of_each_joined_file(tmp_path, plain):
    parts = [encode(tmp_path / f"{seed}.mp3", melody(2 + seed, seed)).read_bytes() for seed in range(3)]
    path = tmp_path / "joined.mp3"
    path.write_bytes((ID3V1).join(parts))
    scan = scan_file(path)
    assert (scan.duration_s, scan.flags) == (9.0, [])
    for seed, start_s in enumerate((0.0, 2.0, 5.0)):
        single = read_audio(tmp_path / f"{seed}.mp3", 0.0, 2.0 + seed, 44_100)
        np.testing.assert_array_equal(read_audio(path, start_s, 2.0 + seed, 44_100), single)


def test_a_stream_counts_its_frames_and_knows_its_delay(tmp_path):
    path = encode(tmp_path / "a.mp3", melody(3))
    (stream,) = mpeg_streams(path)
    assert stream.counted == len(stream.offsets) == 116
    assert (stream.skip, stream.keep) == (1_105, 1_105 + 3 * 44_100)
    with opened(path) as audio:
        assert audio.promised_s == 3.0


def test_junk_between_frames_is_damage_and_lost_frames_keep_their_time(tmp_path):
    path = encode(tmp_path / "a.mp3", melody(20, seed=1))
    complete = read_audio(path, 0.0, 20.0, 44_100)
    (stream,) = mpeg_streams(path)
    data = bytearray(path.read_bytes())
    data[stream.offsets[300] : stream.offsets[310]] = b"\x55" * (stream.offsets[310] - stream.offsets[300])
    path.write_bytes(bytes(data))
    scan = scan_file(path)
    assert (scan.duration_s, scan.flags) == (20.0, ["damaged"])
    np.testing.assert_array_equal(read_audio(path, 10.0, 5.0, 44_100), complete[441_000 : 441_000 + 220_500])


def test_a_last_frame_that_is_cut_off_is_not_damage(tmp_path):
    path = encode(tmp_path / "a.mp3", melody(20), options={"write_xing": "0"})
    path.write_bytes(path.read_bytes()[:-100])
    assert scan_file(path).flags == []


def test_frame_headers():
    assert mpeg_header(bytes.fromhex("fffb90c4")) == (417, 1152, 44_100, 1, 3)
    assert mpeg_header(bytes.fromhex("fff380c4")) == (208, 576, 22_050, 1, 3)
    assert mpeg_header(bytes.fromhex("fffd8004")) == (417, 1152, 44_100, 2, 2)
    assert mpeg_header(bytes.fromhex("ffe0")) is None
    for bad in ("fffbf064", "fffb0064", "fffb9c64", "ffeb9064", "00fb9064"):
        assert mpeg_header(bytes.fromhex(bad)) is None
    assert adts_header(bytes.fromhex("fff150802e7ffc")) == (371, 1024, 44_100, 2, 4)
    assert adts_header(bytes.fromhex("fff17c802e7ffc")) is None
