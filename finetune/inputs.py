"""Inputs and the untrained model of a run: decoded clips with their events, or stored frames; an encoder with a head."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tonelake.embed import CLIP_COLUMNS, ReadClips


def make_source(
    setup: Any, encoder: Any, read: ReadClips, work: Path, workers: int | None
) -> tuple[Any, dict[str, str]]:
    """Return the source of clips (their decoded audio, with events if these are learned, or the stored frames), and the reason
    for each clip that cannot be read."""
    from accelerate import PartialState

    from tonelake.finetune.audio import decode
    from tonelake.finetune.data import AudioSource, FrameSource

    config, task = setup.config, setup.task
    if config.frames:
        return FrameSource(
            setup.lake, setup.space, task.ids.to_list(), task.clips["duration_s"].to_numpy(), config, encoder.frames_of
        ), {}
    stems = [] if setup.stems is None else setup.stems.clips["clip_id"].to_list()
    wanted = setup.lake.clips.take(list(dict.fromkeys([*task.ids.to_list(), *stems])), CLIP_COLUMNS)
    with PartialState(cpu=config.device == "cpu").local_main_process_first():
        audio, failed = decode(work, wanted, read, encoder.sample_rate, workers=workers, progress=setup.lake.progress)
    mixer = None if setup.stems is None else setup.mixer(set(failed))
    source = AudioSource(audio, task.ids.to_list(), config, encoder.sample_rate, mixer)
    if config.events:
        from tonelake.finetune.frames.source import EventSource, FrameClock

        return EventSource(source, setup, FrameClock(encoder, config.window_s)), failed
    return source, failed


def make_model(setup: Any, encoder: Any, source: Any = None) -> Any:
    """Return the untrained model.  `source`: of training clips, by which events are weighed in the loss."""
    import torch

    from tonelake.finetune.model import LoraModel

    if setup.config.events:
        from tonelake.finetune.frames.model import FrameModel

        outputs = len(setup.frame_task.outputs)
        if source is None:
            return FrameModel(encoder, setup.config, outputs, torch.ones(outputs), None)
        weights, bias = source.balance()
        return FrameModel(encoder, setup.config, outputs, torch.from_numpy(weights), bias)
    weights = setup.class_weights()
    return LoraModel(encoder, setup.config, len(setup.task.names), None if weights is None else torch.from_numpy(weights))
