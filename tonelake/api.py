"""The lake as Python users and the command line see it: every command is one method here, and every result a polars
frame or a small report that prints itself."""

from __future__ import annotations

import weakref
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import polars as pl

from tonelake import ingest
from tonelake.asking import Asking
from tonelake.gestures import Gestures
from tonelake.learning import Learning
from tonelake.status import Status, spaces_of, status_of
from tonelake.store import InputError

if TYPE_CHECKING:
    from tonelake.embed import EmbedReport, Plan
    from tonelake.index import Query
    from tonelake.ingest import IngestReport

PLAYERS = 2                              # processes that decode what is to be heard


class Tonelake(Asking, Learning):
    """An opened lake and everything that can be done with it."""

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
        from tonelake.charts import draw_spectrogram

        return draw_spectrogram(self.audio(clip, 24_000, seconds=seconds), 24_000)

    def hear(self, file: str | Path, *, space: str | None = None) -> Query:
        """An audio file, listened to once, to ask `similar` with several times; see `index.read_query`."""
        from tonelake import index

        return index.read_query(self.lake, Path(file).expanduser(), space=space)

    @cached_property
    def tokens(self) -> Gestures:
        """Vocabularies of sounds, token sequences, oracle and live audio; see `tonelake.gestures`."""
        return Gestures(self.lake, self._progress)

    @cached_property
    def _decoders(self) -> ingest.DecoderPool:
        """Processes that decode for players; a file that crashes one does not crash the app."""
        pool = ingest.DecoderPool(PLAYERS)
        weakref.finalize(self, pool.close)
        return pool

    # -- keeping it sound

    def verify(self, *, repair: bool = False, sources: bool = True, digests: bool = False) -> pl.DataFrame:
        """Whether every row, vector, source and derived file is as it should be; see `tonelake.verify`."""
        from tonelake.verify import verify

        return verify(self.lake, repair=repair, sources=sources, digests=digests, progress=self._progress())

    def optimize(self, *, keep_minutes: float = 60.0) -> pl.DataFrame:
        """Merge small pieces of tables and remove old versions; see `store.compaction`."""
        from tonelake.store import optimize

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
        """A catalogue of songs by meter, fetched by yt-dlp; see `ingest.datasets.wikimeter`."""
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
        from tonelake import embed

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
        from tonelake import embed

        settings = embed.EmbedSettings(encoder, space, window, hop, precision, device, adapter)
        embed.check_clips(self.lake)
        chosen, loaded = embed.find_or_describe(self.lake, settings)
        layers = sorted({chosen.layer_index(layer) for layer in frames})
        return embed.make_plan(
            self.lake, chosen, loaded, ingest.read_clips, frames=layers, workers=workers, price=price
        )
