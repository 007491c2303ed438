"""Compare two clips, files or songs, or one of them with words: their cosine, and its percentile in the lake.

A cosine alone says little, because layers differ in how similar any two sounds are: 0.9 can be a copy at one layer, and two
random songs at another.  The reference is all pairs of REFERENCE_SONGS songs drawn at random, without the songs compared.  Two
clips are compared with pairs of clips (one of each song, drawn at random), everything else with pairs of songs (the mean of
their clips), since a mean over more audio is nearer to all others.

Sounds are nearer to sounds than to words, whatever they mean (`index.search.words`), so the reference of a cosine with words is
the cosines of the same words with the songs that are drawn.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl

from tonelake.index.search.query import Query, QueryPart, resolve_one, song_name
from tonelake.index.search.words import check_text_layer, choose_word_space, parse_prompts, text_vector
from tonelake.index.vectors import unit
from tonelake.store import InputError, Lake, Space, read_songs

REFERENCE_SONGS = 200                    # 19,900 pairs
LEAST_SONGS = 5                          # with fewer there is no reference
MOST_CLIPS = 50                          # of a song of the reference

log = logging.getLogger(__name__)


def cosine(
    lake: Lake, first: QueryPart, second: QueryPart | None = None, *, text: str | Sequence[str] = (), space: str | None = None,
    layer: int | str | None = None, layers: str | Sequence[int | str] | None = None, seed: int = 0,
) -> pl.DataFrame:
    """Return the cosine of two clips, files, songs or vectors at one layer (default: the space's) or several.

    `text`: words to compare with instead of `second`, one prompt or several as for `similar`, in the layer that they share with
    sounds.

    `layers`: numbers or names, as a list or as text ("3,11"), or "all".  A file that is not in the lake is embedded with the
    space's encoder; a song, or a file of the lake, is the mean of its clips.  `seed`: of the random pairs.

    Columns: layer, name, cosine (null if either vector is zero, as for silence), percentile (the share in percent of random
    pairs of the lake with a lower cosine; for words, of songs with a lower cosine to the same words), usual (the mean cosine of
    these pairs) and pairs, their number.  A lake of fewer than LEAST_SONGS other songs has no reference: null, null and 0.
    Sentences about what is compared are logged.

    Raises InputError for unknown or repeated layers, unless there is either `second` or `text`, in a space that answers words
    by tags, and as `resolve` and `resolve_words`.
    """
    worded = isinstance(text, str) or len(text) > 0
    if worded == (second is not None):
        raise InputError("a cosine compares a clip, song or file with another one or with words (--text). Give one of the two")
    if worded:
        chosen, numbers, words = resolve_compared_words(lake, text, space, layer, layers)
        queries = [resolve_one(lake, first, chosen, numbers)]
    else:
        assert second is not None
        chosen, words = lake.spaces.get(space), None
        numbers = read_layers(chosen, layer, layers)
        queries = [resolve_one(lake, part, chosen, numbers) for part in (first, second)]
    for query in queries:
        for note in (*query.notes, *describe_mean(query, lake.vectors(chosen).ids())):
            log.info("%s", note)
    reference = draw_reference(lake, chosen, queries, seed, words)
    log.info("%s", reference)
    rows = []
    for number in numbers:
        one, two = (vector.astype(np.float64) for vector in compared(queries, number, words))
        lengths = np.linalg.norm(one) * np.linalg.norm(two)
        value = float(np.clip(one @ two / lengths, -1, 1)) if lengths else None
        known = reference.cosines(lake, chosen, number)
        rows.append({
            "layer": number, "name": chosen.layers[number], "cosine": value, "percentile": percentile(value, known),
            "usual": float(known.mean()) if len(known) else None, "pairs": len(known),
        })
    return pl.DataFrame(rows, schema={
        "layer": pl.Int64, "name": pl.String, "cosine": pl.Float64, "percentile": pl.Float64, "usual": pl.Float64,
        "pairs": pl.Int64,
    })


def resolve_compared_words(
    lake: Lake, text: str | Sequence[str], space: str | None, layer: int | str | None, layers: str | Sequence[int | str] | None
) -> tuple[Space, list[int], np.ndarray]:
    """Return the space that answers words, the number of the layer they share with sounds, in a list, and their vector."""
    prompts = parse_prompts(text)
    if layers is not None:
        raise InputError("--layers: compares sounds with sounds. Leave it out, or compare two clips")
    chosen, kind = choose_word_space(lake, space)
    if kind == "tags":
        raise InputError(
            f"space {chosen.name!r}: its encoder {chosen.encoder} scores tags, so words have no cosine. Search with `tonelake "
            "similar --text`, or embed with an encoder that understands words: `tonelake embed --encoder clap`"
        )
    return chosen, [check_text_layer(lake, chosen, layer)], text_vector(lake, chosen, prompts)


def compared(queries: Sequence[Query], layer: int, words: np.ndarray | None) -> list[np.ndarray]:
    """Return the two (dim,) vectors that are compared in a layer."""
    return [*(query.vectors[layer] for query in queries), *([] if words is None else [words])]


def read_layers(
    space: Space, layer: int | str | None, layers: str | Sequence[int | str] | None
) -> list[int]:
    """Return the numbers of the layers that `layer` or `layers` of `cosine` names.  Raises InputError."""
    if layers is None:
        return [space.layer_index(layer)]
    if layer is not None:
        raise InputError("--layer names one layer, --layers several. Give one of them")
    if isinstance(layers, str):
        layers = list(space.layers) if layers.strip() == "all" else [name.strip() for name in layers.split(",")]
    numbers = [space.layer_index(name) for name in layers]
    if not numbers or len(set(numbers)) < len(numbers):
        raise InputError(f"--layers {','.join(map(str, layers))}: must name layers once each. Write for example 3,11, or all")
    return numbers


def describe_mean(query: Query, embedded: pl.Series) -> list[str]:
    """Return a sentence on a query that is the mean of several clips; an empty list for any other."""
    count = int(embedded.is_in(list(query.own)).sum())
    return [f"{song_name(query.labels[0])}: the mean of its {count} clips is compared"] if count > 1 else []


def percentile(value: float | None, known: np.ndarray) -> float | None:
    """Return the share in percent of known values below a value, equal ones counted by half; None without any.

    >>> percentile(0.5, np.array([0.1, 0.2, 0.5, 0.9]))
    62.5
    """
    if value is None or not len(known):
        return None
    return float(100 * ((known < value).mean() + (known == value).mean() / 2))


@dataclass(frozen=True)
class Reference:
    """Clips of songs drawn at random, the reference of a cosine."""

    ids: pl.Series                       # clip ids
    song: np.ndarray                     # (clip,) int: the song of each, numbered from 0
    clips: bool                          # whether clips are compared: one of each song
    words: np.ndarray | None = None      # (dim,) words that all are compared with, instead of pairs

    def __str__(self) -> str:
        count = int(self.song.max()) + 1 if len(self.song) else 0
        what = "clips of different songs" if self.clips else "songs"
        if not count:
            return f"percentiles need {LEAST_SONGS} other songs in the lake, so there are none"
        if self.words is not None:
            return f"percentiles: among {count} {what} of this lake, drawn at random, each compared with the same words"
        return f"percentiles: among all {count * (count - 1) // 2:,} pairs of {count} {what} of this lake, drawn at random"

    def cosines(self, lake: Lake, space: Space, layer: int) -> np.ndarray:
        """Return (pair,) float64 cosines of all pairs of these songs in one layer, or of each song with the words."""
        if not len(self.ids):
            return np.empty(0)
        vectors = lake.vectors(space).take(self.ids.to_list(), layer).vectors.astype(np.float64)
        sums = np.zeros((int(self.song.max()) + 1, vectors.shape[1]))
        np.add.at(sums, self.song, vectors)
        directions = unit(sums)
        if self.words is not None:
            return directions @ unit(self.words.astype(np.float64)[None])[0]
        return (directions @ directions.T)[np.triu_indices(len(directions), 1)]


def draw_reference(
    lake: Lake, space: Space, queries: Sequence[Query], seed: int, words: np.ndarray | None = None
) -> Reference:
    """Draw the songs that a pair is compared with, without those of the pair; empty if there are fewer than LEAST_SONGS."""
    as_clips = all(len(query.own) == 1 and len(query.labels) == 1 for query in queries)
    embedded = pl.DataFrame({"clip_id": lake.vectors(space).ids()})
    ids = lake.clips.read(["clip_id"]).join(embedded, on="clip_id", how="semi").sort("clip_id")["clip_id"]
    songs = read_songs(lake.clips)
    song = songs.of(ids)
    own = [clip for query in queries for clip in query.own]
    other = ~np.isin(song, songs.of(own)) if own else np.ones(len(song), bool)
    ids, song = ids.filter(pl.Series(other)), song[other]
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(song))                               # decides which songs, and which clips of each
    _, first, number = np.unique(song[order], return_index=True, return_inverse=True)
    if len(first) < LEAST_SONGS:
        return Reference(ids.head(0), np.empty(0, np.int64), as_clips, words)
    drawn = np.sort(rng.choice(len(first), min(REFERENCE_SONGS, len(first)), replace=False))
    place = np.full(len(first), -1)
    place[drawn] = np.arange(len(drawn))
    table = pl.DataFrame({"row": order, "song": place[number]}).filter(pl.col("song") >= 0)
    table = table.group_by("song", maintain_order=True).head(1 if as_clips else MOST_CLIPS).sort("song", "row")
    return Reference(ids.gather(table["row"]), table["song"].to_numpy(), as_clips, words)
