"""Find a path from one song or clip to another: stations in between, each the song nearest to an evenly spaced point.

Words are an end by the song that answers them best: sounds are nearer to sounds than to words, whatever they mean
(`index.search.words`), so that an arc from a sound to words would leave the region of sounds.

In each layer the points divide the great-circle arc between the two ends' directions evenly (Shoemake 1985).  No song occurs
twice, and the stations are chosen together: the assignment of songs to points with the highest sum of scores.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence

import numpy as np
import polars as pl

from tonelake.index.search.candidates import Embedded, allowed_rows, embedded_in_layer
from tonelake.index.search.mixture import Weights
from tonelake.index.search.query import Query, QueryPart, resolve_one, song_name, to_compare
from tonelake.index.search.similar import SHOWN, Search, choose_layers, similar
from tonelake.index.search.songs import nearest_songs
from tonelake.index.search.words import choose_word_space
from tonelake.index.vectors import unit
from tonelake.store import InputError, Lake, Space, read_songs

MOST_STATIONS = 500

log = logging.getLogger(__name__)


def path(
    lake: Lake, start: QueryPart | None = None, end: QueryPart | None = None, *, start_text: str | Sequence[str] = (),
    end_text: str | Sequence[str] = (), steps: int = 5, space: str | None = None, layer: int | str | None = None,
    layers: str | Mapping[int | str, float] | None = None, where: str | None = None, like: str | None = None,
    unlike: str | None = None, clips: bool = False, among: Sequence[str] | pl.Series | None = None,
) -> pl.DataFrame:
    """Return `steps` songs that lead from `start` to `end` (clips, songs or files), and the two ends if they are in the lake.

    `start_text` and `end_text`: words instead of an end, as for `similar`; the end is then the song that answers them best, of
    those that satisfy `where`, in the space that answers words.
    A song is shown by the clip nearest to its point.  With `clips`, the stations are clips, and a song may have several.
    Returns step, place (0 at the start, 1 at the end), score (to the point on the arc), to_start and to_end (to the two ends),
    clip_id, clips (unless `clips` is True: how many clips of the song may be stations) and columns that describe the clip.
    `where`, `layers`, `like` and `unlike` are as for `similar`; `among`: ids of the clips that may be stations.  The ends
    themselves need not satisfy either.  Fewer stations are returned only if fewer are allowed.
    Raises InputError if the ends are the same clip, or opposite in a layer, or if one is zero in a layer, and as `similar` for
    words.
    """
    if not 1 <= steps <= MOST_STATIONS:
        raise InputError(f"{steps} stations: must be 1 to {MOST_STATIONS}")
    worded = [check_end("start", start, start_text), check_end("end", end, end_text)]
    chosen = choose_word_space(lake, space)[0] if any(worded) else lake.spaces.get(space)
    weights = choose_layers(lake, chosen, layer, layers)
    ends = resolve_ends(lake, (start, end), (start_text, end_text), chosen, weights, where)
    for note in (*ends[0].notes, *ends[1].notes):
        log.info("%s", note)
    if ends[0].own & ends[1].own:
        raise InputError(f"{start} and {end} are the same clip. A path needs two ends")
    search = Search(lake=lake, space=chosen, like=like, unlike=unlike)
    places = np.arange(1, steps + 1) / (steps + 1)
    points = [arc_point(ends, weights, search, place) for place in places]
    ids, products = search.scores_of(weights, [*points, *(one.vectors for one in ends)])  # (station and end, clip)
    scores, to_ends = products[:steps], products[steps:]
    own = Query({}, own=ends[0].own | ends[1].own)
    known = embedded_in_layer(lake, chosen, ids)
    allowed = allowed_rows(lake, known, own, where, None, own_songs=not clips)
    if among is not None:
        rows = known.rows.of(among)
        among_rows = np.zeros(len(ids), bool)
        among_rows[rows[rows >= 0]] = True
        allowed = among_rows if allowed is None else allowed & among_rows
    songs = known.each_clip if clips else known.songs
    stations, rows = assign(scores, allowed, songs.numbers)
    found = pl.DataFrame({
        "place": places[stations], "score": scores[stations, rows], "to_start": to_ends[0][rows], "to_end": to_ends[1][rows],
        "clip_id": ids.gather(rows),
    })
    if not clips:
        members = [songs.members(songs.numbers[[row]]) for row in rows]
        counts = [len(own) if allowed is None else int(allowed[own].sum()) for own in members]
        found = found.with_columns(clips=pl.Series(counts, dtype=pl.Int64))
    whole = pl.concat(
        [end_row(ends[0], 0.0, known, to_ends, clips), found, end_row(ends[1], 1.0, known, to_ends, clips)], how="diagonal"
    )
    whole = whole.select(pl.int_range(pl.len()).alias("step"), pl.all())
    shown = lake.clips.take(whole["clip_id"].to_list(), SHOWN)
    return whole.join(shown, on="clip_id", how="left", maintain_order="left")


def check_end(name: str, part: QueryPart | None, text: str | Sequence[str]) -> bool:
    """Whether an end is given by words.  Raises InputError unless it is given once."""
    worded = isinstance(text, str) or len(text) > 0
    if worded == (part is not None):
        raise InputError(f"{name} of the path: must be a clip, song or file, or words. Give it, or --{name}-text, and not both")
    return worded


def resolve_ends(
    lake: Lake, parts: Sequence[QueryPart | None], texts: Sequence[str | Sequence[str]], space: Space, weights: Weights,
    where: str | None,
) -> list[Query]:
    """Resolve both ends; one that is None is the clip that answers its words best."""
    layers = list(weights)
    found = [None if part is None else resolve_one(lake, part, space, layers) for part in parts]
    for number, text in enumerate(texts):
        if found[number] is None:
            other = found[1 - number]
            clip = best_clip(lake, text, space, where, other.own if other else frozenset())
            found[number] = resolve_one(lake, clip, space, layers)
    return [to_compare(one, space, layers, "cosine") for one in found if one is not None]


def best_clip(lake: Lake, text: str | Sequence[str], space: Space, where: str | None, taken: frozenset[str]) -> str:
    """Return the id of the clip that answers words best, of another song than the clips `taken`.

    Raises InputError if there is none that satisfies `where`, and as `similar`.
    """
    hits = similar(lake, text=text, space=space.name, k=2, where=where)
    songs = read_songs(lake.clips)
    if taken:
        hits = hits.filter(pl.Series(~np.isin(songs.of(hits["clip_id"]), songs.of(sorted(taken)))))
    if not len(hits):
        raise InputError("words of the path: no other song satisfies the filter. Widen --where")
    best = hits.row(0, named=True)
    log.info("%s answers the words best", song_name(best))
    return str(best["clip_id"])


def arc_point(ends: list[Query], weights: Weights, search: Search, place: float) -> dict[int, np.ndarray]:
    """Return the point at `place` (0 to 1) on the arc from one end to the other, by layer."""
    points = {}
    for layer in weights:
        a, b = (unit(end.vectors[layer][None])[0] for end in ends)
        angle = np.arccos(np.clip(a @ b, -1, 1))
        if angle > np.pi - 1e-3:
            name = search.space.layers[layer]
            raise InputError(f"layer {name}: the two ends are opposite, so no arc between them is shortest")
        even = np.array([1 - place, place])
        share_a, share_b = even if angle < 1e-4 else np.sin(even * angle) / np.sin(angle)
        points[layer] = (share_a * a + share_b * b).astype(np.float32)
    return points


def assign(
    scores: np.ndarray, allowed: np.ndarray | None, songs: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return (stations, rows): the best clip of one song for each station, with the highest possible sum of scores.

    `scores`: (station, clip); `songs`: (clip,) the song of each; no two stations take one song.
    """
    from scipy.optimize import linear_sum_assignment

    # n stations need only the n best songs of each: the other stations cannot take all of them.
    best = [nearest_songs(row, songs, len(scores), allowed)[0] for row in scores]
    candidates = np.unique(songs[np.concatenate(best)])
    if not len(candidates):
        return np.empty(0, np.int64), np.empty(0, np.int64)
    members = np.isin(songs, candidates) if allowed is None else np.isin(songs, candidates) & allowed
    rows = np.flatnonzero(members)
    rows = rows[np.argsort(songs[rows], kind="stable")]
    starts = np.flatnonzero(np.diff(songs[rows], prepend=songs[rows[0]] - 1))
    of_songs = np.maximum.reduceat(scores[:, rows], starts, axis=1)                       # (station, song)
    stations, chosen = linear_sum_assignment(of_songs, maximize=True)
    ends = np.append(starts, len(rows))
    best_rows = [
        rows[ends[song] + scores[station, rows[ends[song] : ends[song + 1]]].argmax()]
        for station, song in zip(stations, chosen, strict=True)
    ]
    return stations, np.array(best_rows, np.int64)


def end_row(end: Query, place: float, known: Embedded, to_ends: np.ndarray, clips: bool) -> pl.DataFrame:
    """Return one row for an end of the path that is in the lake, none for other audio.

    An end of several clips, a file or a name, is shown as a song by the one that is nearest to their mean.
    """
    rows = known.rows.of(sorted(end.own))
    rows = np.sort(rows[rows >= 0])
    if clips and len(end.own) > 1:
        rows = rows[:0]
    own = to_ends[round(place)][rows]
    rows = rows[[own.argmax()]] if len(rows) else rows
    found = pl.DataFrame({
        "place": np.full(len(rows), place), "score": np.ones(len(rows), np.float32), "to_start": to_ends[0][rows],
        "to_end": to_ends[1][rows], "clip_id": known.ids.gather(rows),
    })
    return found if clips else found.with_columns(clips=pl.lit(len(end.own), pl.Int64))
