"""Functions that train, store and write up a fine-tuning, by what it learns: a label column, or events at each frame."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from tonelake.finetune.config import FinetuneConfig


class SeedSteps(NamedTuple):
    """The steps of training each seed.  See the functions for their arguments."""

    prepare: Callable[..., Any]          # (setup, model, source, work): what the trainings of all seeds share
    train: Callable[..., Any]            # (setup, model, source, shared, folder, start, is_main): the result of a seed
    write: Callable[[Path, Any], None]
    read: Callable[[Path, int], Any]     # None if the seed is not finished
    write_results: Callable[..., None]   # (setup, results, model, name, files, started)


def make_trainer(setup: Any, model: Any, source: Any, work: Path) -> Any:
    """Return the trainer of a fine-tuning."""
    if setup.config.events:
        from tonelake.finetune.frames.training import FrameFinetuner

        return FrameFinetuner(model, setup, source, work)
    from tonelake.finetune.seeds import make_clips
    from tonelake.finetune.trainer import Finetuner

    train, valid = (make_clips(source, setup, side) for side in ("train", "valid"))
    primary = setup.primary_class()[setup.split.valid]
    return Finetuner(model, setup.config, train, valid, setup.task.track, work, primary)


def seed_steps(config: FinetuneConfig) -> SeedSteps:
    """Return the steps for a label column or for events."""
    if config.events:
        from tonelake.finetune.frames.results import write_frame_results
        from tonelake.finetune.frames.training import read_frame_seed, train_frame_seed, write_frame_seed

        def nothing(setup: Any, model: Any, source: Any, work: Path) -> None:
            """Frames of all layers are too large to keep, so the frozen baseline encodes the clips again each epoch."""

        def train(
            setup: Any, model: Any, source: Any, shared: None, folder: Path, start: Any, is_main: bool
        ) -> Any:
            return train_frame_seed(setup, model, source, folder, start, is_main)

        return SeedSteps(
            prepare=nothing, train=train, write=write_frame_seed, read=read_frame_seed, write_results=write_frame_results
        )
    from tonelake.finetune.frozen import pool_clips
    from tonelake.finetune.results import write_results
    from tonelake.finetune.seeds import read_seed, train_seed, write_seed

    return SeedSteps(
        prepare=pool_clips, train=train_seed, write=write_seed, read=read_seed, write_results=write_results
    )
