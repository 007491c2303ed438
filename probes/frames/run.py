"""A run of a frame probe on disk: a folder below `probes/` of the lake, beside runs on pooled vectors.

    config.yaml            every setting, resolved; written first
    manifest.json          digests of the data that decide the results
    partial/               finished inputs, while the run trains
    weights.safetensors    the chosen fits of every seed, with the standardisation of their states
    fits.parquet           every fit of the grid: layer, rate, decay, seed, epochs, score, loss
    history.parquet        each epoch of each fit: losses and validation score
    layers.parquet         each layer at its best setting, with scores and intervals
    clips.parquet          scores of each test clip by the chosen layer
    groups.parquet         scores by group of the held-out column, by octave and by instrument
    predictions.parquet    events found in the test clips by the chosen layer
    split.parquet          the set (train, valid, test) of each clip
    report.md              the report
    metrics.json           scores, settings of the decoder, baselines; written last

Probabilities are means over seeds: what is judged is what `posteriors` and `predict` give.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, ClassVar, Self

import polars as pl

from tonelake.probes.frames.config import FrameProbeConfig
from tonelake.probes.frames.probabilities import Posteriors
from tonelake.probes.runs import WEIGHTS, Run, check_kind, is_on_frames, read_tensors
from tonelake.store import FinishedRun, Lake, SpaceMismatch, choose_run

if TYPE_CHECKING:
    from tonelake.probes.frames.decode_settings import DecodeSettings
    from tonelake.probes.frames.tasks import FrameTask

FRAMES = "frames"                        # metrics.json: `on` of these runs


class FrameRun(FinishedRun[FrameProbeConfig]):
    """A finished frame probe."""

    kind, noun, maker, settings = "probes", "run", "tonelake probe notes --frames", FrameProbeConfig
    types: ClassVar[dict[str, type]] = {
        "on": str, "main": str, "task": str, "space": str, "figures": dict, "baselines": dict, "clips": int, "fits": int,
        "decoding": dict, "fingerprint": str,
    }

    @classmethod
    def find(cls, lake: Lake, name: str) -> Self | None:
        """The finished run of exactly that name, or None.  Raises InputError for a run on pooled vectors."""
        check_kind(cls.folder(lake, name), name, on_frames=True)
        return super().find(lake, name)

    @classmethod
    def all(cls, lake: Lake) -> list[Self]:
        """All finished runs on frames, oldest first."""
        names = [name for name in lake.files(cls.kind).folders() if is_on_frames(cls.folder(lake, name))]
        found = [run for run in (cls.find(lake, name) for name in names) if run is not None]
        return sorted(found, key=lambda run: (run.metrics["finished"], run.name))

    @property
    def task(self) -> FrameTask:
        """The task with its outputs."""
        from tonelake.probes.frames.tasks import frame_task

        return frame_task(self.config.task, self.config.lowest, self.config.highest)

    @property
    def decoding(self) -> DecodeSettings:
        """Settings of the decoder, chosen on the validation clips."""
        from tonelake.probes.frames.decode_settings import DecodeSettings

        return DecodeSettings.from_dict(self.metrics["decoding"], f"metrics.json of run {self.name!r}")

    def posteriors(self, lake: Lake, clip_ids: Sequence[str]) -> Iterator[Posteriors]:
        """Yield the probabilities of clips, in their order; only a few clips are in memory at a time.

        Raises InputError if frames of one of the clips are not stored, SpaceMismatch if the space now embeds differently.
        """
        from tonelake.probes.frames.posteriors import StoredHeads, clip_posteriors

        space = lake.spaces.get(self.config.space)
        if space.fingerprint != self.metrics["fingerprint"]:
            raise SpaceMismatch(
                f"run {self.name!r}: space {space.name!r} has changed since it was trained. Train it again with --again"
            )
        heads = StoredHeads.read(self)
        yield from clip_posteriors(lake, space, heads, list(clip_ids))

    def weights(self) -> dict:
        """Return tensors by name: `<seed>.<parameter>`, `prepare.mean` and `prepare.scale`."""
        return read_tensors(self.files, WEIGHTS, self.name)

    def layer_names(self) -> list[str]:
        """Names of the layers that the chosen head reads."""
        return list(self.metrics["layers"])

    def scores(self) -> pl.DataFrame:
        """Scores of each test clip."""
        return self.table("clips")


def named_run(lake: Lake, name: str) -> Run | FrameRun:
    """A finished probe of either kind, by its name or a part of it.  Raises InputError if none or several match."""
    chosen = choose_run(lake, Run.kind, name, absent=f"no {Run.noun} {name!r} in this lake", maker=Run.maker)
    found: Run | FrameRun | None
    found = FrameRun.find(lake, chosen) if is_on_frames(Run.folder(lake, chosen)) else Run.find(lake, chosen)
    assert found is not None
    return found
