"""What is asked of an opened lake: neighbours, paths, maps, groups, and what its layers are good for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import polars as pl

from tonelake import ingest
from tonelake.handle import Opened

if TYPE_CHECKING:
    from tonelake.index import LayerReport, LearnedWeights, Map, Match, Overlap, QueryPart


class Asking(Opened):
    """Answers by the stored vectors of a lake."""

    def similar(
        self, query: QueryPart | Sequence[QueryPart], *, minus: Sequence[QueryPart] = (), space: str | None = None,
        layer: int | str | None = None, layers: str | Mapping[int | str, float] | None = None, k: int = 10,
        where: str | None = None, metric: str = "cosine", not_same: str | None = None, like: str | None = None,
        unlike: str | None = None, explain: bool = False,
    ) -> pl.DataFrame:
        """The k clips nearest to clips, audio files or a vector; see `index.similar`."""
        from tonelake import index

        return index.similar(
            self.lake, query, minus=minus, space=space, layer=layer, layers=layers, k=k, where=where, metric=metric,
            not_same=not_same, like=like, unlike=unlike, explain=explain,
        )

    def similar_many(
        self, queries: Sequence[str] | np.ndarray, *, k: int = 10, space: str | None = None, layer: int | str | None = None,
        where: str | None = None, metric: str = "cosine",
    ) -> pl.DataFrame:
        """The k nearest clips of each of many clips or vectors; see `index.similar_many`."""
        from tonelake import index

        return index.similar_many(self.lake, queries, k=k, space=space, layer=layer, where=where, metric=metric)

    def facets(
        self, *, like: str | None = None, unlike: str | None = None, space: str | None = None,
        layers: Sequence[int | str | None] = (),
    ) -> pl.DataFrame:
        """What looking only at a column, or leaving one out, is worth at each layer; see `index.facet_report`."""
        from tonelake import index

        return index.facet_report(self.lake, like=like, unlike=unlike, space=space, layers=layers)

    def path(
        self, start: str, end: str, *, steps: int = 5, space: str | None = None, layer: int | str | None = None,
        layers: str | Mapping[int | str, float] | None = None, where: str | None = None, like: str | None = None,
        unlike: str | None = None,
    ) -> pl.DataFrame:
        """Clips that lead from one to another; see `index.path`."""
        from tonelake import index

        return index.path(
            self.lake, start, end, steps=steps, space=space, layer=layer, layers=layers, where=where, like=like, unlike=unlike
        )

    def align(
        self, query: str | Path, other: str | Path, *, space: str | None = None, layer: int | str | None = None,
        seconds: float = 5.0, warp: bool = False,
    ) -> Match:
        """Where in two clips the best match lies; see `index.align`."""
        from tonelake import index

        return index.align(self.lake, query, other, space=space, layer=layer, seconds=seconds, warp=warp)

    def parts(
        self, hits: pl.DataFrame, query: str | Path, *, space: str | None = None, layer: int | str | None = None,
        seconds: float = 5.0, warp: bool = False,
    ) -> pl.DataFrame:
        """Hits of `similar` with the stretch of each that is most like the query; see `index.add_parts`."""
        from tonelake import index

        return index.add_parts(self.lake, hits, query, space=space, layer=layer, seconds=seconds, warp=warp)

    def learn_weights(self, column: str, *, space: str | None = None, seed: int = 0) -> LearnedWeights:
        """Weights of layers by which clips that share a value of a column are near; see `index.search.mixture`."""
        from tonelake import index

        return index.learn_weights(self.lake, self.lake.spaces.get(space), column, seed=seed)

    def build_indexes(
        self, layers: Sequence[int | str] = (), *, space: str | None = None, metric: str = "cosine", kind: str = "auto",
        recall: float = 0.95,
    ) -> list[str]:
        """Index layers for search among very many clips, or bring their indexes up to date; a line for each.

        `layers`: by default the space's.  See `index.build_index`.
        """
        from tonelake import index

        chosen = self.lake.spaces.get(space)
        numbers = [chosen.layer_index(layer) for layer in layers] or [chosen.default_layer]
        lines = []
        for number in self._progress()(numbers, len(numbers), f"indexing {chosen.name}"):
            saved, done = index.build_index(self.lake, chosen, number, metric=metric, kind=kind, recall=recall)
            lines.append(index.describe(saved, done, chosen.layers))
        return lines

    def indexes(self) -> pl.DataFrame:
        """The indexes of all spaces; see `index.list_indexes`."""
        from tonelake import index

        return index.list_indexes(self.lake)

    def drop_indexes(self, *, space: str | None = None, layer: int | str | None = None) -> int:
        """Delete the indexes of a space, or of one of its layers; how many."""
        from tonelake import index

        chosen = self.lake.spaces.get(space)
        return index.drop_indexes(self.lake, chosen, None if layer is None else chosen.layer_index(layer))

    def map(
        self, layer: int | str | None = None, *, space: str | None = None, method: str = "umap", neighbours: int = 15,
        min_dist: float = 0.1, seed: int = 0, again: bool = False,
    ) -> Map:
        """The clips of one layer as points of a plane, made or brought up to date; see `index.make_map`."""
        from tonelake import index

        return index.make_map(
            self.lake, space=space, layer=layer, method=method, neighbours=neighbours, min_dist=min_dist, seed=seed,
            again=again, step=self._step,
        )

    def groups(
        self, column: str, name: str | None = None, *, k: int | None = None, space: str | None = None,
        layer: int | str | None = None, where: str | None = None, measure: str = "centroid", min_clips: int = 1,
    ) -> pl.DataFrame:
        """Groups nearest to one, or all groups with their nearest; see `index.groups`."""
        from tonelake import index

        return index.groups(
            self.lake, column, name, k=k, space=space, layer=layer, where=where, measure=measure, min_clips=min_clips
        )

    def group_matrix(
        self, column: str, *, space: str | None = None, layer: int | str | None = None, where: str | None = None,
        measure: str = "centroid", min_clips: int = 1,
    ) -> pl.DataFrame:
        """The similarity of every pair of groups; see `index.group_matrix`."""
        from tonelake import index

        return index.group_matrix(
            self.lake, column, space=space, layer=layer, where=where, measure=measure, min_clips=min_clips
        )

    def typical(
        self, column: str, name: str | None = None, *, k: int = 5, space: str | None = None, layer: int | str | None = None,
        where: str | None = None, min_clips: int = 1,
    ) -> pl.DataFrame:
        """The most typical and the most unusual clips of a group; see `index.typical`."""
        from tonelake import index

        return index.typical(
            self.lake, column, name, k=k, space=space, layer=layer, where=where, min_clips=min_clips
        )

    def layers(
        self, column: str, *, space: str | None = None, where: str | None = None, prepare: str = "l2", seed: int = 0
    ) -> LayerReport:
        """Which layer tells the groups of a column apart; see `index.layers`."""
        from tonelake import index

        return index.layers(
            self.lake, column, space=space, where=where, prepare=prepare, seed=seed, progress=self._progress()
        )

    def effects(self, column: str, *, space: str | None = None, where: str | None = None, seed: int = 0) -> pl.DataFrame:
        """What centring, whitening and normalising do to each layer; see `index.effects`."""
        from tonelake import index

        return index.effects(self.lake, column, space=space, where=where, seed=seed, progress=self._progress())

    def compare(
        self, first: str, second: str, column: str | None = None, *, where: str | None = None, seed: int = 0
    ) -> pl.DataFrame:
        """Two spaces side by side, layer by layer; see `index.compare`."""
        from tonelake import index

        return index.compare(self.lake, first, second, column, where=where, seed=seed, progress=self._progress())

    def overlap(
        self, column: str, reference: str | Path | pl.DataFrame, *, k: int = 10, space: str | None = None,
        layer: int | str | None = None, where: str | None = None, measure: str = "centroid", min_clips: int = 1, seed: int = 0,
    ) -> Overlap:
        """Nearest groups against a list from elsewhere, a CSV file or a frame; see `index.overlap_with`."""
        from tonelake import index

        table = reference if isinstance(reference, pl.DataFrame) else Path(reference).expanduser()
        return index.overlap_with(
            self.lake, column, table, k=k, space=space, layer=layer, where=where, measure=measure, min_clips=min_clips,
            seed=seed,
        )

    def duplicates(
        self, *, space: str | None = None, layer: int | str | None = None, cosine: float = 0.9, correlation: float = 0.8,
        confirm: bool = True, where: str | None = None, save: bool = False, workers: int | None = None,
    ) -> pl.DataFrame:
        """Clips that are the same recording; see `index.search.duplicates`."""
        from tonelake import index

        return index.duplicates(
            self.lake, ingest.read_clips, space=space, layer=layer, cosine=cosine, correlation=correlation, confirm=confirm,
            where=where, save=save, workers=workers, progress=self._progress(),
        )
