"""Tags of clips, scored from the vectors of a space whose encoder names tags: nothing is decoded or encoded again."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl

from tonelake.embed.encoders.base import Encoder
from tonelake.embed.encoders.registry import has_tags
from tonelake.embed.settings import encoder_of
from tonelake.store import InputError, Lake, Space, chunks, is_derived

LEAST_SCORE = 0.1                        # of a tag that is stored; networks trained on rare tags score low
MOST_TAGS = 10                           # of a clip
CLIPS_AT_ONCE = 8192


@dataclass(frozen=True, kw_only=True)
class TagReport:
    """A list column of tags as written."""

    space: str
    column: str
    clips: int                           # whose tags were scored
    changed: int                         # whose list differs from the one that was stored

    def __str__(self) -> str:
        return f"column {self.column}: tags of {self.clips:,} clips of space {self.space}, {self.changed:,} changed"


def tag_clips(
    lake: Lake, space: str | None = None, *, column: str | None = None, least: float = LEAST_SCORE, most: int = MOST_TAGS
) -> TagReport:
    """Write the most likely tags of every clip that is embedded in a space into a list column, the likeliest first.

    `column`: its name, by default `tags_` and the encoder's name.  `least`: the smallest score, from 0 to 1, of a tag that is
    listed; `most`: how many are listed.  Raises InputError if the space's encoder has no tags, or a value is out of range.
    """
    if not 0 <= least <= 1:
        raise InputError(f"least score {least:g}: out of range. Choose from 0 to 1")
    if most < 1:
        raise InputError(f"{most} tags: too few. Choose 1 or more")
    chosen = lake.spaces.get(space)
    encoder = tagging_encoder(lake, chosen)
    column = column or "tags_" + re.sub(r"[^a-z0-9_]+", "_", encoder.name.split("/")[-1].lower())
    ids = lake.vectors(chosen).ids()
    ids = ids.filter(ids.is_in(lake.clips.ids().implode()))          # the clips of some vectors may be gone
    changed = 0
    for part in chunks(ids.to_list(), CLIPS_AT_ONCE):
        scores = score_clips(lake, chosen, encoder, part)
        values = pl.Series(column, [list_tags(row, encoder.tags, least, most) for row in scores], dtype=pl.List(pl.String))
        changed += len(lake.clips.update(pl.DataFrame({"clip_id": part, column: values})))
    return TagReport(space=chosen.name, column=column, clips=len(ids), changed=changed)


def read_tags(lake: Lake, clips: Sequence[str], space: str | None = None) -> pl.DataFrame:
    """Scores of every tag of clips that are embedded in a space: clip_id, tag and score, the likeliest first.

    Raises InputError if the space's encoder has no tags, or a clip is unknown or not embedded.
    """
    chosen = lake.spaces.get(space)
    encoder = tagging_encoder(lake, chosen)
    scores = score_clips(lake, chosen, encoder, clips)
    order = np.argsort(-scores, axis=1, kind="stable")
    return pl.DataFrame({
        "clip_id": np.repeat(np.asarray(clips, object), len(encoder.tags)).tolist(),
        "tag": [encoder.tags[number] for row in order for number in row],
        "score": np.take_along_axis(scores, order, axis=1).ravel(),
    }, schema={"clip_id": pl.String, "tag": pl.String, "score": pl.Float32})


def list_clip_tags(
    lake: Lake, space: Space, clips: Sequence[str], *, least: float = LEAST_SCORE, most: int = MOST_TAGS
) -> pl.Series | None:
    """The likeliest tags of each clip, as `tag_clips` writes them; None if a space has no tags.

    Raises EncoderError if the weights that score them are not on this machine.
    """
    if is_derived(space) or not has_tags(space.location):
        return None
    encoder = encoder_of(space, home=lake.uri, download=False)
    if not clips:
        return pl.Series([], dtype=pl.List(pl.String))
    scores = score_clips(lake, space, encoder, clips)
    return pl.Series([list_tags(row, encoder.tags, least, most) for row in scores], dtype=pl.List(pl.String))


def tagging_encoder(lake: Lake, space: Space) -> Encoder:
    """The encoder of a space.  Raises InputError if it has no tags."""
    check_tags(space.location)
    return encoder_of(space, home=lake.uri)


def check_tags(location: str) -> None:
    """Raise InputError if the encoder at a location has no tags; its weights are not loaded."""
    if not has_tags(location):
        raise InputError(f"encoder {location!r}: has no tags. Use one that has: `tonelake embed --encoder musicnn --tags`")


def score_clips(lake: Lake, space: Space, encoder: Encoder, clips: Sequence[str]) -> np.ndarray:
    """(clip, tag) scores of clips, in their order."""
    vectors = lake.vectors(space)
    return encoder.score_tags([vectors.take(clips, layer).vectors for layer in encoder.tag_layers])


def list_tags(scores: np.ndarray, tags: Sequence[str], least: float, most: int) -> list[str]:
    """The likeliest tags of one clip.

    >>> list_tags(np.array([0.1, 0.6, 0.3, 0.3]), ["loud", "piano", "slow", "quiet"], 0.2, 2)
    ['piano', 'slow']
    """
    order = np.argsort(-scores, kind="stable")[:most]
    return [tags[number] for number in order if scores[number] >= least]
