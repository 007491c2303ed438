"""Gesture tokens and live audio of an opened lake: `lake.tokens.fit(...)`, `.repeats(...)`, `.live(...)`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import polars as pl

from tonelake.store import Lake

if TYPE_CHECKING:
    from tonelake.index import LiveEncoder, Vocabulary


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
        from tonelake.index import fit_vocabulary

        return fit_vocabulary(
            self.lake, k=k, space=space, layer=layer, metric=metric, name=name, where=where, seed=seed,
            progress=self._progress(),
        )

    def apply(self, vocabulary: str | None = None, *, space: str | None = None) -> tuple[Vocabulary, int]:
        """Store the tokens of every clip that has none yet; see `index.tokens.sequences`."""
        from tonelake.index import apply_vocabulary

        return apply_vocabulary(self.lake, vocabulary, space=space, progress=self._progress())

    def list(self) -> pl.DataFrame:
        """The vocabularies of the lake."""
        from tonelake.index import list_vocabularies

        return list_vocabularies(self.lake)

    def of(self, clip: str, vocabulary: str | None = None, *, space: str | None = None) -> pl.DataFrame:
        """The token sequence of a clip as runs: token, start_s, end_s, frames."""
        from tonelake.index import runs_of_clip

        return runs_of_clip(self.lake, clip, vocabulary, space=space)

    def similar(
        self, clip: str, vocabulary: str | None = None, *, by: str = "histogram", n: int = 3, k: int = 10,
        space: str | None = None, where: str | None = None, not_same: str | None = None,
    ) -> pl.DataFrame:
        """Clips with the most similar tokens; see `index.tokens.sequences.similar_by_tokens`."""
        from tonelake.index import similar_by_tokens

        return similar_by_tokens(
            self.lake, clip, vocabulary, by=by, n=n, k=k, space=space, where=where, not_same=not_same
        )

    def typical(
        self, column: str, group: str | None = None, vocabulary: str | None = None, *, k: int = 10, space: str | None = None,
        where: str | None = None,
    ) -> pl.DataFrame:
        """The tokens that tell most of groups; see `index.tokens.sequences.typical_tokens`."""
        from tonelake.index import typical_tokens

        return typical_tokens(self.lake, column, group, vocabulary, k=k, space=space, where=where)

    def repeats(
        self, vocabulary: str | None = None, *, clip: str | None = None, least: int = 5, across: bool | None = None,
        k: int = 50, space: str | None = None, where: str | None = None,
    ) -> pl.DataFrame:
        """Passages that come again; see `index.tokens.passages.repeats`."""
        from tonelake.index import repeats

        return repeats(
            self.lake, vocabulary, clip=clip, least=least, across=across, k=k, space=space, where=where
        )

    def continuation(
        self, sequence: str | Sequence[int], vocabulary: str | None = None, *, steps: int = 32, least: int = 2,
        jump: float = 0.3, token: int | None = None, other_tracks: bool = False, space: str | None = None,
        where: str | None = None, seed: int = 0,
    ) -> pl.DataFrame:
        """How a sequence could go on; see `index.tokens.passages.continuation`."""
        from tonelake.index import continuation

        return continuation(
            self.lake, sequence, vocabulary, steps=steps, least=least, jump=jump, token=token, other_tracks=other_tracks,
            space=space, where=where, seed=seed,
        )

    def live(self, *, rate: int, **settings: Any) -> LiveEncoder:
        """A stream against the lake; `settings` are those of `index.tokens.live.LiveEncoder`."""
        from tonelake.index import LiveEncoder

        return LiveEncoder(self.lake, rate=rate, **settings)
