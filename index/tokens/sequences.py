"""The stored frames of a lake as tokens of a vocabulary; and what can be asked of token sequences.

Clips are alike by tokens in two ways: by how often each token occurs (the cosine of histograms weighted by how rare a token
is, tf-idf), and by the sequences that they share (n-grams of runs, so that a held sound counts once however long it is held).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl
from scipy import sparse

from tonelake.index.log_odds import log_odds
from tonelake.index.search.similar import SHOWN
from tonelake.index.tokens.vocabulary import Vocabulary, read_vocabulary
from tonelake.store import InputError, Lake, Space, TokenSequence, chunks

CLIPS_A_WRITE = 512
MEASURES_OF_TOKENS = ("histogram", "ngrams")
PRIOR_FRAMES = 100.0                     # as if so many frames of the whole lake had been heard in each group


def apply_vocabulary(
    lake: Lake, name: str | None = None, *, space: str | None = None, progress: Any = lambda items, total, label: items
) -> tuple[Vocabulary, int]:
    """Store the tokens of every clip whose frames are stored and that has none yet; the vocabulary, and how many clips.

    Sequences of an older vocabulary of the same name go.  Interrupted and run again, it goes on where it stood.
    """
    chosen = lake.spaces.get(space)
    vocabulary = read_vocabulary(lake, name, space=chosen.name)
    layer = chosen.layer_index(vocabulary.layer)
    stored, tokens = lake.frames(chosen), lake.tokens(chosen)
    drop_outdated(lake, chosen)
    known = stored.complete([layer])
    due = known.filter(~known.is_in(tokens.ids(vocabulary.digest).implode())).to_list()
    done = 0
    for ids in progress(list(chunks(due, CLIPS_A_WRITE)), -(-len(due) // CLIPS_A_WRITE), f"tokens of {vocabulary.name}"):
        sequences = [
            TokenSequence(one.clip_id, vocabulary.tokens_of(one.states), np.array(one.frame_s))
            for one in stored.each(ids, layer)
        ]
        done += tokens.add(vocabulary.digest, sequences)
    return vocabulary, done


def drop_outdated(lake: Lake, space: Space) -> None:
    """Forget sequences of vocabularies that are no more."""
    files = lake.files(f"vocabularies/{space.name}").names(".safetensors")
    known = {read_vocabulary(lake, file.removesuffix(".safetensors"), space=space.name).digest for file in files}
    tokens = lake.tokens(space)
    for digest in set(tokens.table.read(["vocabulary"]).column("vocabulary").to_pylist()) - known:
        tokens.drop(digest)


def runs_of_clip(lake: Lake, clip: str, name: str | None = None, *, space: str | None = None) -> pl.DataFrame:
    """The tokens of one clip as runs: token, start_s, end_s (the middles of its first and last frame), frames."""
    chosen = lake.spaces.get(space)
    vocabulary = read_vocabulary(lake, name, space=chosen.name)
    clip_id = lake.clips.find(clip)["clip_id"]
    stored = Sequences(vocabulary, list(lake.tokens(chosen).each(vocabulary.digest, [clip_id])))
    one = stored.clips[stored.row(clip_id)]
    tokens, starts = one.runs()
    ends = np.append(starts[1:], len(one.tokens))
    return pl.DataFrame({
        "token": tokens.astype(np.int64), "start_s": one.frame_s[starts].astype(float),
        "end_s": one.frame_s[ends - 1].astype(float), "frames": ends - starts,
    })


@dataclass(frozen=True)
class Sequences:
    """The token sequences of a lake in one vocabulary, in memory."""

    vocabulary: Vocabulary
    clips: list[TokenSequence]

    @property
    def ids(self) -> list[str]:
        return [one.clip_id for one in self.clips]

    def histograms(self) -> sparse.csr_array:
        """(clip, token) how many frames of each token a clip has."""
        return counted([one.tokens for one in self.clips], len(self.vocabulary))

    def row(self, clip_id: str) -> int:
        """Raises InputError where a clip has no tokens."""
        for row, one in enumerate(self.clips):
            if one.clip_id == clip_id:
                return row
        raise InputError(
            f"clip {clip_id} has no tokens in {self.vocabulary.name}: run `tonelake tokens apply {self.vocabulary.name}`, and "
            f"`tonelake embed --frames {self.vocabulary.layer}` before, where its frames are not stored"
        )


def read_sequences(
    lake: Lake, name: str | None = None, *, space: str | None = None, where: str | None = None, others: Sequence[str] = ()
) -> Sequences:
    """All sequences in a vocabulary of clips that a filter keeps, and of these `others`.  Raises InputError without any."""
    chosen = lake.spaces.get(space)
    vocabulary = read_vocabulary(lake, name, space=chosen.name)
    kept = set(lake.clips.ids(where)) | set(others)
    clips = [one for one in lake.tokens(chosen).each(vocabulary.digest) if one.clip_id in kept]
    if not clips:
        which = f" where {where}" if where else ""
        raise InputError(f"no clip{which} has tokens in {vocabulary.name}: run `tonelake tokens apply {vocabulary.name}`")
    return Sequences(vocabulary, clips)


def counted(sequences: Sequence[np.ndarray], width: int) -> sparse.csr_array:
    """(sequence, number) how often each number occurs."""
    rows = np.repeat(np.arange(len(sequences)), [len(one) for one in sequences])
    columns = np.concatenate(sequences).astype(np.int64)
    found = sparse.csr_array((np.ones(len(rows), np.float32), (rows, columns)), shape=(len(sequences), width))
    found.sum_duplicates()
    return found


def weighted(counts: sparse.csr_array) -> sparse.csr_array:
    """Counts as unit vectors by tf-idf: dampened (1 + log), and less for what every clip has (smoothed idf)."""
    from sklearn.feature_extraction.text import TfidfTransformer

    return TfidfTransformer(sublinear_tf=True).fit_transform(counts)


def ngrams_of(sequence: TokenSequence, n: int) -> list[tuple[int, ...]]:
    """The n-grams of a clip's runs."""
    tokens = sequence.runs()[0].tolist()
    return list(zip(*(tokens[i:] for i in range(n)), strict=False))


def similar_by_tokens(
    lake: Lake, clip: str, name: str | None = None, *, by: str = "histogram", n: int = 3, k: int = 10, space: str | None = None,
    where: str | None = None, not_same: str | None = None,
) -> pl.DataFrame:
    """The k clips whose tokens are most like a clip's: by `histogram`, or by the `ngrams` of its runs that they share.

    Returns rank, score (cosine of tf-idf vectors), shared (n-grams), at_s and hit_at_s (where the longest stretch of shared
    n-grams begins in the clip and in the hit; null without one), clip_id and what names a clip.
    """
    if by not in MEASURES_OF_TOKENS:
        raise InputError(f"no measure {by!r}: choose {' or '.join(MEASURES_OF_TOKENS)}")
    if n < 1 or k < 1:
        raise InputError(f"{n}-grams and {k} neighbours: ask for 1 or more")
    asked = lake.clips.find(clip)
    found = read_sequences(lake, name, space=space, where=where, others=[asked["clip_id"]])
    row = found.row(asked["clip_id"])
    if by == "histogram":
        counts = found.histograms()
    else:
        numbers: dict[tuple[int, ...], int] = {}
        coded = [
            np.array([numbers.setdefault(gram, len(numbers)) for gram in ngrams_of(one, n)], np.int64) for one in found.clips
        ]
        counts = counted(coded, max(len(numbers), 1))
    vectors = weighted(counts)
    scores = (vectors @ vectors[[row]].T).toarray()[:, 0]
    keep = np.ones(len(scores), bool)
    keep[row] = False
    allowed = set(lake.clips.ids(where))
    keep &= np.array([one in allowed for one in found.ids])
    if not_same is not None:
        lake.clips.check_column(not_same)
        labels = lake.clips.take(found.ids, [not_same])[not_same]
        keep &= ~(labels == asked[not_same]).fill_null(False).to_numpy()
    rows = np.flatnonzero(keep)
    rows = rows[np.lexsort((rows, -scores[rows]))][:k]
    places = [longest_shared(found.clips[row], found.clips[hit], n) for hit in rows]
    hits = pl.DataFrame({
        "rank": np.arange(1, len(rows) + 1), "score": scores[rows], "shared": [shared for shared, _, _ in places],
        "at_s": pl.Series([at for _, at, _ in places], dtype=pl.Float64),
        "hit_at_s": pl.Series([at for _, _, at in places], dtype=pl.Float64), "clip_id": [found.ids[hit] for hit in rows],
    })
    return hits.join(lake.clips.take(hits["clip_id"].to_list(), SHOWN), on="clip_id", how="left", maintain_order="left")


def longest_shared(one: TokenSequence, other: TokenSequence, n: int) -> tuple[int, float | None, float | None]:
    """How many n-grams of runs two clips share, and where in each (seconds) the longest stretch of equal runs begins.

    Where it is shorter than n runs there is none.
    """
    (first, starts), (second, other_starts) = one.runs(), other.runs()
    shared = len(set(ngrams_of(one, n)) & set(ngrams_of(other, n)))
    if not shared:
        return 0, None, None
    best, end, other_end = 0, 0, 0
    lengths = np.zeros(len(second) + 1, np.int64)                    # of the equal stretches that end at each pair
    for i, token in enumerate(first):
        lengths[1:] = np.where(second == token, lengths[:-1] + 1, 0)
        if lengths.max() > best:
            best, end, other_end = int(lengths.max()), i + 1, int(lengths.argmax())
    return shared, float(one.frame_s[starts[end - best]]), float(other.frame_s[other_starts[other_end - best]])


def typical_tokens(
    lake: Lake, column: str, group: str | None = None, name: str | None = None, *, k: int = 10, space: str | None = None,
    where: str | None = None,
) -> pl.DataFrame:
    """The k tokens that tell most of each group of a column, or of one: those more frequent there beyond chance.

    By the z-score of the log odds ratio with the whole lake as the prior (Monroe et al. 2008, section 3.5.1), frames counted.
    Returns the group, token, z, share (of the group's frames), share_elsewhere, and clip_id and at_s: where it sounds longest.
    """
    lake.clips.check_column(column)
    found = read_sequences(lake, name, space=space, where=where)
    labels = lake.clips.take(found.ids, [column])[column]
    if isinstance(labels.dtype, pl.List):
        raise InputError(f"column {column!r} holds lists: tokens are told of columns with one value a clip")
    names = labels.cast(pl.String)
    groups = sorted(names.drop_nulls().unique())
    if group is not None and group not in groups:
        raise InputError(f"no {column} {group!r} among the clips with tokens: there are {', '.join(groups[:8])}")
    if len(groups) < 2:
        raise InputError(f"the clips with tokens have one value of {column!r} only: there is nothing to compare with")
    counts = found.histograms()
    whole = np.asarray(counts.sum(axis=0)).ravel()
    prior = PRIOR_FRAMES * whole / max(whole.sum(), 1)
    rows = []
    for one in groups if group is None else [group]:
        members = np.flatnonzero((names == one).fill_null(False).to_numpy())
        own = np.asarray(counts[members].sum(axis=0)).ravel()
        z = log_odds(own, own.sum(), whole - own, (whole - own).sum(), prior, PRIOR_FRAMES)
        for token in np.argsort(-z, kind="stable")[:k]:
            if own[token] == 0 or z[token] <= 0:
                break
            at_clip, at_s = longest_run([found.clips[i] for i in members], int(token))
            rows.append({
                column: one, "token": int(token), "z": float(z[token]), "share": float(own[token] / own.sum()),
                "share_elsewhere": float((whole - own)[token] / max((whole - own).sum(), 1)), "clip_id": at_clip, "at_s": at_s,
            })
    schema = {
        column: pl.String, "token": pl.Int64, "z": pl.Float64, "share": pl.Float64, "share_elsewhere": pl.Float64,
        "clip_id": pl.String, "at_s": pl.Float64,
    }
    return pl.DataFrame(rows, schema=schema)


def longest_run(clips: Sequence[TokenSequence], token: int) -> tuple[str | None, float | None]:
    """The clip and the second where a token is held longest."""
    best: tuple[int, str | None, float | None] = (0, None, None)
    for one in clips:
        tokens, starts = one.runs()
        lengths = np.diff(starts, append=len(one.tokens)) * (tokens == token)
        if len(lengths) and lengths.max() > best[0]:
            run = int(lengths.argmax())
            best = (int(lengths[run]), one.clip_id, float(one.frame_s[starts[run]]))
    return best[1:]
