"""The lake as Python users and the command line see it: one object whose methods are the rooms' functions."""

from __future__ import annotations

import math
import weakref
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tonelake import embed as embedding
from tonelake import finetune as tuning
from tonelake import index, ingest, probes, store

if TYPE_CHECKING:
    import numpy as np
    import polars as pl

    import tonelake as late
    import tonelake.status
    import tonelake.verify  # noqa: F401 - an attribute of `late`
    from tonelake.embed import EmbedReport, Plan
    from tonelake.finetune import FinetuneRun
    from tonelake.index import LiveEncoder, LiveSession
    from tonelake.probes import EvaluatedRun, FrameRun, LearnedMetric, Run
    from tonelake.store import ForgetReport
else:
    from tonelake.late_methods import LateModules

    late = LateModules("tonelake")

PLAYERS = 2                              # processes that decode audio for the app, and as many for what is played


class Lake(store.Lake):
    """An opened lake and everything that can be done with it.

    Most methods are functions of a room: `lake.similar(…)` is `tonelake.index.similar(lake, …)`.  The lake's own data:
    `lake.clips`, `lake.events`, `lake.spaces`, `lake.failures`, `lake.ingests`, `lake.vectors(space)`,
    `lake.frames(space)`, `lake.tokens(space)` and `lake.gestures(space)`.
    Long jobs show their progress through `lake.progress` and log to `tonelake.<room>`.
    """

    # -- state and upkeep

    status = late.status.read_status
    list_spaces = late.status.list_spaces
    verify = late.verify.verify
    optimize = late.store.optimize

    # -- audio in

    ingest_folder = late.ingest.ingest_folder
    ingest_manifest = late.ingest.ingest_manifest
    ingest_chorales = late.ingest.ingest_chorales
    ingest_dataset = late.ingest.ingest_dataset
    ingest_catalogue = late.ingest.ingest_catalogue
    ingest_mirdata = late.ingest.ingest_mirdata
    ingest_hf = late.ingest.ingest_hf
    ingest_beets = late.ingest.ingest_beets
    ingest_subsonic = late.ingest.ingest_subsonic
    ingest_jellyfin = late.ingest.ingest_jellyfin
    ingest_events = late.ingest.ingest_events
    separate = late.ingest.separate_clips

    def clip_events(self, clip: str, kinds: Sequence[str] = (), *, source: str | None = None) -> pl.DataFrame:
        """The events of one clip, with times from its start; see `store.Events.of_clips` for the columns.

        `clip`: as for `audio`.  `kinds`: only these; `source`: only events from it, else all but predictions.
        """
        import polars as pl

        row = pl.DataFrame([index.find_clip(self, clip)]).select("clip_id", "recording", "start_s", "duration_s")
        return self.events.of_clips(row, kinds or store.EVENT_KINDS, source=source)

    def forget(self, path: str | Path | None = None, **choice: Any) -> ForgetReport | None:
        """Delete clips for good, with their vectors, frames and tokens: those of a file or folder, or by `choice`.

        `choice`: missing, superseded, where or confirm, as of `store.forget`.
        """
        source = None if path is None else str(path)
        if source is not None and ingest.is_file_source(source) and "://" not in source:      # a server's address
            source = ingest.to_source(Path(source).expanduser())
        return store.forget(self, source, **choice)

    # -- audio out

    def audio(
        self, clip: str, rate: int = 24_000, *, start: float = 0.0, seconds: float | None = None, whole: bool = False,
        urgent: bool = False,
    ) -> np.ndarray:
        """The samples of one clip, or `seconds` of it from `start`: (samples,) float32 at `rate` Hz.

        `clip`: an id or its first digits, or the name of a song, whose first clip is read.
        `whole`: read the recording that the clip is part of; `start` counts from its start.
        `urgent`: it is about to be played; it does not wait for samples that pictures are drawn of.

        Raises AudioError if its source is missing or has changed, InputError if the span is outside the clip.
        """
        row = index.find_clip(self, clip)
        begin, end = (0.0, math.inf) if whole else (row["start_s"], row["duration_s"])
        if whole and seconds is None:
            end = self.recording_length(clip)
        length = end - start if seconds is None else min(seconds, end - start)
        if start < 0 or length <= 0:
            raise store.InputError(
                f"clip {row['clip_id']}: {end:g} s long, so nothing starts at {start:g} s. Start earlier"
            )
        span = {"source": row["source"], "start_s": begin + start, "duration_s": length, "digest": row["digest"]}
        return (self._players if urgent else self._decoders).ask({"do": "read", "rate": rate} | span)["samples"]

    def recording_length(self, clip: str, *, urgent: bool = False) -> float:
        """The length in seconds of the recording that a clip is part of, by its file's header.

        Where the header has none, or there is no file, the recording reaches to the end of its last clip.  `urgent`: as for
        `audio`.  Raises AudioError if the file is missing.
        """
        row = index.find_clip(self, clip)
        end = row["start_s"] + row["duration_s"]
        if not ingest.is_chorale(row["source"]):         # a song of a server is downloaded: it is about to be played
            decoders = self._players if urgent else self._decoders
            stated = decoders.ask({"do": "length", "source": row["source"]})["length_s"]
            if stated is not None:
                return max(stated, end)
        spans = self.clips.read(["start_s", "duration_s"], where=store.in_list("source", [row["source"]]))
        return max(end, (spans["start_s"] + spans["duration_s"]).max())

    def spectrogram(self, clip: str, *, seconds: float | None = None) -> bytes:
        """The mel spectrogram of a clip, or of its first `seconds`, as a PNG file.  Raises AudioError as `audio`."""
        from tonelake.charts import draw_spectrogram

        return draw_spectrogram(self.audio(clip, 24_000, seconds=seconds), 24_000)

    def prepare_playing(self) -> None:
        """Start the process that decodes urgent audio, so that the first sound does not wait for its imports."""
        self._players.ask({"do": "libraries", "source": ""})

    @cached_property
    def _decoders(self) -> ingest.DecoderPool:
        """Processes that decode audio: a file that crashes one of them does not crash the app."""
        return self._decoder_pool()

    @cached_property
    def _players(self) -> ingest.DecoderPool:
        return self._decoder_pool()

    def _decoder_pool(self) -> ingest.DecoderPool:
        pool = ingest.DecoderPool(PLAYERS)
        weakref.finalize(self, pool.close)
        return pool

    # -- vectors

    def embed(
        self, encoder: str | None = None, *, space: str | None = None, window: float | None = None, hop: float | None = None,
        precision: str = "auto", device: str = "auto", adapter: str | None = None, frames: Sequence[int | str] = (),
        tags: bool = False, engine: str = "local", address: str | None = None, workers: int | None = None,
    ) -> EmbedReport:
        """Embed every clip that has no vector in the space, and store the frames of the layers in `frames`.

        `tags`: also write the tags of every clip into a list column, with an encoder that has some (`tag_clips`).
        See `embed.EmbedSettings` for the defaults and `embed.embed_lake` for the engines.
        """
        settings = embedding.EmbedSettings(
            encoder, space=space, window_s=window, hop_s=hop, device=device, adapter=adapter,
            precision=precision,         # type: ignore[arg-type]  # the settings check it
        )
        return embedding.embed_lake(
            self, settings, ingest.read_clips, frames=frames, tags=tags, engine=engine, address=address, workers=workers
        )

    project = late.embed.project_space
    hybrid = late.embed.hybrid_space
    tag_clips = late.embed.tag_clips
    read_tags = late.embed.read_tags

    def plan(
        self, encoder: str | None = None, *, space: str | None = None, window: float | None = None, hop: float | None = None,
        precision: str = "auto", device: str = "auto", adapter: str | None = None, frames: Sequence[int | str] = (),
        workers: int | None = None, price: float = 0.0,
    ) -> Plan:
        """Estimate time, disk and cost of the same `embed`, measured on a few clips.  `price`: of an hour of this machine."""
        settings = embedding.EmbedSettings(
            encoder, space=space, window_s=window, hop_s=hop, device=device, adapter=adapter,
            precision=precision,         # type: ignore[arg-type]  # the settings check it
        )
        return embedding.plan_embed(self, settings, ingest.read_clips, frames=frames, workers=workers, price=price)

    # -- search

    find = late.index.find_songs
    similar = late.index.similar
    similar_many = late.index.similar_many
    label_by_words = late.index.label_by_words
    read_query = late.index.read_query
    facets = late.index.facet_report
    path = late.index.path
    align = late.index.align
    cosine = late.index.cosine
    add_parts = late.index.add_parts
    learn_weights = late.index.learn_weights
    duplicates = late.index.duplicates
    build_indexes = late.index.build_indexes
    list_indexes = late.index.list_indexes
    drop_indexes = late.index.drop_indexes

    # -- analysis

    map = late.index.make_map
    groups = late.index.groups
    group_matrix = late.index.group_matrix
    group_pairs = late.index.group_pairs
    group_sizes = late.index.group_sizes
    typical = late.index.typical
    entry_songs = late.index.entry_songs
    layers = late.index.layers
    best_layer = late.index.best_layer
    report_mixture = late.index.report_mixture
    effects = late.index.effects
    compare = late.index.compare
    overlap = late.index.overlap_with

    # -- gesture tokens and live audio

    fit_vocabulary = late.index.fit_vocabulary
    apply_vocabulary = late.index.apply_vocabulary
    list_vocabularies = late.index.list_vocabularies
    runs_of_clip = late.index.runs_of_clip
    compute_gestures = late.index.compute_gestures
    gestures_of_clip = late.index.gestures_of_clip
    similar_by_tokens = late.index.similar_by_tokens
    typical_tokens = late.index.typical_tokens
    repeats = late.index.repeats
    continuation = late.index.continuation

    def live(self, *, rate: int, **settings: Any) -> LiveEncoder:
        """Compare a stream of `rate` Hz with the lake while it comes.  `settings`: those of `index.LiveEncoder`."""
        return index.LiveEncoder(self, rate=rate, **settings)

    def live_session(self, vocabularies: Sequence[str] = (), *, rate: int, **settings: Any) -> LiveSession:
        """Follow a stream of `rate` Hz in several vocabularies at once.  `settings`: those of `index.LiveSession`."""
        return index.LiveSession(self, vocabularies, rate=rate, **settings)

    # -- probes

    probe = late.probes.probe_all
    predict = late.probes.predict
    probe_frames = late.probes.probe_frames
    predict_events = late.probes.predict_events
    compare_probes = late.probes.compare_probes
    extend_metric = late.probes.extend_metric

    def probe_run(self, name: str) -> Run:
        """A finished probe on vectors, by its name or a part of it.  Raises InputError if none or several match."""
        return probes.Run.named(self, name)

    def frame_run(self, name: str) -> FrameRun:
        """A finished probe on frames, by its name or a part of it.  Raises InputError if none or several match."""
        return probes.FrameRun.named(self, name)

    def learn_metric(self, column: str, *, seed: int = 0, **settings: Any) -> LearnedMetric:
        """Learn a projection in which clips of one group are near, and store it as a space of its own.

        `settings`: space, layer, dim, loss, rate, epochs, where and name, as of `probes.learn_metric`.
        """

        def judge(space: str, layer: int, where: str) -> dict[str, tuple[float, float, float]]:
            return index.retrieval_at(self, column, space, layer, where=where, seed=seed)

        return probes.learn_metric(self, column, judge, seed=seed, **settings)

    def review(
        self, run: str, *, by: str = "loss", side: str = "test", target: str | None = None, predicted: str | None = None,
        k: int | None = 20,
    ) -> pl.DataFrame:
        """Clips of a probe or a fine-tuning run, the most doubtful first; see `probes.review`."""
        judged: EvaluatedRun
        try:
            judged = probes.Run.named(self, run)
        except store.InputError as error:
            try:
                judged = tuning.FinetuneRun.named(self, run)
            except store.InputError:
                raise error from None
        return probes.review(self, judged, by=by, side=side, target=target, predicted=predicted, k=k)

    # -- fine-tuning

    finetune = late.finetune.finetune
    plan_finetune = late.finetune.plan_finetune
    plan_finetunes = late.finetune.plan_finetunes
    list_finetunes = late.finetune.list_finetunes
    compare_finetunes = late.finetune.compare_finetunes
    evaluate_epoch = late.finetune.evaluate_epoch
    orthogonality = late.finetune.orthogonality

    def finetune_run(self, name: str) -> FinetuneRun:
        """A finished fine-tuning run, by its name or a part of it.  Raises InputError if none or several match."""
        return tuning.FinetuneRun.named(self, name)
