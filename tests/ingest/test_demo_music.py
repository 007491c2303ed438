"""The made-up music of the demo: whole files, the same for the same seed, in keys and meters that can be heard."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest
import soundfile

from tonelake.ingest import demo_music, ingest_folder, write_demo_music

C_MAJOR = [0, 2, 4, 5, 7, 9, 11]


@pytest.fixture(scope="module")
def music(tmp_path_factory):
    """Sixteen pieces, each key in both meters, and their labels."""
    labels = write_demo_music(tmp_path_factory.mktemp("demo") / "music", 16)
    return labels.parent, pl.read_csv(labels)


def chroma(samples: np.ndarray, rate: int) -> np.ndarray:
    """Share of each pitch class in the energy from 100 to 1,000 Hz."""
    energy = np.abs(np.fft.rfft(samples)) ** 2
    hz = np.fft.rfftfreq(len(samples), 1 / rate)
    heard = (hz > 100) & (hz < 1_000)
    pitch = np.round(69 + 12 * np.log2(hz[heard] / 440)).astype(int) % 12
    found = np.bincount(pitch, energy[heard], 12)
    return found / found.sum()


@pytest.fixture(scope="module")
def shares(music):
    """(key, `chroma`) of each piece."""
    folder, labels = music
    return [(key, chroma(*soundfile.read(folder / path))) for path, key in labels.select("path", "key").iter_rows()]


def test_forty_pieces_have_eight_keys_and_both_meters():
    found = [demo_music.key_and_meter(number) for number in range(40)]
    assert len({key for key, _ in found}) == 8 and set(found[:16]) == set(found)
    assert {key.split()[1] for key, _ in found} == {"major", "minor"}
    assert [meter for _, meter in found].count("3/4") == 20


def test_the_tones_of_its_key_have_most_energy_in_a_piece(shares):
    for key, share in shares:
        tonic, mode = demo_music.TONICS[key[0].upper()], key.split()[1]
        scale = [(tonic + step) % 12 for step in demo_music.SCALES[mode]]
        assert share[scale].sum() > 0.9, key
        assert share[tonic] > 1 / 12
        if key == "C major":
            assert share[C_MAJOR].sum() > 0.95 and set(np.argsort(share)[-3:]) <= {0, 4, 5, 7, 9}


def test_the_key_with_the_best_fitting_scale_is_the_label_in_most_pieces(shares):
    """Krumhansl and Kessler's profiles, the usual estimate of a key; relative keys are confused most often."""
    major = np.array([6.35, 2.23, 3.48, 2.33, 4.38, 4.09, 2.52, 5.19, 2.39, 3.66, 2.29, 2.88])
    minor = np.array([6.33, 2.68, 3.52, 5.38, 2.60, 3.53, 2.54, 4.75, 3.98, 2.69, 3.34, 3.17])
    right = 0
    for key, share in shares:
        profiles = {(t, mode): np.roll(p, t) for mode, p in (("major", major), ("minor", minor)) for t in range(12)}
        fit = {each: np.corrcoef(profile, share)[0, 1] for each, profile in profiles.items()}
        right += max(fit, key=fit.get) == (demo_music.TONICS[key[0].upper()], key.split()[1])
    assert right >= 13


def test_pieces_last_20_to_30_s_at_24_khz_in_16_bit_below_full_scale(music):
    folder, labels = music
    for path in labels["path"]:
        about = soundfile.info(folder / path)
        assert (about.samplerate, about.channels, about.subtype) == (24_000, 1, "PCM_16")
        assert 20 < about.duration < 30
        assert 0.1 < np.abs(soundfile.read(folder / path)[0]).max() < 1


def test_harmony_is_voiced_in_order_with_complete_chords():
    chords = [demo_music.chord_pitches(name, 9, "minor") for name in ("I", "IV", "V", "I", "ii", "vi")]
    for chord, upper in zip(chords, demo_music.voice(chords, np.random.default_rng(0)), strict=True):
        assert {pitch % 12 for pitch in upper} == set(chord) and list(upper) == sorted(upper)


def test_a_seed_gives_the_same_files_and_another_seed_other_music(music, tmp_path):
    folder, _ = music
    again = write_demo_music(tmp_path / "again", 2).parent
    other = write_demo_music(tmp_path / "other", 2, seed=1).parent
    for mine, theirs in zip(sorted(again.glob("*.flac")), sorted(other.glob("*.flac")), strict=True):
        assert mine.read_bytes() == (folder / mine.name).read_bytes() != theirs.read_bytes()


def test_existing_files_are_kept_and_an_interrupted_run_leaves_only_whole_ones(tmp_path, monkeypatch):
    folder = write_demo_music(tmp_path / "music", 2).parent
    kept = folder / "demo-0-001.flac"
    kept.write_bytes(b"edited")

    def interrupt(path, *_, **__):
        path.write_bytes(b"half")
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("soundfile.write", interrupt)
        with pytest.raises(KeyboardInterrupt):
            write_demo_music(folder, 3)
    assert sorted(path.name for path in folder.iterdir()) == ["demo-0-001.flac", "demo-0-002.flac", "labels.csv"]
    write_demo_music(folder, 3)
    assert kept.read_bytes() == b"edited" and (folder / "demo-0-003.flac").exists()


def test_the_labels_match_every_piece_when_the_folder_is_ingested(lake, music):
    folder, _ = music
    report = ingest_folder(lake, folder, seconds=10.0, labels=folder / "labels.csv", workers=2)
    assert report.failed == 0 and report.notes == ("labels.csv: 16 of 16 rows matched by path",)
    clips = lake.clips.read()
    assert clips["key"].n_unique() == 8 and set(clips["meter"]) == {"3/4", "4/4"} and clips["piece"].n_unique() == 16
