"""Mixes of stems for training: the policy that draws them, their sound, and the stems that may be drawn."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np
import polars as pl
import pytest

from tonelake.finetune import FinetuneConfig
from tonelake.finetune.data import AudioSource
from tonelake.finetune.setup import make_setup
from tonelake.finetune.stem_mixing import MixPart, StemMixer, StemPool
from tonelake.store import DUPLICATE_COLUMN, InputError

CONFIG = FinetuneConfig("kind", task="multiclass", mix=0.999, mix_stems=4, mix_drums=0.0, mix_one_track=0.0)
CLASSES = ("bass",) * 8 + ("guitar",) * 2 + ("piano",) * 1 + ("drums",) * 1            # of each of six songs
RATE = 100


def pool():
    """Twelve stems of each of six songs, each at two times."""
    rows = [
        (f"{song}-{number}-{start}", f"r{song}-{number}", stem, song, float(start), 10.0)
        for song in range(6) for number, stem in enumerate(CLASSES) for start in (0, 10)
    ]
    schema = ["clip_id", "recording", "stem", "song", "start_s", "duration_s"]
    return StemPool(pl.DataFrame(rows, schema=schema, orient="row"))


def mixer(config=CONFIG, whole=False):
    clips = pool().clips
    mixes = clips.filter(pl.col("stem") == "bass").with_columns(pl.col("clip_id") + "-mix", stem=pl.lit("mix"))
    task = pl.concat([clips, mixes])
    return StemMixer(pool(), task, task["song"].to_numpy(), config, whole=whole)


def draws(config=CONFIG, clip="0-8-0", count=400, whole=False, length=1_000):
    """The mixes of one clip, of song 0 at its beginning, in many epochs."""
    one = mixer(config, whole)
    return [one.draw(clip, 3, epoch, 5, 900, lambda _: length) for epoch in range(count)]


def stem_of(part):
    return CLASSES[int(part.clip.split("-")[1])]


def test_no_stem_class_sounds_twice_and_the_number_of_stems_has_a_maximum():
    found = draws()
    assert all(parts[0].clip == "0-8-0" for parts in found)                              # the clip itself, a guitar
    classes = [[stem_of(part) for part in parts] for parts in found]
    assert all(len(set(kinds)) == len(kinds) and "drums" not in kinds for kinds in classes)
    assert {len(kinds) for kinds in classes} == {2, 3}                                   # there are three besides drums
    assert {len(parts) for parts in draws(replace(CONFIG, mix_stems=2))} == {2}


def test_drums_are_drawn_apart_from_the_other_stems():
    found = draws(replace(CONFIG, mix_drums=0.25, mix_stems=2))
    with_drums = [parts for parts in found if any(stem_of(part) == "drums" for part in parts)]
    assert 0.15 < len(with_drums) / len(found) < 0.35
    assert {len(parts) for parts in with_drums} == {3} and all(stem_of(parts[-1]) == "drums" for parts in with_drums)
    own = draws(replace(CONFIG, mix_drums=1.0, mix_stems=2), clip="0-11-0")               # the drums themselves
    assert {len(parts) for parts in own} == {3}                                           # with two others, never two drums
    assert all([stem_of(part) for part in parts].count("drums") == 1 for parts in own)


def test_the_temperature_decides_how_evenly_classes_are_drawn():
    """From a guitar, bass (8 a song) and piano (1 a song) are drawn as 8 to 1, or as 8 ** (1/3) = 2 to 1."""
    for temperature, expected in ((1.0, 8 / 9), (3.0, 2 / 3), (1e6, 1 / 2)):
        found = draws(replace(CONFIG, mix_stems=2, mix_temperature=temperature), count=1_500)
        share = Counter(stem_of(parts[1]) for parts in found)["bass"] / len(found)
        assert share == pytest.approx(expected, abs=0.04)


def test_gains_only_attenuate():
    gains = 20 * np.log10([part.gain for parts in draws() for part in parts])
    assert gains.max() <= 0 and gains.min() >= -12 and gains.mean() == pytest.approx(-6, abs=0.6)
    assert {part.gain for parts in draws(replace(CONFIG, mix_gain_db=0.0)) for part in parts} == {1.0}


def test_stems_of_one_track_are_heard_at_the_same_time():
    together = draws(replace(CONFIG, mix_one_track=1.0, mix_drums=1.0))
    for part in (part for parts in together for part in parts):
        song, _, start = part.clip.split("-")
        assert (song, start, part.begin) == ("0", "0", 5)
    apart = draws(CONFIG)
    assert len({part.clip.split("-")[0] for parts in apart for part in parts[1:]}) == 6
    assert len({part.begin for parts in apart for part in parts[1:]}) > 50                # crops of their own
    mixed = draws(replace(CONFIG, mix_one_track=0.5))
    share = np.mean([all(part.clip.endswith("-0") and part.clip[0] == "0" for part in parts) for parts in mixed])
    assert 0.4 < share < 0.65


def test_a_clip_of_the_whole_song_is_remade_from_its_stems_or_left_alone():
    assert all(parts == [MixPart("0-0-0-mix", 5, 1.0)] for parts in draws(clip="0-0-0-mix"))
    made = draws(clip="0-0-0-mix", whole=True)
    assert all("mix" not in part.clip for parts in made for part in parts) and {len(parts) for parts in made} == {2, 3}
    assert all(parts[0].clip.startswith("0-") and parts[0].clip.endswith("-0") for parts in made)     # one of its own
    assert all(len({stem_of(part) for part in parts}) == len(parts) for parts in made)


def test_seed_epoch_and_clip_decide_the_mix():
    one, other = mixer(), mixer().with_seed(1)
    first = one.draw("0-8-0", 3, 7, 5, 900, lambda _: 1_000)
    assert mixer().draw("0-8-0", 3, 7, 5, 900, lambda _: 1_000) == first
    assert one.draw("0-8-0", 3, 8, 5, 900, lambda _: 1_000) != first != other.draw("0-8-0", 3, 7, 5, 900, lambda _: 1_000)
    unmixed = [parts for parts in draws(replace(CONFIG, mix=0.3)) if len(parts) == 1]
    assert 0.6 < len(unmixed) / 400 < 0.8 and set(map(tuple, unmixed)) == {(MixPart("0-8-0", 5, 1.0),)}


class Sounds:
    """Decoded clips whose samples are their own number; every second clip is short."""

    def __init__(self, ids):
        self.values = {clip: number + 1.0 for number, clip in enumerate(ids)}

    def length(self, clip):
        return 300 if self.values[clip] % 2 else 1_000

    def read(self, clip, begin=0, count=None):
        end = self.length(clip) if count is None else min(begin + count, self.length(clip))
        return np.full(max(end - begin, 0), self.values[clip], np.float32)


def test_the_sound_of_a_mix_is_the_sum_of_its_parts_as_long_as_the_clip():
    ids = pool().clips["clip_id"].to_list()
    config = replace(CONFIG, window_s=1.0, crop_s=9.0)
    source = AudioSource(Sounds(ids), ids, config, RATE, mixer(config))
    row = ids.index("0-8-10")
    mixed = source.read(np.array([row]), 3)["audio"][0].numpy()
    parts = source.parts(row, 3)
    expected = np.zeros(900)
    for part in parts:
        sound = source.audio.read(part.clip, part.begin, 900)
        expected[: len(sound)] += part.gain * sound
    np.testing.assert_allclose(mixed, expected, rtol=1e-6)
    assert len(parts) > 1 and len(mixed) == 900
    assert (source.read(np.array([row]), None)["audio"][0].numpy() == ids.index("0-8-10") + 1).all()  # in validation: itself
    assert not np.array_equal(source.with_seed(9).read(np.array([row]), 3)["audio"][0].numpy(), mixed)


def test_only_stems_of_training_tracks_are_drawn(mine):
    from quick import QUICK

    with pytest.raises(InputError, match="the training tracks have no stems"):
        make_setup(mine, replace(QUICK, mix=0.5, mix_stems=2))
    clips = mine.clips.read().sort("source")
    stems = ["mix", "bass", "drums"] * 4
    songs = pl.Series(DUPLICATE_COLUMN, [f"t{i // 3}" for i in range(12)])
    mine.clips.set_labels(clips.select("clip_id").with_columns(songs, stem=pl.Series(stems)))
    setup = make_setup(mine, replace(QUICK, mix=0.5, mix_stems=2, split="by:track", where="stem = 'mix'"))
    training = set(setup.task.clips[DUPLICATE_COLUMN].gather(setup.split.train))
    drawn = setup.stems.clips.join(mine.clips.read(["clip_id", DUPLICATE_COLUMN]), on="clip_id")
    assert set(drawn[DUPLICATE_COLUMN]) == training and set(drawn["stem"]) == {"bass", "drums"}
    assert set(make_setup(mine, replace(QUICK, mix=0.5)).manifest().parts) == set(setup.manifest().parts) - {"stems"}
