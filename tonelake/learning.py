"""What is learned on an opened lake: probes, projections and fine-tuned encoders, and what they say of clips."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl

from tonelake import ingest
from tonelake.handle import Opened
from tonelake.store import InputError

if TYPE_CHECKING:
    from tonelake.finetune import Angles, FinetuneConfig, FinetunePlan, FinetuneRun
    from tonelake.probes import LearnedMetric as LearnedMetric
    from tonelake.probes import Predictions, ProbeConfig, Run


class Learning(Opened):
    """Probes and fine-tuning."""

    # -- probes

    def probe(
        self, columns: str | Sequence[str] = (), *, config: str | Path | ProbeConfig | None = None,
        protocol: str | None = None, name: str | None = None, again: bool = False, **settings: Any,
    ) -> list[Run]:
        """Train probes on stored vectors; `settings` are those of `probes.ProbeConfig`, and change `config`'s.

        A list of one run, or of as many as a protocol has; see `probes.probe_all`.
        """
        from tonelake import probes

        wanted = (columns,) if isinstance(columns, str) else tuple(columns)
        if isinstance(config, str | Path):
            config = probes.ProbeConfig.from_file(Path(config).expanduser())
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
        from tonelake import index, probes

        def judge(judged: str, number: int, only: str) -> dict[str, tuple[float, float, float]]:
            return index.retrieval_at(self.lake, column, judged, number, where=only, seed=seed)

        return probes.learn_metric(
            self.lake, column, judge, space=space, layer=layer, dim=dim, loss=loss, rate=rate, epochs=epochs, seed=seed,
            where=where, name=name, progress=self._progress(),
        )

    def extend_metric(self, space: str) -> int:
        """Bring clips that were embedded since into a projected space; how many."""
        from tonelake.store import extend_projected, is_projection

        found = self.lake.spaces.get(space)
        if not is_projection(found):
            raise InputError(f"space {space!r} is no projection: `tonelake embed --space {space}` brings new clips in")
        return extend_projected(self.lake, found)

    def probe_run(self, name: str) -> Run:
        """A finished run, by its name or a part of it."""
        from tonelake import probes

        return probes.Run.named(self.lake, name)

    def compare_probes(self, names: Sequence[str] = ()) -> pl.DataFrame:
        """Runs side by side, by default all; see `probes.compare_runs`."""
        from tonelake import probes

        runs = [probes.Run.named(self.lake, name) for name in names] if names else probes.Run.all(self.lake)
        return probes.compare_runs(runs)

    def predict(
        self, run: str, *, where: str | None = None, save: bool = False, out: str | Path | None = None
    ) -> Predictions:
        """What a run says of clips, also written to the clips or to a file; see `probes.predict`."""
        from tonelake import probes

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
        from tonelake import finetune, probes

        judged: probes.Judged
        try:
            judged = probes.Run.named(self.lake, run)
        except InputError as error:
            try:
                judged = finetune.FinetuneRun.named(self.lake, run)
            except InputError:
                raise error from None
        return probes.review(self.lake, judged, by=by, target=target, predicted=predicted, k=k)

    # -- fine-tuning

    def finetune(
        self, column: str | None = None, *, config: str | Path | FinetuneConfig | None = None, name: str | None = None,
        again: bool = False, workers: int | None = None, **settings: Any,
    ) -> FinetuneRun:
        """Teach an encoder a label column by LoRA; `settings` are those of `finetune.FinetuneConfig`, and change `config`'s."""
        from tonelake import finetune

        watch = finetune.Watch(self._progress(), self._step, self._epoch)
        return finetune.finetune(
            self.lake, finetune.settle(config, column, settings), ingest.read_clips, name=name, again=again, workers=workers,
            watch=watch,
        )

    def plan_finetune(
        self, column: str | None = None, *, config: str | Path | FinetuneConfig | None = None, workers: int | None = None,
        price: float = 0.0, **settings: Any,
    ) -> FinetunePlan:
        """What the same `finetune` would take, measured on a few steps; `price` is that of an hour of this machine."""
        from tonelake import finetune

        return finetune.plan_finetune(
            self.lake, finetune.settle(config, column, settings), ingest.read_clips, workers=workers, price=price
        )

    def adapters(self) -> pl.DataFrame:
        """The fine-tuning runs of the lake; see `finetune.list_finetunes`."""
        from tonelake import finetune

        return finetune.list_finetunes(finetune.FinetuneRun.all(self.lake))

    def adapter_run(self, name: str) -> FinetuneRun:
        """A finished fine-tuning, by its name or a part of it."""
        from tonelake import finetune

        return finetune.FinetuneRun.named(self.lake, name)

    def compare_adapters(self, names: Sequence[str]) -> pl.DataFrame:
        """Runs on the tracks that all of them held out; see `finetune.comparison`."""
        from tonelake import finetune
        from tonelake.finetune import compare_finetunes

        return compare_finetunes([finetune.FinetuneRun.named(self.lake, name) for name in names])

    def orthogonality(self, run: str) -> Angles:
        """Angles between a run's class directions, and between its layers' updates; see `finetune.orthogonality`."""
        from tonelake.finetune import orthogonality

        return orthogonality(self.lake, run)
