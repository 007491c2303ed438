"""Mixes of stems for training: which stems of the training tracks sound together, and how loud.

A clip is mixed with a probability of `mix`.  One policy decides the rest (arguments of `FinetuneConfig`):

    mix_stems         2 to this many stems, the clip's own among them, no stem class twice
    mix_temperature   a class with n clips is drawn in proportion to n ** (1 / temperature)
    mix_drums         drums are drawn apart, in this share of mixes, and do not count among the stems
    mix_one_track     share of mixes whose stems are of the clip's own track at the same time, as they were played together;
                      in the others each stem may be of any training track
    mix_gain_db       each stem is attenuated by 0 dB to this, never amplified

The draw for a clip depends only on seed, epoch and clip, so that a resumed run gives the same result.
"""

from __future__ import annotations

import copy
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import polars as pl

from tonelake.evaluate import digest_text
from tonelake.finetune.config import FinetuneConfig
from tonelake.store import InputError, Lake, read_songs

if TYPE_CHECKING:
    from tonelake.evaluate import Split, Targets

STEM, MIX, DRUMS = "stem", "mix", "drums"                # column, and its values for a whole song and for drums
POOL_COLUMNS = ("clip_id", "recording", STEM, "start_s", "duration_s")


class MixPart(NamedTuple):
    """One stem in a mix."""

    clip: str
    begin: int                           # first sample of the clip that is heard
    gain: float                          # factor, at most 1


@dataclass(frozen=True)
class StemPool:
    """The clips of single stems of the training tracks: clip_id, recording, stem, song, start_s, duration_s."""

    clips: pl.DataFrame

    def digest(self) -> str:
        """Return a digest of the stems, their songs and times."""
        parts = self.clips.select("clip_id", STEM, "start_s", "duration_s")
        songs = digest_text(self.clips["song"].rank("dense").cast(pl.String))
        return digest_text(pl.Series([repr(row) for row in parts.iter_rows()] + [songs], dtype=pl.String))

    def without(self, ids: set[str]) -> StemPool:
        """Leave out clips that cannot be read."""
        return StemPool(self.clips.filter(~pl.col("clip_id").is_in(list(ids))))

    def of_songs(self, songs: Sequence[int]) -> StemPool:
        """Keep only the stems of these songs."""
        return StemPool(self.clips.filter(pl.col("song").is_in(list(songs))))


def read_stem_pool(lake: Lake, task: Targets, split: Split) -> StemPool:
    """Return the stems of the songs that are only in the training set, also those that the filter of the task leaves out.

    Raises InputError if there are none.
    """
    songs = read_songs(lake.clips)
    own = songs.of(task.ids)
    elsewhere = set(own[np.concatenate([split.valid, split.test])].tolist())
    training = set(own[split.train].tolist()) - elsewhere
    stems = lake.clips.read(POOL_COLUMNS, where=f"{STEM} IS NOT NULL AND {STEM} <> '{MIX}'")
    stems = stems.with_columns(song=pl.Series(songs.of(stems["clip_id"]), dtype=pl.Int64))
    stems = stems.filter(pl.col("song").is_in(list(training))).sort("clip_id")
    if not len(stems):
        raise InputError(
            "setting 'mix_stems': the training tracks have no stems. Ingest a data set with stems, such as slakh, or run "
            "`tonelake separate`"
        )
    return StemPool(stems)


class StemMixer:
    """Draws mixes for training clips."""

    def __init__(self, pool: StemPool, clips: pl.DataFrame, songs: np.ndarray, config: FinetuneConfig, *, whole: bool) -> None:
        """`clips`: clip_id, start_s and, if the lake has it, stem of the task; `songs`: (clip,) their songs, as in the pool.
        `whole`: remake the clip of a whole song from stems of its track; otherwise such a clip is left as it is."""
        self.config, self.whole = config, whole
        self.ids = pool.clips["clip_id"].to_list()
        self.stems = pool.clips[STEM].to_list()
        self.seconds = pool.clips["duration_s"].to_list()
        stem = clips[STEM].to_list() if STEM in clips.columns else [None] * len(clips)
        self.own = {
            clip: (kind, moment(song, start)) for clip, kind, song, start in
            zip(clips["clip_id"], stem, songs.tolist(), clips["start_s"], strict=True)
        }
        self.by_class: Mapping[str, list[int]] = defaultdict(list)
        self.by_moment: Mapping[tuple[int, int], list[int]] = defaultdict(list)
        for row, (kind, song, start) in enumerate(pool.clips.select(STEM, "song", "start_s").iter_rows()):
            self.by_class[kind].append(row)
            self.by_moment[moment(song, start)].append(row)

    def with_seed(self, seed: int) -> StemMixer:
        """Return a mixer that draws other mixes of the same stems."""
        other = copy.copy(self)
        other.config = replace(self.config, seed=seed)
        return other

    def draw(self, clip: str, row: int, epoch: int, begin: int, crop: int, length: Callable[[str], int]) -> list[MixPart]:
        """Return the stems that sound in place of a training clip, itself alone if it is not mixed.

        `row`: of the task; `begin`: first sample of the clip's crop of `crop` samples; `length`: samples of a clip.
        """
        rng = np.random.default_rng((self.config.seed, 4, epoch, row))
        alone = [MixPart(clip, begin, 1.0)]
        stem, at = self.own[clip]
        is_whole = stem is None or stem == MIX
        if rng.random() >= self.config.mix or (is_whole and not self.whole):
            return alone
        together = self.by_moment[at]
        one_track = rng.random() < self.config.mix_one_track
        wanted = int(rng.integers(2, (self.config.mix_stems or 2) + 1))
        with_drums = rng.random() < self.config.mix_drums
        chosen: list[int] = []
        used = {DRUMS}
        if is_whole:
            first = self.draw_stem(rng, together, used)
            if first is None:
                return alone
            chosen.append(first)
            used.add(self.stems[first])
        else:
            used.add(str(stem))
            wanted += stem == DRUMS      # the drums do not count
        while len(chosen) + (not is_whole) < wanted:
            found = self.draw_stem(rng, together if one_track else None, used)
            if found is None:
                break
            chosen.append(found)
            used.add(self.stems[found])
        if with_drums and stem != DRUMS:
            drums = [row for row in together if self.stems[row] == DRUMS] if one_track else self.by_class.get(DRUMS, [])
            if drums:
                chosen.append(drums[int(rng.integers(len(drums)))])
        if not chosen:
            return alone
        parts = [] if is_whole else [MixPart(clip, begin, self.draw_gain(rng))]
        same = set(together)
        for number in chosen:
            spare = max(length(self.ids[number]) - crop, 0)
            other = begin if number in same else int(rng.integers(spare + 1))
            parts.append(MixPart(self.ids[number], other, self.draw_gain(rng)))
        return parts

    def draw_stem(self, rng: np.random.Generator, rows: Sequence[int] | None, used: set[str]) -> int | None:
        """Return a stem of a class that is not used yet, of `rows` or of all; None if there is none."""
        by_class = self.by_class
        if rows is not None:
            by_class = defaultdict(list)
            for row in rows:
                by_class[self.stems[row]].append(row)
        classes = sorted(kind for kind, members in by_class.items() if members and kind not in used)
        if not classes:
            return None
        shares = np.array([len(by_class[kind]) for kind in classes], float) ** (1 / self.config.mix_temperature)
        members = by_class[classes[int(rng.choice(len(classes), p=shares / shares.sum()))]]
        return members[int(rng.integers(len(members)))]

    def draw_gain(self, rng: np.random.Generator) -> float:
        """Return a factor between `mix_gain_db` and 0 dB."""
        return float(10 ** (rng.uniform(self.config.mix_gain_db, 0) / 20))


def moment(song: int, start_s: float) -> tuple[int, int]:
    """Return a key that is equal for clips of one song that begin at the same millisecond."""
    return song, round(start_s * 1000)
