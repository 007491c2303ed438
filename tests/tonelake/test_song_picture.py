"""The picture of a recording: time to the right, pitch upwards, the whole recording whatever its clips."""

from __future__ import annotations

import numpy as np
import pytest
import soundfile

import tonelake
from tonelake.ingest import AudioError
from tonelake.song_picture import BANDS, COLUMNS, FEW_COLUMNS, LOWEST_HZ, RATE, song_picture

HZ = 24_000


def pictured(tmp_path, samples: np.ndarray) -> np.ndarray:
    """Ingest a recording, cut into clips of two seconds, and return its picture from the third clip."""
    (tmp_path / "music").mkdir()
    soundfile.write(tmp_path / "music" / "a.wav", samples, HZ)
    lake = tonelake.open(tmp_path / "lake", progress=False)
    lake.ingest_folder(tmp_path / "music", seconds=2.0)
    return song_picture(lake, lake.clips.ids()[2])


def test_two_tones_are_two_bands_one_after_the_other(tmp_path):
    time = np.arange(10 * HZ) / HZ
    sound = 0.5 * np.where(time < 5, np.sin(2 * np.pi * 220 * time), np.sin(2 * np.pi * 1760 * time))
    levels = pictured(tmp_path, sound)
    assert levels.shape == (COLUMNS, BANDS) and levels.dtype == np.uint8

    def band(hz: float) -> int:
        return int(np.log(hz / LOWEST_HZ) / np.log(RATE / 2 / LOWEST_HZ) * BANDS)

    loudest = levels.argmax(axis=1)
    middle = COLUMNS // 2
    assert np.abs(loudest[: middle - 2] - band(220)).max() <= 1 and np.abs(loudest[middle + 2 :] - band(1760)).max() <= 1
    assert levels.max() == 255


def test_a_long_recording_is_sampled_and_a_quieter_part_is_paler(tmp_path, monkeypatch):
    monkeypatch.setattr("tonelake.song_picture.LONG_S", 5.0)
    noise = np.random.default_rng(0).standard_normal(12 * HZ) * np.repeat([0.3, 0.003], 6 * HZ)
    levels = pictured(tmp_path, noise)
    assert levels.shape == (FEW_COLUMNS, BANDS)
    assert levels[: FEW_COLUMNS // 2 - 1].mean() - levels[FEW_COLUMNS // 2 + 1 :].mean() == pytest.approx(40 / 70 * 255, abs=8)


def test_a_recording_whose_file_is_gone_is_an_error(tmp_path):
    (tmp_path / "music").mkdir()
    soundfile.write(tmp_path / "music" / "a.wav", np.ones(4 * HZ) * 0.1, HZ)
    lake = tonelake.open(tmp_path / "lake", progress=False)
    lake.ingest_folder(tmp_path / "music")
    (tmp_path / "music" / "a.wav").unlink()
    with pytest.raises(AudioError):
        song_picture(lake, lake.clips.ids()[0])
