"""Encode the stored frames of a lake as tokens of a vocabulary, and search clips by their token sequences.

Clips are similar by tokens in two ways: by how often each token occurs (the cosine of tf-idf histograms, which weight rare
tokens more), and by shared sequences (n-grams of runs, so that a held sound counts once regardless of its length).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl
from scipy import sparse

from tonelake.index.log_odds import log_odds
from tonelake.index.search.candidates import Embedded, rows_sharing
from tonelake.index.search.names import find_clip
from tonelake.index.search.query import Query
from tonelake.index.search.similar import SHOWN
from tonelake.index.tokens.vocabulary import Vocabulary, find_vocabulary, read_vocabulary
from tonelake.store import InputError, Lake, Space, TokenSequence, chunks, is_list

CLIPS_PER_WRITE = 512
TOKEN_MEASURES = ("histogram", "ngrams")
PRIOR_FRAMES = 100.0                     # pseudo-count of frames, distributed as in the whole lake, for each group


def apply_vocabulary(
    lake: Lake, name: str | None = None, *, space: str | None = None
) -> tuple[Vocabulary, int]:
    """Store the tokens of every clip that has stored frames and no tokens; return the vocabulary and the number of clips.

    Sequences of an older vocabulary of the same name are deleted.  An interrupted call is resumed by the next one.
    """
    vocabulary = find_vocabulary(lake, name, space=space)
    chosen = lake.spaces.get(vocabulary.space)
    layer = chosen.layer_index(vocabulary.layer)
    stored, tokens = lake.frames(chosen), lake.tokens(chosen)
    drop_outdated(lake, chosen)
    known = stored.complete([layer])
    due = known.filter(~known.is_in(tokens.ids(vocabulary.digest).implode())).to_list()
    done = 0
    parts = list(chunks(due, CLIPS_PER_WRITE))
    for ids in lake.progress(parts, len(parts), f"tokens of {vocabulary.name}"):
        sequences = [
            TokenSequence(one.clip_id, vocabulary.tokens_of(one.states), np.array(one.frame_s))
            for one in stored.each(ids, layer)
        ]
        done += tokens.add(vocabulary.digest, sequences)
    return vocabulary, done


def drop_outdated(lake: Lake, space: Space) -> None:
    """Delete sequences and gestures of vocabularies that no longer exist."""
    files = lake.files(f"vocabularies/{space.name}").names(".safetensors")
    known = {read_vocabulary(lake, file.removesuffix(".safetensors"), space=space.name).digest for file in files}
    tokens = lake.tokens(space)
    for digest in set(tokens.table.read(["vocabulary"]).column("vocabulary").to_pylist()) - known:
        tokens.drop(digest)
        lake.gestures(space).drop(digest)


def runs_of_clip(lake: Lake, clip: str, name: str | None = None, *, space: str | None = None) -> pl.DataFrame:
    """Return the tokens of one clip as runs: token, start_s, end_s (the middles of the first and last frame), frames."""
    vocabulary = find_vocabulary(lake, name, space=space)
    chosen = lake.spaces.get(vocabulary.space)
    clip_id = find_clip(lake, clip)["clip_id"]
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
        """Return a (clip, token) matrix of frame counts."""
        return count_matrix([one.tokens for one in self.clips], len(self.vocabulary))

    def row(self, clip_id: str) -> int:
        """Return the row of a clip.  Raises InputError if it has no tokens."""
        for row, one in enumerate(self.clips):
            if one.clip_id == clip_id:
                return row
        name, embed = self.vocabulary.name, f"tonelake embed --space {self.vocabulary.space} --frames {self.vocabulary.layer}"
        raise InputError(
            f"clip {clip_id} has no tokens in {name}. Run `tonelake tokens apply {name}`, after `{embed}` if its frames are "
            "not stored"
        )


def read_sequences(
    lake: Lake, name: str | None = None, *, space: str | None = None, where: str | None = None, others: Sequence[str] = ()
) -> Sequences:
    """Read the sequences of the clips that a filter keeps, and of `others`.  Raises InputError if there are none."""
    vocabulary = find_vocabulary(lake, name, space=space)
    chosen = lake.spaces.get(vocabulary.space)
    kept = set(lake.clips.ids(where)) | set(others)
    clips = [one for one in lake.tokens(chosen).each(vocabulary.digest) if one.clip_id in kept]
    if not clips:
        which = f" where {where}" if where else ""
        raise InputError(f"no clip{which} has tokens in {vocabulary.name}. Run `tonelake tokens apply {vocabulary.name}`")
    return Sequences(vocabulary, clips)


def count_matrix(sequences: Sequence[np.ndarray], width: int) -> sparse.csr_array:
    """Return a (sequence, number) matrix of how often each number occurs."""
    rows = np.repeat(np.arange(len(sequences)), [len(one) for one in sequences])
    columns = np.concatenate(sequences).astype(np.int64)
    found = sparse.csr_array((np.ones(len(rows), np.float32), (rows, columns)), shape=(len(sequences), width))
    found.sum_duplicates()
    return found


def tf_idf(counts: sparse.csr_array) -> sparse.csr_array:
    """Weight counts by tf-idf, as unit vectors: sublinear term frequency (1 + log) and smoothed idf."""
    from sklearn.feature_extraction.text import TfidfTransformer

    return TfidfTransformer(sublinear_tf=True).fit_transform(counts)


def ngrams_of(sequence: TokenSequence, n: int) -> list[tuple[int, ...]]:
    """Return the n-grams of a clip's runs."""
    tokens = sequence.runs()[0].tolist()
    return list(zip(*(tokens[i:] for i in range(n)), strict=False))


def similar_by_tokens(
    lake: Lake, clip: str, name: str | None = None, *, by: str = "ngrams", n: int = 3, k: int = 10, space: str | None = None,
    where: str | None = None, not_same: str | None = None,
) -> pl.DataFrame:
    """Return the k clips whose tokens are most similar to a clip's: by `histogram`, or by shared `ngrams` of runs.

    Returns rank, score (cosine of tf-idf vectors), shared (n-grams), at_s and hit_at_s (where the longest stretch of shared
    n-grams begins in the clip and in the hit; null without one), clip_id and columns that describe the clip.
    """
    if by not in TOKEN_MEASURES:
        raise InputError(f"no measure {by!r}: choose {' or '.join(TOKEN_MEASURES)}")
    if n < 1 or k < 1:
        raise InputError(f"{n}-grams and {k} neighbours: both must be at least 1")
    query = find_clip(lake, clip)
    found = read_sequences(lake, name, space=space, where=where, others=[query["clip_id"]])
    row = found.row(query["clip_id"])
    if by == "histogram":
        counts = found.histograms()
    else:
        numbers: dict[tuple[int, ...], int] = {}
        coded = [
            np.array([numbers.setdefault(gram, len(numbers)) for gram in ngrams_of(one, n)], np.int64) for one in found.clips
        ]
        counts = count_matrix(coded, max(len(numbers), 1))
    vectors = tf_idf(counts)
    scores = (vectors @ vectors[[row]].T).toarray()[:, 0]
    keep = np.ones(len(scores), bool)
    keep[row] = False
    allowed = set(lake.clips.ids(where))
    keep &= np.array([one in allowed for one in found.ids])
    if not_same is not None:
        lake.clips.check_column(not_same)
        known = Embedded.of(lake, pl.Series("clip_id", found.ids, dtype=pl.String))
        asked = Query({}, own=frozenset([query["clip_id"]]), labels=(query,))
        sharing = rows_sharing(lake, known, asked, not_same)
        keep[sharing[sharing >= 0]] = False
    rows = np.flatnonzero(keep)
    rows = rows[np.lexsort((rows, -scores[rows]))][:k]
    stretches = [longest_shared(found.clips[row], found.clips[hit], n) for hit in rows]
    hits = pl.DataFrame({
        "rank": np.arange(1, len(rows) + 1), "score": scores[rows], "shared": [shared for shared, _, _ in stretches],
        "at_s": pl.Series([at for _, at, _ in stretches], dtype=pl.Float64),
        "hit_at_s": pl.Series([at for _, _, at in stretches], dtype=pl.Float64), "clip_id": [found.ids[hit] for hit in rows],
    })
    return hits.join(lake.clips.take(hits["clip_id"].to_list(), SHOWN), on="clip_id", how="left", maintain_order="left")


def longest_shared(one: TokenSequence, other: TokenSequence, n: int) -> tuple[int, float | None, float | None]:
    """Return the number of shared n-grams of runs, and where in each clip (seconds) the longest stretch of equal runs begins.

    Without a shared n-gram both times are None.
    """
    (first, starts), (second, other_starts) = one.runs(), other.runs()
    shared = len(set(ngrams_of(one, n)) & set(ngrams_of(other, n)))
    if not shared:
        return 0, None, None
    best, end, other_end = 0, 0, 0
    lengths = np.zeros(len(second) + 1, np.int64)                    # length of the equal stretch that ends at each pair
    for i, token in enumerate(first):
        lengths[1:] = np.where(second == token, lengths[:-1] + 1, 0)
        if lengths.max() > best:
            best, end, other_end = int(lengths.max()), i + 1, int(lengths.argmax())
    return shared, float(one.frame_s[starts[end - best]]), float(other.frame_s[other_starts[other_end - best]])


def typical_tokens(
    lake: Lake, column: str, group: str | None = None, name: str | None = None, *, k: int = 5, space: str | None = None,
    where: str | None = None,
) -> pl.DataFrame:
    """Return the k most characteristic tokens of each group of a column, or of one: more frequent there beyond chance.

    By the z-score of the log odds ratio of frame counts, with the whole lake as the prior (Monroe et al. 2008, section 3.5.1).
    Returns the group, token, z, share (of the group's frames), share_elsewhere, and clip_id and at_s of its longest run.
    """
    lake.clips.check_column(column)
    found = read_sequences(lake, name, space=space, where=where)
    labels = lake.clips.take(found.ids, [column])[column]
    if is_list(labels.dtype):
        raise InputError(f"column {column!r} holds lists. Choose a column with one value per clip")
    names = labels.cast(pl.String)
    groups = sorted(names.drop_nulls().unique())
    if group is not None and group not in groups:
        raise InputError(f"no {column} {group!r} among the clips with tokens. Choose {', '.join(groups[:8])}")
    if len(groups) < 2:
        raise InputError(f"the clips with tokens have one value of {column!r} only, and comparing needs two")
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
    """Return the clip, and the time in seconds, of the longest run of a token."""
    best: tuple[int, str | None, float | None] = (0, None, None)
    for one in clips:
        tokens, starts = one.runs()
        lengths = np.diff(starts, append=len(one.tokens)) * (tokens == token)
        if len(lengths) and lengths.max() > best[0]:
            run = int(lengths.argmax())
            best = (int(lengths[run]), one.clip_id, float(one.frame_s[starts[run]]))
    return best[1:]
