"""The lake as Python users and the command line see it: one object whose methods are the rooms' functions."""

from __future__ import annotations

import math
import weakref
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl

from tonelake import embed as embedding
from tonelake import finetune as tuning
from tonelake import index, ingest, probes, store
from tonelake.status import list_spaces, read_status
from tonelake.verify import verify as verify_lake

if TYPE_CHECKING:
    from tonelake.embed import EmbedReport, Plan
    from tonelake.finetune import FinetuneRun
    from tonelake.index import LiveEncoder, LiveSession
    from tonelake.probes import EvaluatedRun, FrameRun, LearnedMetric, Run
    from tonelake.store import ForgetReport

PLAYERS = 2                              # processes that decode audio for the app, and as many for what is played


class Lake(store.Lake):
    """An opened lake and everything that can be done with it.

    Most methods are functions of a room: `lake.similar(…)` is `tonelake.index.similar(lake, …)`.  The lake's own data:
    `lake.clips`, `lake.events`, `lake.spaces`, `lake.failures`, `lake.ingests`, `lake.vectors(space)`,
    `lake.frames(space)`, `lake.tokens(space)` and `lake.gestures(space)`.
    Long jobs show their progress through `lake.progress` and log to `tonelake.<room>`.
    """

    # -- state and upkeep

    status = read_status
    list_spaces = list_spaces
    verify = verify_lake
    optimize = store.optimize

    # -- audio in

    ingest_folder = ingest.ingest_folder
    ingest_manifest = ingest.ingest_manifest
    ingest_chorales = ingest.ingest_chorales
    ingest_dataset = ingest.ingest_dataset
    ingest_catalogue = ingest.ingest_catalogue
    ingest_mirdata = ingest.ingest_mirdata
    ingest_hf = ingest.ingest_hf
    ingest_beets = ingest.ingest_beets
    ingest_subsonic = ingest.ingest_subsonic
    ingest_jellyfin = ingest.ingest_jellyfin
    ingest_events = ingest.ingest_events
    separate = ingest.separate_clips

    def clip_events(self, clip: str, kinds: Sequence[str] = (), *, source: str | None = None) -> pl.DataFrame:
        """The events of one clip, with times from its start; see `store.Events.of_clips` for the columns.

        `clip`: as for `audio`.  `kinds`: only these; `source`: only events from it, else all but predictions.
        """
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

    project = embedding.project_space
    hybrid = embedding.hybrid_space
    tag_clips = embedding.tag_clips
    read_tags = embedding.read_tags

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

    find = index.find_songs
    similar = index.similar
    similar_many = index.similar_many
    label_by_words = index.label_by_words
    read_query = index.read_query
    facets = index.facet_report
    path = index.path
    align = index.align
    cosine = index.cosine
    add_parts = index.add_parts
    learn_weights = index.learn_weights
    duplicates = index.duplicates
    build_indexes = index.build_indexes
    list_indexes = index.list_indexes
    drop_indexes = index.drop_indexes

    # -- analysis

    map = index.make_map
    groups = index.groups
    group_matrix = index.group_matrix
    group_pairs = index.group_pairs
    group_sizes = index.group_sizes
    typical = index.typical
    entry_songs = index.entry_songs
    layers = index.layers
    best_layer = index.best_layer
    report_mixture = index.report_mixture
    effects = index.effects
    compare = index.compare
    overlap = index.overlap_with

    # -- gesture tokens and live audio

    fit_vocabulary = index.fit_vocabulary
    apply_vocabulary = index.apply_vocabulary
    list_vocabularies = index.list_vocabularies
    runs_of_clip = index.runs_of_clip
    compute_gestures = index.compute_gestures
    gestures_of_clip = index.gestures_of_clip
    similar_by_tokens = index.similar_by_tokens
    typical_tokens = index.typical_tokens
    repeats = index.repeats
    continuation = index.continuation

    def live(self, *, rate: int, **settings: Any) -> LiveEncoder:
        """Compare a stream of `rate` Hz with the lake while it comes.  `settings`: those of `index.LiveEncoder`."""
        return index.LiveEncoder(self, rate=rate, **settings)

    def live_session(self, vocabularies: Sequence[str] = (), *, rate: int, **settings: Any) -> LiveSession:
        """Follow a stream of `rate` Hz in several vocabularies at once.  `settings`: those of `index.LiveSession`."""
        return index.LiveSession(self, vocabularies, rate=rate, **settings)

    # -- probes

    probe = probes.probe_all
    predict = probes.predict
    probe_frames = probes.probe_frames
    predict_events = probes.predict_events
    compare_probes = probes.compare_probes
    extend_metric = probes.extend_metric

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

    finetune = tuning.finetune
    plan_finetune = tuning.plan_finetune
    plan_finetunes = tuning.plan_finetunes
    list_finetunes = tuning.list_finetunes
    compare_finetunes = tuning.compare_finetunes
    evaluate_epoch = tuning.evaluate_epoch
    orthogonality = tuning.orthogonality

    def finetune_run(self, name: str) -> FinetuneRun:
        """A finished fine-tuning run, by its name or a part of it.  Raises InputError if none or several match."""
        return tuning.FinetuneRun.named(self, name)
