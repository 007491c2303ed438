"""What is `auto` is resolved here, once, when a space is made; a space that exists decides for itself."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

from tonelake.embed.encoders.adapter import base_space, find_adapter
from tonelake.embed.encoders.base import PRECISIONS, Encoder
from tonelake.embed.encoders.registry import DEFAULT_ENCODER, full_name, load_encoder
from tonelake.embed.errors import EncoderError
from tonelake.embed.precision import Choice, choose_precision
from tonelake.store import InputError, Lake, Space, check_name, is_projection

MIN_WINDOW_S, MAX_WINDOW_S, MIN_HOP_S = 1.0, 120.0, 0.5


@dataclass(frozen=True)
class EmbedSettings:
    """How to embed.  None and `auto` mean: as the space has it, else the default."""

    encoder: str | None = None           # a name or a checkpoint folder; default MERT-v1-95M
    space: str | None = None             # default: made of the encoder's name and what differs from the defaults
    window_s: float | None = None        # default 30 s, the full context
    hop_s: float | None = None           # from window to window; default: the window's length, no overlap
    precision: str = "auto"
    device: str = "auto"
    adapter: str | None = None           # a fine-tuning run of the lake, or a folder in PEFT's form


DEFAULT_WINDOW_S = 30.0                  # MERT was trained on 5 s; the artist study found 30 s to separate best


def open_space(lake: Lake, settings: EmbedSettings) -> tuple[Space, Encoder]:
    """The space that settings name, made where it is new, and the encoder that fills it; raises as `find_or_describe`."""
    space, encoder = find_or_describe(lake, settings)
    return lake.spaces.make(space), encoder


def find_or_describe(lake: Lake, settings: EmbedSettings) -> tuple[Space, Encoder]:
    """The space that settings name, as stored or as it would be made, and the encoder that fills it.

    Raises InputError for settings that cannot be, EncoderError where the encoder cannot run here, SpaceMismatch where
    the space was embedded by other settings.
    """
    check_settings(settings)
    settings = with_adapters_base(lake, settings)
    stored = find_space(lake, settings)
    if stored is not None:
        refuse_projection(stored)
    name = settings.encoder or (stored.location if stored else DEFAULT_ENCODER)
    precision = settings.precision if settings.precision != "auto" or stored is None else stored.precision
    adapter = settings.adapter or (stored.adapter_location if stored else "")
    choice = load_settled(name, precision, settle_device(settings, stored), adapter, lake.uri)
    encoder = choice.encoder
    window_s = settings.window_s or (stored.window_s if stored else DEFAULT_WINDOW_S)
    hop_s = settings.hop_s or (stored.hop_s if stored and settings.window_s in (None, stored.window_s) else window_s)
    check_hop(window_s, hop_s)
    name = settings.space or (stored.name if stored else space_name(encoder, window_s, hop_s, settings.precision))
    space = replace(describe_space(encoder, name, window_s, hop_s), precision_reason=choice.reason)
    if settings.space is None:
        space = lake.spaces.named_apart(space)
    return space, encoder


def with_adapters_base(lake: Lake, settings: EmbedSettings) -> EmbedSettings:
    """Settings with an adapter's location, and, where they leave it open, all that the space has that it was trained from."""
    if settings.adapter is None:
        return settings
    location = find_adapter(lake, settings.adapter)
    base = base_space(lake, location)
    if base is None or settings.encoder is not None:
        return replace(settings, adapter=location)
    space = lake.spaces.get(base)
    window_s = settings.window_s or space.window_s
    return replace(
        settings, adapter=location, encoder=space.location, window_s=window_s,
        hop_s=settings.hop_s or (space.hop_s if window_s == space.window_s else window_s),
        precision=space.precision if settings.precision == "auto" else settings.precision,
    )


def encoder_of(space: Space, device: str | None = None, *, home: str = "") -> Encoder:
    """The encoder that a space was embedded with: by default on the device that it was embedded on, or here on the CPU.

    `home`: the lake's URI, inside which an adapter may lie.  Raises EncoderError where the weights at hand are not those of
    the space.
    """
    refuse_projection(space)
    device = device or (space.device if device_is_here(space.device) else "cpu")
    encoder = load_encoder(
        space.location, precision=space.precision, device=device, adapter=space.adapter_location, home=home
    )
    if describe_space(encoder, space.name, space.window_s, space.hop_s).fingerprint != space.fingerprint:
        raise EncoderError(
            f"{encoder.name} has changed since space {space.name!r} was embedded by it: a query would be compared with "
            "vectors of another encoder.  Put the old weights back, or run `tonelake embed` to make a new space"
        )
    return encoder


def refuse_projection(space: Space) -> None:
    """Raise InputError for a space that no encoder fills."""
    if is_projection(space):
        raise InputError(
            f"space {space.name!r} is a projection of another one: embed into that, then run "
            f"`tonelake metric --extend {space.name}`"
        )


def describe_space(encoder: Encoder, name: str, window_s: float, hop_s: float | None = None) -> Space:
    """The space that an encoder makes with this window, by default without overlap."""
    return Space(
        name=name, encoder=encoder.name, revision=encoder.revision, sample_rate=encoder.sample_rate,
        layers=encoder.layers, dims=encoder.dims, window_s=window_s, hop_s=hop_s or window_s, precision=encoder.precision,
        location=encoder.location, device=encoder.device, default_layer=encoder.default_layer, adapter=encoder.adapter,
        adapter_location=encoder.adapter_location,
    )


def space_name(encoder: Encoder, window_s: float, hop_s: float, precision: str) -> str:
    """A name made of the encoder's and of what was asked for beside the defaults: `mert-v1-95m-w5-h2_5-bfloat16`."""
    name = re.sub(r"[^a-z0-9_-]+", "-", encoder.name.split("/")[-1].lower()).strip("-_") or "encoder"
    if window_s != DEFAULT_WINDOW_S:
        name += f"-w{window_s:g}".replace(".", "_")
    if hop_s != window_s:
        name += f"-h{hop_s:g}".replace(".", "_")
    return (name + (f"-{precision}" if precision not in ("auto", "float32") else ""))[:64]


def check_settings(settings: EmbedSettings) -> None:
    """Raise InputError unless these settings can be."""
    if settings.space is not None:
        check_name(settings.space)
    if settings.precision not in ("auto", *PRECISIONS):
        raise InputError(f"no precision {settings.precision!r}: choose auto, {', '.join(PRECISIONS)}")
    if settings.window_s is not None and not MIN_WINDOW_S <= settings.window_s <= MAX_WINDOW_S:
        raise InputError(f"a window of {settings.window_s:g} s: choose from {MIN_WINDOW_S:g} to {MAX_WINDOW_S:g} seconds")
    if settings.hop_s is not None:
        check_hop(settings.window_s or MAX_WINDOW_S, settings.hop_s)


def check_hop(window_s: float, hop_s: float) -> None:
    """Raise InputError unless windows of this length may follow each other at this distance."""
    if not MIN_HOP_S <= hop_s <= window_s:
        raise InputError(
            f"a hop of {hop_s:g} s for windows of {window_s:g} s: choose from {MIN_HOP_S:g} s (each second is then encoded "
            f"{window_s / MIN_HOP_S:g} times) to the window's length (once)"
        )


def find_space(lake: Lake, settings: EmbedSettings) -> Space | None:
    """The stored space that settings are about, so that what they leave open is taken from it."""
    spaces = lake.spaces.all()
    if settings.space is not None:
        return next((s for s in spaces if s.name == settings.space), None)
    location = full_name(settings.encoder or DEFAULT_ENCODER)
    for space in spaces:
        window_s = settings.window_s or DEFAULT_WINDOW_S
        asked = replace(space, window_s=window_s, hop_s=settings.hop_s or window_s)
        same = space.location == location and space.adapter_location == (settings.adapter or "")
        if same and asked == space and settings.precision in ("auto", space.precision):
            return space
    return None


def load_settled(name: str, precision: str, device: str, adapter: str = "", home: str = "") -> Choice:
    """An encoder in the precision asked for, or, for `auto`, in the one that a measurement on this device chooses."""
    encoder = load_encoder(
        name, precision="float32" if precision == "auto" else precision, device=device, adapter=adapter, home=home
    )
    return choose_precision(encoder) if precision == "auto" else Choice(encoder, f"{precision}: as asked for")


def settle_device(settings: EmbedSettings, stored: Space | None) -> str:
    """The device: as asked, as the space has it, else the best there is.

    Raises InputError for one that is not here, EncoderError where that of the space is not.
    """
    if is_spectral(settings) or (stored is not None and stored.location == "spectral"):
        return "cpu"                     # without importing torch
    import torch

    if settings.device != "auto":
        try:
            torch.device(settings.device)
        except RuntimeError as error:
            raise InputError(f"no device {settings.device!r}: choose auto, cpu, cuda, cuda:1 or mps") from error
        if not device_is_here(settings.device):
            raise InputError(f"device {settings.device!r} is not on this machine: choose --device cpu")
        return settings.device
    if stored is not None:
        if not device_is_here(stored.device):
            raise EncoderError(
                f"space {stored.name!r} was embedded on {stored.device}, which is not on this machine: to extend it here, "
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


def is_spectral(settings: EmbedSettings) -> bool:
    return settings.encoder == "spectral"
