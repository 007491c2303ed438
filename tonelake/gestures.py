"""Gesture tokens and live audio of an opened lake: `lake.tokens.fit(...)`, `.repeats(...)`, `.live(...)`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import polars as pl

from store import Lake

if TYPE_CHECKING:
    from index.live import LiveEncoder
    from index.vocabulary import Vocabulary


class Gestures:
    """Vocabularies of sounds, the token sequences of clips, and what is asked of them."""

    def __init__(self, lake: Lake, progress: Callable[[], Any]) -> None:
        self.lake = lake
        self._progress = progress

    def fit(
        self, *, k: int = 2048, space: str | None = None, layer: int | str | None = None, metric: str = "euclidean",
        name: str | None = None, where: str | None = None, seed: int = 0,
    ) -> Vocabulary:
        """Find k tokens in the stored frames of a layer; see `index.fit_vocabulary`."""
        from index.vocabulary import fit_vocabulary

        return fit_vocabulary(
            self.lake, k=k, space=space, layer=layer, metric=metric, name=name, where=where, seed=seed,
            progress=self._progress(),
        )

    def apply(self, vocabulary: str | None = None, *, space: str | None = None) -> tuple[Vocabulary, int]:
        """Store the tokens of every clip that has none yet; see `index.tokenizing`."""
        from index.tokenizing import apply_vocabulary

        return apply_vocabulary(self.lake, vocabulary, space=space, progress=self._progress())

    def list(self) -> pl.DataFrame:
        """The vocabularies of the lake."""
        from index.vocabulary import list_vocabularies

        return list_vocabularies(self.lake)

    def of(self, clip: str, vocabulary: str | None = None, *, space: str | None = None) -> pl.DataFrame:
        """The token sequence of a clip as runs: token, start_s, end_s, frames."""
        from index.tokenizing import runs_of_clip

        return runs_of_clip(self.lake, clip, vocabulary, space=space)

    def similar(
        self, clip: str, vocabulary: str | None = None, *, by: str = "histogram", n: int = 3, k: int = 10,
        space: str | None = None, where: str | None = None, not_same: str | None = None,
    ) -> pl.DataFrame:
        """Clips with the most similar tokens; see `index.tokenizing.similar_by_tokens`."""
        from index.tokenizing import similar_by_tokens

        return similar_by_tokens(
            self.lake, clip, vocabulary, by=by, n=n, k=k, space=space, where=where, not_same=not_same
        )

    def typical(
        self, column: str, group: str | None = None, vocabulary: str | None = None, *, k: int = 10, space: str | None = None,
        where: str | None = None,
    ) -> pl.DataFrame:
        """The tokens that tell most of groups; see `index.tokenizing.typical_tokens`."""
        from index.tokenizing import typical_tokens

        return typical_tokens(self.lake, column, group, vocabulary, k=k, space=space, where=where)

    def repeats(
        self, vocabulary: str | None = None, *, clip: str | None = None, least: int = 5, across: bool | None = None,
        k: int = 50, space: str | None = None, where: str | None = None,
    ) -> pl.DataFrame:
        """Passages that come again; see `index.passages.repeats`."""
        from index.passages import repeats

        return repeats(
            self.lake, vocabulary, clip=clip, least=least, across=across, k=k, space=space, where=where
        )

    def continuation(
        self, sequence: str | Sequence[int], vocabulary: str | None = None, *, steps: int = 32, least: int = 2,
        jump: float = 0.3, token: int | None = None, other_tracks: bool = False, space: str | None = None,
        where: str | None = None, seed: int = 0,
    ) -> pl.DataFrame:
        """How a sequence could go on; see `index.passages.continuation`."""
        from index.passages import continuation

        return continuation(
            self.lake, sequence, vocabulary, steps=steps, least=least, jump=jump, token=token, other_tracks=other_tracks,
            space=space, where=where, seed=seed,
        )

    def live(self, *, rate: int, **settings: Any) -> LiveEncoder:
        """A stream against the lake; `settings` are those of `index.live.LiveEncoder`."""
        from index.live import LiveEncoder

        return LiveEncoder(self.lake, rate=rate, **settings)
