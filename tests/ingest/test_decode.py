"""Decoding compared with librosa, and the reason why each odd file is rejected."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from hostile import ACCEPTED, REJECTED, flip, truncate
from sounds import RATE, encode, melody, write

from tonelake.ingest import AudioError
from tonelake.ingest.decode import opened, read_audio, resample
from tonelake.ingest.mono import to_mono
from tonelake.ingest.scan import scan_file
from tonelake.ingest.sources import read_source, to_path, to_source
from tonelake.ingest.tags import read_tags

MAKERS = {".wav": write, ".flac": write, ".ogg": write, ".aiff": write, ".mp3": encode, ".opus": encode, ".m4a": encode}
# Largest allowed difference at 24 kHz.  Lossless and libsndfile: none.  mp3: rounding of two decoders.  Opus: FFmpeg's
# decoder compared with libopus.
TOLERANCE = {".wav": 1e-6, ".flac": 1e-6, ".ogg": 1e-6, ".aiff": 1e-6, ".mp3": 1e-5, ".opus": 1e-3}


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("formats")
    return {suffix: make(folder / f"a{suffix}", melody(12, seed=1, channels=2)) for suffix, make in MAKERS.items()}


@pytest.mark.parametrize("suffix", TOLERANCE)
@pytest.mark.parametrize(("start_s", "duration_s"), [(0.0, 12.0), (3.3, 4.0), (0.3, 2.0), (9.0, 2.0)])
def test_samples_equal_librosas(files, suffix, start_s, duration_s):
    import librosa

    ours = read_audio(files[suffix], start_s, duration_s, 24_000)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if suffix == ".opus":            # libsndfile seeks wrongly in Opus: compare with a slice of the whole file
            whole, _ = librosa.load(files[suffix], sr=None, mono=True)
            theirs = resample(whole[round(start_s * 48_000) : round((start_s + duration_s) * 48_000)], 48_000, 24_000)
        else:
            theirs, _ = librosa.load(files[suffix], sr=24_000, mono=True, offset=start_s, duration=duration_s)
    both = slice(200, min(len(ours), len(theirs)) - 200)             # the resamplers' edges differ by a sample
    assert abs(len(ours) - duration_s * 24_000) <= 1
    assert np.abs(ours[both] - theirs[both]).max() < TOLERANCE[suffix]


@pytest.mark.parametrize("suffix", [".mp3", ".m4a", ".opus"])
def test_lossy_formats_begin_at_the_time_of_the_original(files, suffix):
    """The encoder's delay is removed: the best alignment with the original has no shift."""
    original = to_mono(melody(12, seed=1, channels=2))[: RATE * 4]
    decoded = read_audio(files[suffix], 0.0, 4.0, RATE)
    spectrum = np.fft.rfft(original, 2 * len(original)).conj() * np.fft.rfft(decoded, 2 * len(original))
    assert int(np.argmax(np.fft.irfft(spectrum))) == 0


@pytest.mark.parametrize("suffix", MAKERS)
def test_a_scan_returns_length_rate_and_channels(files, suffix):
    scan = scan_file(files[suffix])
    assert abs(scan.duration_s - 12) < 0.02
    assert scan.rate == (48_000 if suffix == ".opus" else RATE)
    assert (scan.channels, scan.flags) == (2, [])
    assert len(scan.peaks) in (12, 13)


def test_a_scan_returns_the_peak_of_each_second(tmp_path):
    sound = melody(5)
    sound[RATE * 2 : RATE * 3] = 0
    scan = scan_file(write(tmp_path / "a.wav", sound, subtype="FLOAT"))
    expected = [np.abs(sound[i * RATE : (i + 1) * RATE]).max() for i in range(5)]
    np.testing.assert_allclose(scan.peaks, expected, rtol=1e-6)


def test_stereo_is_mixed_to_the_mean_of_its_channels(tmp_path):
    left, right = melody(2, seed=1), melody(2, seed=2)
    path = write(tmp_path / "a.wav", np.concatenate([left, right], axis=1), subtype="FLOAT")
    np.testing.assert_allclose(read_audio(path, 0, 2, RATE), (left[:, 0] + right[:, 0]) / 2, atol=1e-7)
    mp3 = encode(tmp_path / "a.mp3", np.concatenate([left, left], axis=1), bit_rate=320_000)
    assert abs(np.abs(read_audio(mp3, 0, 2, RATE)).max() / np.abs(left).max() - 1) < 0.05     # FFmpeg's own is 1.41


@pytest.mark.parametrize("name", REJECTED)
def test_an_odd_file_is_rejected_with_its_reason(tmp_path, name):
    make, word = REJECTED[name]
    path = make(tmp_path / name)
    with pytest.raises(AudioError, match=word or name) as info:
        scan_file(path)
    assert name in str(info.value)


@pytest.mark.parametrize("name", ACCEPTED)
def test_an_odd_file_that_is_music_is_read_in_full(tmp_path, name):
    make, seconds = ACCEPTED[name]
    path = make(tmp_path / name)
    scan = scan_file(path)
    assert abs(scan.duration_s - seconds) < 0.2          # an mp3 without a header contains its encoder's delay
    samples = read_audio(path, 0.5, 2.0, 24_000)
    assert len(samples) == 48_000
    assert 0.1 < np.abs(samples).max() < 1


@pytest.mark.parametrize("name", [*ACCEPTED, *MAKERS])
def test_reading_from_the_middle_equals_a_slice_of_the_whole(tmp_path, name):
    path = ACCEPTED[name][0](tmp_path / name) if name in ACCEPTED else MAKERS[name](tmp_path / f"a{name}", melody(9))
    length_s = scan_file(path).duration_s
    with opened(path) as audio:
        rate = audio.rate
    whole = read_audio(path, 0.0, length_s, rate)
    for share in (0.1, 0.5, 0.8):
        start_s = share * length_s
        part = read_audio(path, start_s, 0.5, rate)
        first = round(start_s * rate)
        assert np.array_equal(part, whole[first : first + len(part)]) and len(part) == round(0.5 * rate)


def test_a_missing_page_of_vorbis_is_flagged(tmp_path):
    path = write(tmp_path / "a.ogg", melody(60))
    assert scan_file(path).flags == []
    damaged = scan_file(flip(path, 0.5, 0.5002))         # pages that do not decode are left out
    assert damaged.flags == ["damaged"]
    assert 58.5 < damaged.duration_s < 60


@pytest.mark.parametrize("name", ["hole.opus", "packet.m4a", "packet_255.m4a"])
def test_samples_after_a_gap_keep_their_time(tmp_path, name):
    path = ACCEPTED[name][0](tmp_path / name)
    scan = scan_file(path)
    assert scan.flags == ["damaged"]
    complete = encode(tmp_path / f"complete{path.suffix}", melody(round(scan.duration_s)))
    found, true = (read_audio(p, 0.0, scan.duration_s, scan.rate) for p in (path, complete))
    assert abs(len(found) - len(true)) < 0.1 * scan.rate
    last = round((scan.duration_s - 5) * scan.rate)
    np.testing.assert_array_equal(found[last : last + scan.rate], true[last : last + scan.rate])


@pytest.mark.parametrize("keep", [0.3, 0.6, 0.95])
@pytest.mark.parametrize("suffix", MAKERS)
def test_a_truncated_file_is_rejected_or_flagged_with_its_decoded_length(tmp_path, suffix, keep):
    path = truncate(MAKERS[suffix](tmp_path / f"a{suffix}", melody(20)), keep)
    try:
        scan = scan_file(path)
    except AudioError:
        return
    assert scan.flags == ["truncated"]
    assert scan.duration_s < 20.1
    samples = read_audio(path, 0, scan.duration_s, 24_000)
    assert abs(len(samples) / 24_000 - scan.duration_s) < 0.1


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("suffix", MAKERS)
def test_random_damage_never_decodes_to_garbage(tmp_path, suffix, seed):
    """A damaged file is rejected, or decodes to finite samples within range."""
    path = flip(MAKERS[suffix](tmp_path / f"a{suffix}", melody(6)), 0.2 + seed * 0.15, 0.25 + seed * 0.15, seed)
    try:
        scan = scan_file(path)
        samples = read_audio(path, 0, scan.duration_s, 24_000)
    except AudioError:
        return
    assert np.isfinite(samples).all()
    assert np.abs(samples).max() < 5


def test_a_file_that_changed_since_it_was_ingested_is_not_read(tmp_path):
    path = write(tmp_path / "a.wav", melody(3, seed=1))
    digest = scan_file(path).digest
    assert len(read_source(str(path), 0, 2, 24_000, digest)) == 48_000
    write(path, melody(3, seed=2))
    with pytest.raises(AudioError, match="has changed since it was ingested"):
        read_source(str(path), 0, 2, 24_000, digest)
    path.unlink()
    with pytest.raises(AudioError, match="cannot be read"):
        read_source(str(path), 0, 2, 24_000, digest)


def test_a_span_beyond_the_end_is_an_error_instead_of_a_short_clip(tmp_path):
    path = write(tmp_path / "a.wav", melody(3))
    with pytest.raises(AudioError, match=r"ends 2\.0 s before"):
        read_source(str(path), 1, 4, 24_000)
    with pytest.raises(AudioError, match=r"nothing decodes at 50\.0 s"):
        read_source(str(path), 50, 4, 24_000)


@pytest.mark.slow
def test_a_long_file_is_scanned_in_little_memory(tmp_path):
    import resource

    import soundfile as sf

    path = tmp_path / "long.flac"
    with sf.SoundFile(path, "w", 8_000, 1) as file:
        minute = melody(60, rate=8_000)
        for _ in range(180):
            file.write(minute)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    scan = scan_file(path)
    grown_kb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert scan.duration_s == 3 * 3600
    assert grown_kb < 60_000             # the samples alone are 345 MB
    assert len(read_audio(path, 3 * 3600 - 2, 2, 24_000)) == 48_000


def test_names_that_are_not_utf8_survive_the_round_trip(tmp_path):
    import os

    name = os.fsdecode(b"caf\xe9 100%")
    path = write(tmp_path / "a.wav", melody(2)).rename(tmp_path / f"{name}.wav")
    mp3 = encode(tmp_path / "a.mp3", melody(2)).rename(tmp_path / f"{name}.mp3")
    assert len(read_source(to_source(mp3), 0, 2, 24_000)) == 48_000
    source = to_source(path)
    assert source.startswith("file:///")
    assert source.isascii()
    assert to_path(source) == path
    assert len(read_source(source, 0, 2, 24_000)) == 48_000
    assert to_source(tmp_path / "ünï.wav") == str(tmp_path / "ünï.wav")


def test_tags_are_read_and_cleaned(tmp_path, music):
    assert read_tags(music / "Ada" / "song0.wav")["artist"] == "Ada"
    assert read_tags(music / "Béla" / "song4.opus") == {"title": "Song 4", "artist": "Béla", "album": "Album of Béla"}
    path = encode(tmp_path / "a.mp3", melody(2), tags={"title": "a\nb\x1b[31m" + "x" * 1000, "artist": "   "})
    tags = read_tags(path)
    assert tags["title"].startswith("a b [31mxxx")
    assert len(tags["title"]) == 300
    assert "artist" not in tags
    assert read_tags(tmp_path / "absent.mp3") == {}




def mux(path, sound, container, codec, rate=RATE, layout=None, options=None):
    """Write by FFmpeg in any container."""
    from fractions import Fraction

    import av

    layout = layout or ("mono" if sound.shape[1] == 1 else "stereo")
    with av.open(str(path), "w", format=container, options=options or {}) as out:
        stream = out.add_stream(codec, rate=rate, layout=layout)
        stream.bit_rate = 192_000
        resampler = av.AudioResampler(format=stream.format, layout=layout, rate=rate, frame_size=stream.frame_size or 0)
        whole = av.AudioFrame.from_ndarray(np.ascontiguousarray(sound.reshape(1, -1)), format="flt", layout=layout)
        whole.sample_rate, whole.pts, whole.time_base = rate, 0, Fraction(1, rate)
        for frame in (*resampler.resample(whole), *resampler.resample(None)):
            out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
    return path


CONTAINERS = {
    "opus.webm": ("webm", "libopus", 48_000), "flac.mka": ("matroska", "flac", RATE), "flac.oga": ("ogg", "flac", RATE),
    "a.mp2": ("mp2", "mp2", RATE), "a.ac3": ("ac3", "ac3", RATE),
    "ima.wav": ("wav", "adpcm_ima_wav", RATE), "ms.wav": ("wav", "adpcm_ms", RATE), "alac.m4a": ("ipod", "alac", RATE),
    "alac.caf": ("caf", "alac", RATE), "a.wv": ("wv", "wavpack", RATE), "a.tta": ("tta", "tta", RATE),
    "a.w64": ("w64", "pcm_s16le", RATE),
    "vorbis.ogg": ("ogg", None, RATE), "a.au": ("au", "pcm_s16be", RATE), "a.caf": ("caf", "pcm_s24be", RATE),
    "a.wma": ("asf", "wmav2", RATE),
}


@pytest.mark.parametrize("name", CONTAINERS)
def test_a_span_equals_a_slice_in_every_container_up_to_the_last_page(tmp_path, name):
    container, codec, rate = CONTAINERS[name]
    sound = melody(7, rate=rate, channels=2)
    path = mux(tmp_path / name, sound, container, codec, rate) if codec else write(tmp_path / name, sound)
    scan = scan_file(path)
    assert scan.flags == []
    assert abs(scan.duration_s - 7) < 0.1                # WMA loses its last frame
    whole = read_audio(path, 0.0, scan.duration_s, scan.rate)
    for first in (1, scan.rate, len(whole) // 2 + 7, *range(len(whole) - scan.rate, len(whole) - 1, scan.rate // 7)):
        part = read_audio(path, first / scan.rate, 0.2, scan.rate)
        np.testing.assert_array_equal(part, whole[first : first + round(0.2 * scan.rate)])


@pytest.mark.parametrize("name", ["opus.opus", "aac.m4a", "vorbis.ogg", "flac.flac"])
def test_eight_channels_are_read(tmp_path, name):
    sound = np.repeat(melody(2, rate=48_000), 8, axis=1)
    if name == "vorbis.ogg":
        path = write(tmp_path / name, sound, rate=48_000)
    else:
        container, codec = {"opus.opus": ("ogg", "libopus"), "aac.m4a": ("ipod", "aac"), "flac.flac": ("flac", "flac")}[name]
        path = mux(tmp_path / name, sound, container, codec, 48_000, "7.1")
    scan = scan_file(path)
    assert (scan.channels, scan.flags) == (8, [])
    assert abs(scan.duration_s - 2) < 0.05


def test_a_decoder_that_fails_is_followed_by_the_other(tmp_path, monkeypatch):
    """Both for a scan and for a read, and the reason of the first is reported if both fail."""
    from tonelake.ingest import containers
    from tonelake.ingest.readers import DecoderError

    path = write(tmp_path / "a.flac", melody(3))
    expected = read_audio(path, 1.0, 1.0, RATE)

    def fails(path, first_s=0, **_):
        raise DecoderError(f"{path.name}: the first is broken")

    monkeypatch.setattr(containers, "open_sndfile", fails)
    containers._decoders_of_state.cache_clear()
    assert scan_file(path).duration_s == 3.0
    np.testing.assert_array_equal(read_audio(path, 1.0, 1.0, RATE), expected)
    monkeypatch.setattr(containers, "open_ffmpeg", fails)
    for attempt in (lambda: scan_file(path), lambda: read_audio(path, 1.0, 1.0, RATE)):
        with pytest.raises(AudioError, match="the first is broken"):
            attempt()
