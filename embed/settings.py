"""Settings of an embedding.  `auto` is resolved here, once, when a space is made; an existing space keeps its own settings."""

from __future__ import annotations

import logging
import re
from dataclasses import KW_ONLY, replace
from typing import Annotated, Any, Literal

from pydantic import Field

from tonelake.embed.encoders.adapter import base_space, describe_replaced, find_adapter
from tonelake.embed.encoders.base import Encoder
from tonelake.embed.encoders.default import default_encoder
from tonelake.embed.encoders.registry import full_name, load_encoder, runs_on_cpu_only
from tonelake.embed.encoders.table import DEFAULT_ENCODER
from tonelake.embed.errors import EncoderError
from tonelake.embed.precision import Choice, choose_precision, float32_note
from tonelake.store import (
    InputError,
    Lake,
    Settings,
    Space,
    SpaceMismatch,
    SpaceNotFound,
    check_name,
    extend_command,
    frozen_settings,
    is_derived,
    is_hybrid,
)

log = logging.getLogger(__name__)
MIN_WINDOW_S, MIN_HOP_S = 1.0, 0.5
MAX_WINDOW_S = 360.0                     # the longest that an encoder here was trained on (MERT-v2-FullSong)


@frozen_settings
class EmbedSettings(Settings):
    """How to embed.  None and `auto` take the value of the stored space, else the default.

    Raises InputError for a window, hop, precision or name that is out of range.
    """

    encoder: str | None = Field(
        default=None, description="Encoder by name, a checkpoint folder or module:Class; default: the encoder of the lake's "
        "default space; in a new lake MERT-v1-95M if its weights are on this machine, else musicnn."
    )
    _: KW_ONLY
    space: str | None = Field(
        default=None, description="Name of the space; default: the encoder's name and every non-default setting."
    )
    window_s: Annotated[float, Field(ge=MIN_WINDOW_S, le=MAX_WINDOW_S)] | None = Field(
        default=None, description="Seconds encoded at once; default: 30, the full context."
    )
    hop_s: float | None = Field(
        default=None,
        description="Seconds from one window to the next; default: the window's length, so that windows do not overlap.",
    )
    precision: Literal["auto", "float32", "bfloat16", "float16"] = Field(
        default="auto", description="Precision of the encoder."
    )
    device: str = Field(default="auto", description="Device: auto, cpu, cuda, cuda:1 or mps.")
    adapter: str | None = Field(
        default=None, description="Fine-tuned adapter: a run of the lake, or a folder in PEFT's format."
    )

    def __post_init__(self) -> None:
        if self.space is not None:
            check_name(self.space)
        if self.hop_s is not None:
            check_hop(self.window_s or MAX_WINDOW_S, self.hop_s)


DEFAULT_WINDOW_S = 30.0                  # MERT was trained on 5 s; the artist study found 30 s to separate best


def open_space(lake: Lake, settings: EmbedSettings) -> tuple[Space, Encoder]:
    """Find or make the space that the settings describe, and load its encoder.  Raises as `find_or_describe` does."""
    space, encoder = find_or_describe(lake, settings)
    return lake.spaces.make(space), encoder


def find_or_describe(lake: Lake, settings: EmbedSettings) -> tuple[Space, Encoder]:
    """The space that the settings describe, as stored or as it would be made, and its encoder.

    Raises InputError for invalid settings, EncoderError if the encoder cannot run here, SpaceMismatch if the space was
    embedded with other settings.
    """
    settings = with_adapter_base(lake, with_default_encoder(lake, settings))
    stored = find_space(lake, settings)
    if stored is not None:
        refuse_derived(stored)
    name = settings.encoder or (stored.location if stored else DEFAULT_ENCODER)
    precision = settings.precision if settings.precision != "auto" or stored is None else stored.precision
    adapter = settings.adapter or (stored.adapter_location if stored else "")
    choice = load_in_precision(name, precision, resolve_device(settings, stored), adapter, lake.uri)
    encoder = choice.encoder.at_revision(stored.revision) if stored else choice.encoder
    window_s = settings.window_s or (stored.window_s if stored else DEFAULT_WINDOW_S)
    hop_s = settings.hop_s or (stored.hop_s if stored and settings.window_s in (None, stored.window_s) else window_s)
    check_hop(window_s, hop_s)
    name = settings.space or (stored.name if stored else space_name(encoder, window_s, hop_s, settings.precision))
    space = replace(describe_space(encoder, name, window_s, hop_s), precision_reason=choice.reason)
    if stored is not None and settings.space is not None and stored.adapter_location == encoder.adapter_location:
        replaced = describe_replaced(stored, encoder.adapter)
        if replaced:
            raise SpaceMismatch(replaced)
    if settings.space is None:
        space = lake.spaces.with_free_name(space)
    return space, encoder


def encoder_location(lake: Lake, settings: EmbedSettings) -> str:
    """The location of the encoder that the settings name, or that the space has to which they refer."""
    settings = with_default_encoder(lake, settings)
    stored = find_space(lake, settings)
    if stored is not None:
        refuse_derived(stored)
    return full_name(settings.encoder or (stored.location if stored else DEFAULT_ENCODER))


def with_default_encoder(lake: Lake, settings: EmbedSettings) -> EmbedSettings:
    """Settings with an encoder or a space, which are returned as they are if they name either, or an adapter.

    A lake with spaces is extended: its default space, or with another window, hop, precision or name a new space of the
    encoder of that one.  A new lake takes the default encoder of this machine.  A log line states the choice.  Raises
    EncoderError if this machine has the weights of no default encoder.
    """
    spaces = lake.spaces.all()
    if settings.encoder is not None or settings.adapter is not None or settings.space in {space.name for space in spaces}:
        return settings
    embedded = [space for space in spaces if not is_derived(space)]
    if not embedded:
        name, sentence = default_encoder()
        log.info("%s; choose another with --encoder", sentence)
        return replace(settings, encoder=name)
    space, reason = lake.spaces.default(spaces)
    if is_derived(space):
        space, reason = lake.spaces.default(embedded)
    log.info("encoder %s, of space %s, %s; choose another with --encoder", space.encoder, space.name, reason)
    if settings == EmbedSettings(device=settings.device):
        return replace(settings, space=space.name)
    return replace(settings, encoder=space.location)


def with_adapter_base(lake: Lake, settings: EmbedSettings) -> EmbedSettings:
    """Settings with the adapter's location, and with unset fields taken from the space that the adapter was trained on."""
    if settings.adapter is None:
        return settings
    location = find_adapter(lake, settings.adapter)
    base = base_space(lake, location)
    if base is None or settings.encoder is not None:
        return replace(settings, adapter=location)
    space = lake.spaces.get(base)
    window_s = settings.window_s or space.window_s
    changes: dict[str, Any] = {
        "adapter": location, "encoder": space.location, "window_s": window_s,
        "hop_s": settings.hop_s or (space.hop_s if window_s == space.window_s else window_s),
        "precision": space.precision if settings.precision == "auto" else settings.precision,
    }
    return replace(settings, **changes)


def encoder_of(space: Space, device: str | None = None, *, home: str = "", download: bool = True) -> Encoder:
    """Load the encoder that a space was embedded with, by default on the space's device if this machine has it, else the CPU.

    `home`: the lake's URI, which may contain the adapter; `download=False` uses only weights that are on this machine.  Raises
    EncoderError if the weights at hand are not those of the space.
    """
    refuse_derived(space)
    device = device or (space.device if device_is_here(space.device) else "cpu")
    encoder = load_encoder(
        space.location, precision=space.precision, device=device, adapter=space.adapter_location, home=home, download=download
    ).at_revision(space.revision)
    if describe_space(encoder, space.name, space.window_s, space.hop_s).fingerprint != space.fingerprint:
        raise EncoderError(
            describe_replaced(space, encoder.adapter) or
            f"{encoder.name} has changed since space {space.name!r} was embedded with it: a query would be compared with "
            "vectors of another encoder. Put the old weights back, or run `tonelake embed` to make a new space"
        )
    return encoder


def refuse_derived(space: Space) -> None:
    """Raise InputError for a projection or a hybrid, which no encoder fills."""
    if is_derived(space):
        kind = "a projection of another space. Embed into that one"
        if is_hybrid(space):
            kind = "a hybrid of other spaces. Embed (and store frames) in these"
        raise InputError(f"space {space.name!r}: {kind}, then run `{extend_command(space)}`")


def describe_space(encoder: Encoder, name: str, window_s: float, hop_s: float | None = None) -> Space:
    """The space that an encoder makes with this window, by default without overlap."""
    return Space(
        name=name, encoder=encoder.name, revision=encoder.revision, sample_rate=encoder.sample_rate,
        layers=encoder.layers, dims=encoder.dims, window_s=window_s, hop_s=hop_s or window_s, precision=encoder.precision,
        location=encoder.location, device=encoder.device, default_layer=encoder.default_layer, adapter=encoder.adapter,
        adapter_location=encoder.adapter_location, learned=encoder.learned,
    )


def space_name(encoder: Encoder, window_s: float, hop_s: float, precision: str) -> str:
    """A name made of the encoder's name and of every setting that is not the default: `mert-v1-95m-w5-h2_5-bfloat16`."""
    name = re.sub(r"[^a-z0-9_-]+", "-", encoder.name.split("/")[-1].lower()).strip("-_") or "encoder"
    if window_s != DEFAULT_WINDOW_S:
        name += f"-w{window_s:g}".replace(".", "_")
    if hop_s != window_s:
        name += f"-h{hop_s:g}".replace(".", "_")
    return (name + (f"-{precision}" if precision not in ("auto", "float32") else ""))[:64]


def check_hop(window_s: float, hop_s: float) -> None:
    """Raise InputError if windows of this length cannot follow each other at this distance."""
    if not MIN_HOP_S <= hop_s <= window_s:
        raise InputError(
            f"setting 'hop_s': {hop_s:g} s is out of range for windows of {window_s:g} s. Give {MIN_HOP_S:g} s (each second is "
            f"then encoded {window_s / MIN_HOP_S:g} times) up to the window's length (once)"
        )


def find_space(lake: Lake, settings: EmbedSettings) -> Space | None:
    """The stored space that the settings refer to, which supplies the settings left unset; None if there is none."""
    spaces = lake.spaces.all()
    if settings.space is not None:
        return next((s for s in spaces if s.name == settings.space), None)
    location = full_name(settings.encoder or DEFAULT_ENCODER)
    found = []
    for space in spaces:
        window_s = settings.window_s or DEFAULT_WINDOW_S
        asked = replace(space, window_s=window_s, hop_s=settings.hop_s or window_s)
        same = space.location == location and space.adapter_location == (settings.adapter or "")
        if same and asked == space and settings.precision in ("auto", space.precision):
            found.append(space)
    return next((space for space in found if space.revision == found[-1].revision), None)     # the newest revision


def stored_space(lake: Lake, settings: EmbedSettings) -> Space:
    """The stored space that settings with an encoder or an adapter describe.  Raises SpaceNotFound if there is none."""
    found = find_space(lake, with_adapter_base(lake, settings))
    if found is None:
        named = f"adapter {settings.adapter}" if settings.encoder is None else f"encoder {settings.encoder}"
        raise SpaceNotFound(
            f"{named}: no space of this lake is embedded with it and these settings. Run `tonelake embed`, or name a space"
        )
    return found


def load_in_precision(name: str, precision: str, device: str, adapter: str = "", home: str = "") -> Choice:
    """Load an encoder in the requested precision; `auto` measures on this device and chooses."""
    encoder = load_encoder(
        name, precision="float32" if precision == "auto" else precision, device=device, adapter=adapter, home=home
    )
    if precision == "auto":
        return choose_precision(encoder)
    return Choice(encoder, f"{precision}: as asked for{float32_note(encoder)}")


def resolve_device(settings: EmbedSettings, stored: Space | None) -> str:
    """The device to use: the requested one, else the space's, else the fastest of this machine.

    Raises InputError if this machine lacks the requested device, EncoderError if it lacks the space's.
    """
    name = settings.encoder or (stored.location if stored else None)
    if settings.device == "cpu" or (name is not None and runs_on_cpu_only(name)):
        return "cpu"                     # without importing torch
    import torch

    if settings.device != "auto":
        try:
            torch.device(settings.device)
        except RuntimeError as error:
            raise InputError(f"device {settings.device!r}: unknown. Choose auto, cpu, cuda, cuda:1 or mps") from error
        if not device_is_here(settings.device):
            raise InputError(f"device {settings.device!r}: not on this machine. Choose --device cpu")
        return settings.device
    if stored is not None:
        if not device_is_here(stored.device):
            raise EncoderError(
                f"space {stored.name!r}: embedded on {stored.device}, which this machine does not have. To extend it here, "
                "pass --device cpu (vectors then differ by rounding)"
            )
        return stored.device
    return best_device()


def best_device() -> str:
    """The fastest kind of device that this machine has."""
    return next(name for name in ("cuda", "mps", "cpu") if device_is_here(name))


def device_is_here(device: str) -> bool:
    """Whether this machine has a device."""
    kind, _, number = device.partition(":")
    if kind == "cpu":
        return True
    import torch

    if kind == "cuda":
        return torch.cuda.is_available() and int(number or 0) < torch.cuda.device_count()
    return kind == "mps" and torch.backends.mps.is_available()
