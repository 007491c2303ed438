"""The lake as Python users and the command line see it: every command is one method here, and every result a polars
frame or a small report that prints itself."""

from __future__ import annotations

import sys
import weakref
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl

import ingest
from store import InputError, Lake
from tonelake.gestures import Gestures
from tonelake.status import Status, spaces_of, status_of

if TYPE_CHECKING:
    from embed import EmbedReport, Plan
    from finetune import FinetuneConfig, Tuning, TuningPlan
    from finetune.orthogonality import Angles
    from index import LayerReport, Learned, Map, Match, Overlap
    from index.query import One, Query
    from ingest import IngestReport
    from probes import Learned as LearnedMetric
    from probes import Predictions, ProbeConfig, Run

PLAYERS = 2                              # processes that decode what is to be heard


class Tonelake:
    """An opened lake and everything that can be done with it."""

    def __init__(
        self, path: str | Path = "lake", *, create: bool = True, older: bool = False, progress: bool = False
    ) -> None:
        self.lake = Lake(path, create=create, older=older)
        self._show = progress

    # -- what is in it

    def status(self) -> Status:
        """Counts, spaces and what comes next."""
        return status_of(self.lake)

    def spaces(self) -> pl.DataFrame:
        """The spaces, and how far each is embedded; see `tonelake.status.spaces_of`."""
        return spaces_of(self.lake)

    def clips(self, where: str | None = None) -> pl.DataFrame:
        """Clips with all their columns."""
        return self.lake.clips.read(where=where)

    def failures(self, stage: str | None = None) -> pl.DataFrame:
        """What could not be ingested or embedded, newest first."""
        return self.lake.failures.read(stage)

    def audio(
        self, clip: str, rate: int = 24_000, *, start: float = 0.0, seconds: float | None = None
    ) -> np.ndarray:
        """The samples of one clip, or of `seconds` from `start` within it: (samples,) float32 at `rate` Hz.

        Raises AudioError where its source is gone or has changed.
        """
        row = self.lake.clips.find(clip)
        length = row["duration_s"] - start if seconds is None else min(seconds, row["duration_s"] - start)
        if start < 0 or length <= 0:
            raise InputError(f"clip {row['clip_id']} is {row['duration_s']:g} s long: nothing lies {start:g} s into it")
        span = {"source": row["source"], "start_s": row["start_s"] + start, "duration_s": length, "digest": row["digest"]}
        return self._decoders.ask({"do": "read", "rate": rate} | span)["samples"]

    def spectrogram(self, clip: str, *, seconds: float | None = None) -> bytes:
        """A clip's mel spectrogram, or that of its first seconds, as a PNG.  Raises AudioError as `audio`."""
        from tonelake.picture import draw_spectrogram

        return draw_spectrogram(self.audio(clip, 24_000, seconds=seconds), 24_000)

    def hear(self, file: str | Path, *, space: str | None = None) -> Query:
        """An audio file, listened to once, to ask `similar` with several times; see `index.hear`."""
        import index

        return index.hear(self.lake, Path(file).expanduser(), space=space)

    @cached_property
    def tokens(self) -> Gestures:
        """Vocabularies of sounds, token sequences, oracle and live audio; see `tonelake.gestures`."""
        return Gestures(self.lake, self._progress)

    @cached_property
    def _decoders(self) -> ingest.Workers:
        """Processes that decode for players; a file that crashes one does not crash the app."""
        pool = ingest.Workers(PLAYERS)
        weakref.finalize(self, pool.close)
        return pool

    # -- keeping it sound

    def verify(self, *, repair: bool = False, sources: bool = True, digests: bool = False) -> pl.DataFrame:
        """Whether every row, vector, source and derived file is as it should be; see `tonelake.verify`."""
        from tonelake.verify import verify

        return verify(self.lake, repair=repair, sources=sources, digests=digests, progress=self._progress())

    def optimize(self, *, keep_minutes: float = 60.0) -> pl.DataFrame:
        """Merge small pieces of tables and remove old versions; see `store.upkeep`."""
        from store.upkeep import optimize

        found = optimize(self.lake, keep_minutes=keep_minutes, progress=self._progress())
        return pl.DataFrame([vars(one) for one in found], schema={
            "table": pl.String, "fragments": pl.Int64, "fragments_before": pl.Int64, "versions_removed": pl.Int64,
            "bytes_removed": pl.Int64,
        })

    # -- bringing audio in

    def ingest_folder(
        self, folder: str | Path, *, seconds: float | None = 30.0, hop: float | None = None,
        labels: str | Path | None = None, multi: Sequence[str] = (), dataset: str | None = None, workers: int | None = None,
    ) -> IngestReport:
        """Every audio file below a folder, cut every `hop` seconds into clips of `seconds`; None: whole files."""
        return ingest.ingest_folder(
            self.lake, Path(folder).expanduser(), ingest.Cut(seconds, hop),
            labels=Path(labels).expanduser() if labels else None, multi=multi, dataset=dataset,
            workers=workers, progress=self._progress(),
        )

    def ingest_manifest(
        self, file: str | Path, *, multi: Sequence[str] = (), dataset: str | None = None, workers: int | None = None
    ) -> IngestReport:
        """A CSV file with a clip a row: path, start, seconds and any label columns."""
        return ingest.ingest_manifest(
            self.lake, Path(file).expanduser(), multi=multi, dataset=dataset, workers=workers, progress=self._progress()
        )

    def ingest_chorales(
        self, *, bars: int = 4, hop: int = 2, limit: int | None = None, seed_rule: bool = False
    ) -> IngestReport:
        """Bach's chorales from music21's corpus, rendered by a built-in organ."""
        return ingest.ingest_chorales(
            self.lake, bars=bars, hop=hop, limit=limit, seed_rule=seed_rule, progress=self._progress()
        )

    def ingest_dataset(
        self, name: str, folder: str | Path, *, seconds: float | None = None, hop: float | None = None,
        workers: int | None = None,
    ) -> IngestReport:
        """A published data set (`ingest.SETS`) from the folder it unpacks to, with labels and split."""
        return ingest.ingest_dataset(
            self.lake, name, Path(folder), seconds=seconds, hop=hop, workers=workers, progress=self._progress()
        )

    def ingest_catalogue(
        self, file: str | Path, *, folder: str | Path | None = None, accept_terms: bool = False, limit: int | None = None,
        workers: int | None = None,
    ) -> IngestReport:
        """A catalogue of songs by meter, fetched by yt-dlp; see `ingest.catalogue`."""
        return ingest.ingest_catalogue(
            self.lake, Path(file).expanduser(), folder=Path(folder).expanduser() if folder else None,
            accept_terms=accept_terms, limit=limit, workers=workers, progress=self._progress(),
        )

    def separate(
        self, separator: ingest.Separator | None = None, *, model: str = ingest.DEFAULT_MODEL, where: str | None = None,
        folder: str | Path | None = None, workers: int | None = None,
    ) -> IngestReport:
        """Stems of every mix, as clips of the same track; by Demucs unless another separator is given."""
        return ingest.separate_clips(
            self.lake, separator or ingest.Demucs(model), where=where, workers=workers, progress=self._progress(),
            folder=Path(folder).expanduser() if folder else None,
        )

    # -- vectors

    def embed(
        self, encoder: str | None = None, *, space: str | None = None, window: float | None = None,
        hop: float | None = None, precision: str = "auto", device: str = "auto", frames: Sequence[int | str] = (),
        engine: str = "local", address: str | None = None, workers: int | None = None, adapter: str | None = None,
    ) -> EmbedReport:
        """Embed every clip that has no vector in the space, and store the frames of these layers as well.

        See `embed.EmbedSettings` for the defaults and `embed.embed_lake` for the engines.
        """
        import embed

        settings = embed.EmbedSettings(encoder, space, window, hop, precision, device, adapter)
        return embed.embed_lake(
            self.lake, settings, ingest.read_clips, frames=frames, engine=engine, address=address, workers=workers,
            progress=self._progress(),
        )

    def plan(
        self, encoder: str | None = None, *, space: str | None = None, window: float | None = None,
        hop: float | None = None, precision: str = "auto", device: str = "auto", frames: Sequence[int | str] = (),
        workers: int | None = None, price: float = 0.0, adapter: str | None = None,
    ) -> Plan:
        """What the same `embed` would take, measured on a few clips; `price` is that of an hour of this machine."""
        import embed

        settings = embed.EmbedSettings(encoder, space, window, hop, precision, device, adapter)
        embed.check_clips(self.lake)
        chosen, loaded = embed.find_or_describe(self.lake, settings)
        layers = sorted({chosen.layer_index(layer) for layer in frames})
        return embed.make_plan(
            self.lake, chosen, loaded, ingest.read_clips, frames=layers, workers=workers, price=price
        )

    # -- answers

    def similar(
        self, query: One | Sequence[One], *, minus: Sequence[One] = (), space: str | None = None,
        layer: int | str | None = None, layers: str | Mapping[int | str, float] | None = None, k: int = 10,
        where: str | None = None, metric: str = "cosine", not_same: str | None = None, like: str | None = None,
        unlike: str | None = None, explain: bool = False,
    ) -> pl.DataFrame:
        """The k clips nearest to clips, audio files or a vector; see `index.similar`."""
        import index

        return index.similar(
            self.lake, query, minus=minus, space=space, layer=layer, layers=layers, k=k, where=where, metric=metric,
            not_same=not_same, like=like, unlike=unlike, explain=explain,
        )

    def similar_many(
        self, queries: Sequence[str] | np.ndarray, *, k: int = 10, space: str | None = None, layer: int | str | None = None,
        where: str | None = None, metric: str = "cosine",
    ) -> pl.DataFrame:
        """The k nearest clips of each of many clips or vectors; see `index.similar_many`."""
        import index

        return index.similar_many(self.lake, queries, k=k, space=space, layer=layer, where=where, metric=metric)

    def facets(
        self, *, like: str | None = None, unlike: str | None = None, space: str | None = None,
        layers: Sequence[int | str | None] = (),
    ) -> pl.DataFrame:
        """What looking only at a column, or leaving one out, is worth at each layer; see `index.facet_report`."""
        import index

        return index.facet_report(self.lake, like=like, unlike=unlike, space=space, layers=layers)

    def path(
        self, start: str, end: str, *, steps: int = 5, space: str | None = None, layer: int | str | None = None,
        layers: str | Mapping[int | str, float] | None = None, where: str | None = None, like: str | None = None,
        unlike: str | None = None,
    ) -> pl.DataFrame:
        """Clips that lead from one to another; see `index.path`."""
        import index

        return index.path(
            self.lake, start, end, steps=steps, space=space, layer=layer, layers=layers, where=where, like=like, unlike=unlike
        )

    def align(
        self, query: str | Path, other: str | Path, *, space: str | None = None, layer: int | str | None = None,
        seconds: float = 5.0, warp: bool = False,
    ) -> Match:
        """Where in two clips the best match lies; see `index.align`."""
        import index

        return index.align(self.lake, query, other, space=space, layer=layer, seconds=seconds, warp=warp)

    def parts(
        self, hits: pl.DataFrame, query: str | Path, *, space: str | None = None, layer: int | str | None = None,
        seconds: float = 5.0, warp: bool = False,
    ) -> pl.DataFrame:
        """Hits of `similar` with the stretch of each that is most like the query; see `index.add_parts`."""
        import index

        return index.add_parts(self.lake, hits, query, space=space, layer=layer, seconds=seconds, warp=warp)

    def learn_weights(self, column: str, *, space: str | None = None, seed: int = 0) -> Learned:
        """Weights of layers by which clips that share a value of a column are near; see `index.mixture`."""
        import index

        return index.learn_weights(self.lake, self.lake.spaces.get(space), column, seed=seed)

    def build_indexes(
        self, layers: Sequence[int | str] = (), *, space: str | None = None, metric: str = "cosine", kind: str = "auto",
        recall: float = 0.95,
    ) -> list[str]:
        """Index layers for search among very many clips, or bring their indexes up to date; a line for each.

        `layers`: by default the space's.  See `index.build_index`.
        """
        import index

        chosen = self.lake.spaces.get(space)
        numbers = [chosen.layer_index(layer) for layer in layers] or [chosen.default_layer]
        lines = []
        for number in self._progress()(numbers, len(numbers), f"indexing {chosen.name}"):
            saved, done = index.build_index(self.lake, chosen, number, metric=metric, kind=kind, recall=recall)
            lines.append(index.describe(saved, done, chosen.layers))
        return lines

    def indexes(self) -> pl.DataFrame:
        """The indexes of all spaces; see `index.list_indexes`."""
        import index

        return index.list_indexes(self.lake)

    def drop_indexes(self, *, space: str | None = None, layer: int | str | None = None) -> int:
        """Delete the indexes of a space, or of one of its layers; how many."""
        import index

        chosen = self.lake.spaces.get(space)
        return index.drop_indexes(self.lake, chosen, None if layer is None else chosen.layer_index(layer))

    def map(
        self, layer: int | str | None = None, *, space: str | None = None, method: str = "umap", neighbours: int = 15,
        min_dist: float = 0.1, seed: int = 0, again: bool = False,
    ) -> Map:
        """The clips of one layer as points of a plane, made or brought up to date; see `index.make_map`."""
        import index

        return index.make_map(
            self.lake, space=space, layer=layer, method=method, neighbours=neighbours, min_dist=min_dist, seed=seed,
            again=again, step=self._step,
        )

    def groups(
        self, column: str, name: str | None = None, *, k: int | None = None, space: str | None = None,
        layer: int | str | None = None, where: str | None = None, measure: str = "centroid", min_clips: int = 1,
    ) -> pl.DataFrame:
        """Groups nearest to one, or all groups with their nearest; see `index.groups`."""
        import index

        return index.groups(
            self.lake, column, name, k=k, space=space, layer=layer, where=where, measure=measure, min_clips=min_clips
        )

    def group_matrix(
        self, column: str, *, space: str | None = None, layer: int | str | None = None, where: str | None = None,
        measure: str = "centroid", min_clips: int = 1,
    ) -> pl.DataFrame:
        """The similarity of every pair of groups; see `index.group_matrix`."""
        import index

        return index.group_matrix(
            self.lake, column, space=space, layer=layer, where=where, measure=measure, min_clips=min_clips
        )

    def typical(
        self, column: str, name: str | None = None, *, k: int = 5, space: str | None = None, layer: int | str | None = None,
        where: str | None = None, min_clips: int = 1,
    ) -> pl.DataFrame:
        """The most typical and the most unusual clips of a group; see `index.typical`."""
        import index

        return index.typical(
            self.lake, column, name, k=k, space=space, layer=layer, where=where, min_clips=min_clips
        )

    def layers(
        self, column: str, *, space: str | None = None, where: str | None = None, prepare: str = "l2", seed: int = 0
    ) -> LayerReport:
        """Which layer tells the groups of a column apart; see `index.layers`."""
        import index

        return index.layers(
            self.lake, column, space=space, where=where, prepare=prepare, seed=seed, progress=self._progress()
        )

    def effects(self, column: str, *, space: str | None = None, where: str | None = None, seed: int = 0) -> pl.DataFrame:
        """What centring, whitening and normalising do to each layer; see `index.effects`."""
        import index

        return index.effects(self.lake, column, space=space, where=where, seed=seed, progress=self._progress())

    def compare(
        self, first: str, second: str, column: str | None = None, *, where: str | None = None, seed: int = 0
    ) -> pl.DataFrame:
        """Two spaces side by side, layer by layer; see `index.compare`."""
        import index

        return index.compare(self.lake, first, second, column, where=where, seed=seed, progress=self._progress())

    def overlap(
        self, column: str, reference: str | Path | pl.DataFrame, *, k: int = 10, space: str | None = None,
        layer: int | str | None = None, where: str | None = None, measure: str = "centroid", min_clips: int = 1, seed: int = 0,
    ) -> Overlap:
        """Nearest groups against a list from elsewhere, a CSV file or a frame; see `index.overlap_with`."""
        import index

        table = reference if isinstance(reference, pl.DataFrame) else Path(reference).expanduser()
        return index.overlap_with(
            self.lake, column, table, k=k, space=space, layer=layer, where=where, measure=measure, min_clips=min_clips,
            seed=seed,
        )

    def duplicates(
        self, *, space: str | None = None, layer: int | str | None = None, cosine: float = 0.9, correlation: float = 0.8,
        confirm: bool = True, where: str | None = None, save: bool = False, workers: int | None = None,
    ) -> pl.DataFrame:
        """Clips that are the same recording; see `index.copies`."""
        import index

        return index.duplicates(
            self.lake, ingest.read_clips, space=space, layer=layer, cosine=cosine, correlation=correlation, confirm=confirm,
            where=where, save=save, workers=workers, progress=self._progress(),
        )

    # -- probes

    def probe(
        self, columns: str | Sequence[str] = (), *, config: str | Path | ProbeConfig | None = None,
        protocol: str | None = None, name: str | None = None, again: bool = False, **settings: Any,
    ) -> list[Run]:
        """Train probes on stored vectors; `settings` are those of `probes.ProbeConfig`, and change `config`'s.

        A list of one run, or of as many as a protocol has; see `probes.probe_all`.
        """
        import probes

        wanted = (columns,) if isinstance(columns, str) else tuple(columns)
        if isinstance(config, str | Path):
            config = probes.config_from_file(Path(config).expanduser())
        return probes.probe_all(
            self.lake, wanted, config=config, protocol=protocol, name=name, again=again, settings=settings,
            progress=self._progress(), step=self._step,
        )

    def learn_metric(
        self, column: str, *, space: str | None = None, layer: int | str | None = None, dim: int = 128,
        loss: str = "contrastive", rate: float = 3e-3, epochs: int = 60, seed: int = 0, where: str | None = None,
        name: str | None = None,
    ) -> LearnedMetric:
        """A projection in which clips of one group lie near, as a space of its own; see `probes.learn_metric`."""
        import index
        import probes

        def judge(judged: str, number: int, only: str) -> dict[str, tuple[float, float, float]]:
            return index.retrieval_at(self.lake, column, judged, number, where=only, seed=seed)

        return probes.learn_metric(
            self.lake, column, judge, space=space, layer=layer, dim=dim, loss=loss, rate=rate, epochs=epochs, seed=seed,
            where=where, name=name, progress=self._progress(),
        )

    def extend_metric(self, space: str) -> int:
        """Bring clips that were embedded since into a projected space; how many."""
        from store import extend_projected, is_projection

        found = self.lake.spaces.get(space)
        if not is_projection(found):
            raise InputError(f"space {space!r} is no projection: `tonelake embed --space {space}` brings new clips in")
        return extend_projected(self.lake, found)

    def probe_run(self, name: str) -> Run:
        """A finished run, by its name or a part of it."""
        import probes

        return probes.read_run(self.lake, name)

    def compare_probes(self, names: Sequence[str] = ()) -> pl.DataFrame:
        """Runs side by side, by default all; see `probes.compare_runs`."""
        import probes

        runs = [probes.read_run(self.lake, name) for name in names] if names else probes.all_runs(self.lake)
        return probes.compare_runs(runs)

    def predict(
        self, run: str, *, where: str | None = None, save: bool = False, out: str | Path | None = None
    ) -> Predictions:
        """What a run says of clips, also written to the clips or to a file; see `probes.predict`."""
        import probes

        found = probes.predict(self.lake, run, where=where)
        if save:
            probes.save_predictions(self.lake, found)
        if out is not None:
            probes.write_predictions(found, Path(out).expanduser())
        return found

    def review(
        self, run: str, *, by: str = "loss", target: str | None = None, predicted: str | None = None, k: int | None = 20
    ) -> pl.DataFrame:
        """Judged clips of a probe or a fine-tuning, the most doubtful first; see `probes.review`."""
        import finetune
        import probes

        judged: probes.Judged
        try:
            judged = probes.read_run(self.lake, run)
        except InputError as error:
            try:
                judged = finetune.read_tuning(self.lake, run)
            except InputError:
                raise error from None
        return probes.review(self.lake, judged, by=by, target=target, predicted=predicted, k=k)

    # -- fine-tuning

    def finetune(
        self, column: str | None = None, *, config: str | Path | FinetuneConfig | None = None, name: str | None = None,
        again: bool = False, workers: int | None = None, **settings: Any,
    ) -> Tuning:
        """Teach an encoder a label column by LoRA; `settings` are those of `finetune.FinetuneConfig`, and change `config`'s."""
        import finetune

        watch = finetune.Watch(self._progress(), self._step, self._epoch)
        return finetune.finetune(
            self.lake, finetune.settle(config, column, settings), ingest.read_clips, name=name, again=again, workers=workers,
            watch=watch,
        )

    def plan_finetune(
        self, column: str | None = None, *, config: str | Path | FinetuneConfig | None = None, workers: int | None = None,
        price: float = 0.0, **settings: Any,
    ) -> TuningPlan:
        """What the same `finetune` would take, measured on a few steps; `price` is that of an hour of this machine."""
        import finetune

        return finetune.plan_finetune(
            self.lake, finetune.settle(config, column, settings), ingest.read_clips, workers=workers, price=price
        )

    def adapters(self) -> pl.DataFrame:
        """The fine-tuning runs of the lake; see `finetune.list_tunings`."""
        import finetune

        return finetune.list_tunings(finetune.all_tunings(self.lake))

    def adapter_run(self, name: str) -> Tuning:
        """A finished fine-tuning, by its name or a part of it."""
        import finetune

        return finetune.read_tuning(self.lake, name)

    def compare_adapters(self, names: Sequence[str]) -> pl.DataFrame:
        """Runs on the tracks that all of them held out; see `finetune.comparison`."""
        import finetune
        from finetune.comparison import compare_tunings

        return compare_tunings([finetune.read_tuning(self.lake, name) for name in names])

    def orthogonality(self, run: str) -> Angles:
        """Angles between a run's class directions, and between its layers' updates; see `finetune.orthogonality`."""
        from finetune.orthogonality import orthogonality

        return orthogonality(self.lake, run)

    def _epoch(self, line: dict[str, float]) -> None:
        """Say what an epoch of training came to, where progress is shown."""
        if self._show:
            from tonelake.render import epoch_line

            print(epoch_line(line), file=sys.stderr)

    def _step(self, name: str) -> None:
        """Say what a long answer is at, where progress is shown."""
        from tonelake.render import status_line

        if self._show:
            status_line(name)

    def _progress(self):
        from tonelake.render import progress_bar

        return progress_bar if self._show else ingest.silent_progress

    def __repr__(self) -> str:
        return f"Tonelake({self.lake.uri!r})"
