"""Tags of clips: scored from stored vectors, written into a list column, which filters and updates like any other."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest

from tonelake import views
from tonelake.embed import EmbedSettings, embed_lake, read_tags, tag_clips
from tonelake.index import similar
from tonelake.ingest import read_clips
from tonelake.store import InputError

SETTINGS = EmbedSettings("fakes:TaggingFakeEncoder", device="cpu", space="tagging")


def test_tags_are_written_with_an_embedding_and_follow_the_settings(tracks):
    """50 clips: the column agrees with the stored vectors, is filtered as a list, and changes only where it has to."""
    report = embed_lake(tracks, SETTINGS, read_clips, tags=True)
    assert str(report).endswith("column tags_tagging: tags of 50 clips of space tagging, 50 changed")
    clips = tracks.clips.read(["clip_id", "tags_tagging"])
    assert clips.schema["tags_tagging"] == pl.List(pl.String)
    ids = clips["clip_id"].to_list()
    high = tracks.vectors(tracks.spaces.get("tagging")).take(ids, "high").vectors[:, 0]
    loud = 1 / (1 + np.exp(-high))
    assert len(set(np.sign(high))) == 2                              # some clips are loud, some quiet
    assert clips["tags_tagging"].to_list() == [["loud", "quiet"] if share >= 0.5 else ["quiet", "loud"] for share in loud]
    again = embed_lake(tracks, EmbedSettings(space="tagging"), read_clips, tags=True)
    assert (again.new, again.tagged.clips, again.tagged.changed) == (0, 50, 0)
    likeliest = tag_clips(tracks, "tagging", column="mood", least=0.5, most=1)
    assert (likeliest.column, likeliest.changed) == ("mood", 50)
    assert len(tracks.clips.read(where="array_has(mood, 'loud')")) == (loud >= 0.5).sum()
    tag_clips(tracks, "tagging", column="mood", least=1.0)
    assert tracks.clips.read(["mood"])["mood"].to_list() == [[]] * 50
    hits = similar(tracks, ids[0], space="tagging", explain=True, clips=True, k=3)
    stored = tracks.clips.take(hits["clip_id"].to_list(), ["clip_id", "tags_tagging"])
    assert hits.select("clip_id", tags_tagging="heard").equals(stored)
    assert views.hits(hits)["heard"][0] == ", ".join(hits["heard"][0])
    scores = read_tags(tracks, ids[:3], "tagging")
    assert scores["clip_id"].to_list() == [clip for clip in ids[:3] for _ in range(2)]
    for row in range(3):
        one = scores[2 * row : 2 * row + 2]
        assert one["tag"].to_list() == clips["tags_tagging"][row].to_list() and one["score"][0] >= one["score"][1]
        assert dict(zip(one["tag"], one["score"], strict=True))["loud"] == pytest.approx(loud[row], abs=1e-5)


def test_tags_that_cannot_be_had_are_refused_before_anything_is_embedded(reference, tracks):
    with pytest.raises(InputError, match=r"encoder 'fakes:FakeEncoder': has no tags\. Use one that has: `tonelake embed --enc"):
        embed_lake(tracks, EmbedSettings("fakes:FakeEncoder"), read_clips, tags=True)
    assert not tracks.spaces.all()
    with pytest.raises(InputError, match="has no tags"):
        read_tags(reference, reference.clips.ids().to_list()[:1])
    for values, problem in (({"least": 1.5}, r"least score 1\.5: out of range"), ({"most": 0}, "0 tags: too few")):
        with pytest.raises(InputError, match=problem):
            tag_clips(reference, **values)
    embed_lake(tracks, SETTINGS, read_clips)
    with pytest.raises(InputError, match="nothing"):
        read_tags(tracks, ["nothing"], "tagging")
    with pytest.raises(InputError, match="artist"):
        tag_clips(tracks, "tagging", column="artist")
