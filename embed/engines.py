"""Run an embedding in this process, in one process per device, or on a Ray cluster, with equal results."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from tonelake.embed.encoders.base import check_frames
from tonelake.embed.pipeline import EmbedReport, embed_clips
from tonelake.embed.settings import (
    EmbedSettings,
    device_is_here,
    encoder_location,
    find_or_describe,
    with_default_encoder,
)
from tonelake.embed.tagging import check_tags, tag_clips
from tonelake.embed.work import ReadClips, check_clips
from tonelake.store import InputError, Lake, trim_quietly

ENGINES = ("local", "ray")


def embed_lake(
    lake: Lake, settings: EmbedSettings, read: ReadClips, *, frames: Sequence[str | int] = (), tags: bool = False,
    engine: str = "local", address: str | None = None, workers: int | None = None,
) -> EmbedReport:
    """Embed every clip that has no vector in the space of these settings, or lacks frames of one of the layers `frames`.

    `tags`: also write the tags of every clip into a list column, as `tag_clips` does.  `engine`: `local` uses all devices that
    the settings name, and every GPU of the machine if they name `cuda`; `ray` uses the cluster at `address`.  Raises InputError
    for invalid settings, before anything is written.
    """
    check_engine(engine, address)
    check_clips(lake)
    settings = with_default_encoder(lake, settings)
    if tags:
        check_tags(encoder_location(lake, settings))
        report = embed_lake(lake, settings, read, frames=frames, engine=engine, address=address, workers=workers)
        return replace(report, tagged=tag_clips(lake, report.space))
    if engine == "ray":
        from tonelake.embed.ray_cluster import embed_on_ray

        report = embed_on_ray(lake, settings, read, address=address, frames=frames, workers=workers)
        return compact_tables(lake, report)
    named = [name.strip() for name in settings.device.split(",")]
    if len(named) > 1:
        check_devices(named)
    space, encoder = find_or_describe(lake, replace(settings, device=named[0]))
    check_frames(encoder, frames)
    layers = sorted({space.layer_index(layer) for layer in frames})
    space = lake.spaces.make(space)
    devices = named if len(named) > 1 else every_device(encoder.device)
    if len(devices) > 1:
        from tonelake.embed.device_processes import embed_on_devices

        del encoder
        free_memory(devices)
        report = embed_on_devices(lake, space, devices, read, frames=layers, workers=workers)
        return compact_tables(lake, report)
    return embed_clips(lake, space, encoder, read, frames=layers, workers=workers)


def check_engine(engine: str, address: str | None) -> None:
    """Raise InputError unless there is such an engine, and it takes the address."""
    if engine not in ENGINES:
        raise InputError(f"engine {engine!r}: unknown. Choose {' or '.join(ENGINES)}")
    if address and engine != "ray":
        raise InputError(f"address {address!r}: only the Ray engine takes one. Add --engine ray")


def compact_tables(lake: Lake, report: EmbedReport) -> EmbedReport:
    """Compact the tables after an embedding by several writers, which leave that to their parent; returns the report."""
    if report.new or report.framed:
        for table in (lake.vectors(report.space).table, lake.frames(report.space).table):
            trim_quietly(table)
    return report


def every_device(device: str) -> list[str]:
    """Every GPU of this machine for `cuda`, else the device itself."""
    if device != "cuda":
        return [device]
    import torch

    return [f"cuda:{number}" for number in range(torch.cuda.device_count())]


def free_memory(devices: Sequence[str]) -> None:
    """Release the GPU memory of a deleted model, which the device processes need."""
    if devices[0].startswith("cuda"):
        import torch

        torch.cuda.empty_cache()


def check_devices(devices: Sequence[str]) -> None:
    """Raise InputError unless this machine has all of these devices and they are of one kind."""
    absent = [device for device in devices if not device_is_here(device)]
    if absent:
        raise InputError(f"device {', '.join(absent)}: not on this machine. Choose --device cpu")
    if len({device.partition(":")[0] for device in devices}) > 1:
        raise InputError(f"devices {', '.join(devices)}: of several kinds, whose vectors differ by rounding. Name one kind")
