"""The hits of the Listen page: what is asked for as a query, its nearest songs, and why each of them is near."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import polars as pl

from tonelake import Lake
from tonelake.embed import EncoderError, list_clip_tags
from tonelake.index import Query, QueryPart, answers_words, best_moments, layer_agreement, song_of_clip
from tonelake.shelf import clips_of_song, word_space
from tonelake.store import InputError, Space, SpaceMismatch
from tonelake.ui.listening.address import Asked
from tonelake.ui.listening.drawer import SearchChoices
from tonelake.ui.listening.heard import heard_file
from tonelake.ui.shared import rows_for_list

COMPARED_HITS = 12                       # first hits that the best moments of the chosen song are nearest to
TAGGED_CLIPS = 60                        # clips of the chosen song whose tags are counted
QUERY_TAGS, BOTH_TAGS = 5, 3
COSINE = "cosine_"                       # prefix of columns with the cosine in each of several spaces
DEPTHS = {
    "early layers": "nearest in early layers (timbre, pitch)", "middle layers": "nearest in middle layers",
    "late layers": "nearest in late layers (rhythm, style)",
}


@dataclass(frozen=True, kw_only=True)
class Found:
    """Hits of a search, with all that the page shows of them."""

    hits: pl.DataFrame
    scope: str                           # what was compared, as a sentence
    rows: list[dict[str, Any]] = field(default_factory=list)         # for a list of clips
    usual: list[float] = field(default_factory=list)                 # cosine of an average clip by layer, of profiles
    moments: list[dict[str, Any]] = field(default_factory=list)      # of the chosen song
    tags: list[str] = field(default_factory=list)                    # of the chosen song
    notes: list[str] = field(default_factory=list)


def find_hits(lake: Lake, asked: Asked, comparison: SearchChoices, where: str | None) -> Found:
    """Search for what is asked for.  Raises TonelakeError as `lake.similar`, and for an upload that is not known here."""
    space, layer, notes = comparison.space, comparison.layer, []
    query, minus = query_of(lake, asked, comparison)
    settings: dict[str, Any]
    if asked.words:
        space = words_in(lake, asked.words, space)
        settings = {"space": space.name, "text": asked.words}
        scope = f"By the words, in space {space.name}"
    elif comparison.other is not None:
        beside, share = comparison.other
        settings = {
            "spaces": {f"{space.name}/{layer}": 1 - share, beside.name: share}, "minus": minus, "not_same": comparison.not_same,
        }
        scope = (f"By sound: {1 - share:.0%} {space.name} (layer {layer}) and {share:.0%} {beside.name} (layer "
                 f"{beside.layers[beside.default_layer]}), cosines above that of an average clip in standard deviations")
        if min(lake.vectors(one).count() for one in (space, beside)) < lake.clips.count():
            notes.append("Only clips that are embedded in both spaces are compared.")
    else:
        mixed = comparison.mixture or None
        settings = {
            "space": space.name, "minus": minus, "layer": None if mixed else layer, "layers": mixed,
            "not_same": comparison.not_same, "like": comparison.like, "unlike": comparison.unlike,
            "explain": comparison.profiles, "hubs": "corrected" if comparison.hubs_corrected else "kept",
        }
        scope = f"By sound: cosine in the mixture {mixed}" if mixed else f"By sound: cosine in layer {layer} of {space.name}"
        facets = (("by", comparison.like), ("without", comparison.unlike))
        scope += "".join(f", {how} {column}" for how, column in facets if column)
    hits = lake.similar(
        query, k=comparison.count, where=where, clips=not comparison.songs, per=comparison.per,
        order="walk" if comparison.walk else "nearest", **settings,
    )
    scope += ", each near the one before it" if comparison.walk else ", nearest first"
    if not len(hits):
        return Found(hits=hits, scope=scope, notes=notes)
    ids = hits["clip_id"].to_list()
    if "cosine" in hits.columns:         # that of each space
        hits = hits.with_columns(pl.col("cosine").name.prefix_fields(COSINE)).unnest("cosine")
    hits = hits.join(lake.clips.take(ids, ["album"]), on="clip_id", how="left", maintain_order="left")
    own = clips_of_song(lake, asked.songs[0], ["duration_s"]) if asked.songs else None
    heard, tags, sentence = tags_for(lake, comparison.tagging, hits, own)
    notes += [sentence] if sentence else []
    depth: dict[str, str] = {}
    if not asked.words and comparison.other is None:
        depth = depths_of(lake, query, ids, minus, space)
    moments: list[dict[str, Any]] = []
    if own is not None and len(asked.songs) == 1:
        weights = {space.layer_index(layer): 1.0}
        moments = best_moments(lake, space, weights, own, ids[:COMPARED_HITS]).to_dicts()
    usual = list(hits["usual"][0].values()) if "usual" in hits.columns else []
    return Found(
        hits=hits.drop("usual", strict=False), scope=scope, rows=rows_of_hits(hits, heard, tags, depth, songs=comparison.songs),
        usual=usual, moments=moments, tags=tags, notes=notes,
    )


def query_of(lake: Lake, asked: Asked, comparison: SearchChoices) -> tuple[list[QueryPart], list[QueryPart]]:
    """Return the parts of a query and of what is subtracted; none for words.  Songs are whole unless a moment is compared."""
    if asked.words:
        return [], []
    if asked.heard:
        spaces = (comparison.space, *(comparison.other or ())[:1])
        return [heard_in(asked.heard, space) for space in spaces], []

    def part(clip_id: str) -> QueryPart:
        return clip_id if comparison.moment else song_of_clip(lake, clip_id)

    return [part(one) for one in asked.songs], [part(one) for one in asked.minus]


def heard_in(token: str, space: Space) -> Query:
    """Return an upload as a query in a space.  Raises SpaceMismatch if it was embedded in other spaces only."""
    found = heard_file(token)
    if space.fingerprint not in found.queries:
        raise SpaceMismatch(f"{found.name}: it was not embedded in space {space.name!r}. Drop it again to compare it there")
    return found.queries[space.fingerprint]


def words_in(lake: Lake, words: str, space: Space) -> Space:
    """Return the space that answers words: the chosen one if it does.  Raises InputError if none does."""
    found = space if answers_words(space, words) else word_space(lake, words)
    if found is None:
        raise InputError(
            "words: no space of this lake understands them. Embed with an encoder that does: `tonelake embed --encoder clap`"
        )
    return found


def tags_for(
    lake: Lake, space: Space | None, hits: pl.DataFrame, own: pl.DataFrame | None
) -> tuple[list[list[str]], list[str], str]:
    """Return the likeliest tags of each hit, those of the chosen song, and a sentence if they cannot be had."""
    none: list[list[str]] = [[] for _ in range(len(hits))]
    if space is None:
        return none, [], ""
    clips = [] if own is None else own["clip_id"].to_list()[:TAGGED_CLIPS]
    known = set(lake.vectors(space).table.take(clips, ["clip_id"]).column("clip_id").to_pylist()) if clips else set()
    clips = [one for one in clips if one in known]
    try:
        found = list_clip_tags(lake, space, [*hits["clip_id"], *clips])
    except EncoderError as error:
        return none, [], f"Tags are not shown: {str(error).partition(chr(10))[0]}"
    if found is None:
        return none, [], ""
    every = found.to_list()
    counted = Counter(tag for tags in every[len(hits):] for tag in tags)
    return every[: len(hits)], [tag for tag, _ in counted.most_common(QUERY_TAGS)], ""


def depths_of(
    lake: Lake, query: Sequence[QueryPart], hits: Sequence[str], minus: Sequence[QueryPart], space: Space
) -> dict[str, str]:
    """Return the depth at which each hit agrees most with the query, in words, by clip id."""
    found = layer_agreement(lake, query, hits, minus=minus, space=space.name)
    rows = found.select("clip_id", "depth").iter_rows()
    return {clip_id: DEPTHS.get(depth, f"nearest in {depth}") for clip_id, depth in rows}


def rows_of_hits(
    hits: pl.DataFrame, heard: Sequence[Sequence[str]], asked_tags: Sequence[str], depth: dict[str, str], *, songs: bool
) -> list[dict[str, Any]]:
    """Return hits as rows for a list: the score, the best moment, and why each is near."""
    notes: list[pl.Expr] = []
    notes += [
        pl.format("{} {}", pl.lit(name.removeprefix(COSINE)), pl.col(name).round(3))
        for name in hits.columns if name.startswith(COSINE)
    ]
    notes += [pl.when(pl.col("state") == "missing").then(pl.lit("its file is missing"))] if "state" in hits.columns else []
    note = pl.concat_str(notes, separator=", ", ignore_nulls=True) if notes else None
    near = dict(hits.select("clip_id", "clips").iter_rows()) if "clips" in hits.columns else {}
    rows = rows_for_list(hits, score="score", note=note, moments=True, whole=songs)
    for row, tags in zip(rows, heard, strict=True):
        both = [tag for tag in tags if tag in asked_tags][:BOTH_TAGS]
        reasons = [f"both {', '.join(both)}"] if both else []
        if row["clip_id"] in depth:
            reasons.append(depth[row["clip_id"]])
        if songs and near.get(row["clip_id"], 1) > 1:
            reasons.append(f"{near[row['clip_id']]} such moments")
        row["why"] = " · ".join(reasons)
        if tags and not both:
            row["tags"] = list(tags)
    if "by_layer" in hits.columns:
        for row, profile in zip(rows, hits["by_layer"], strict=True):
            row["profile"] = list(profile.values())
    return rows
