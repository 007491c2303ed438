"""Measure an encoder on this machine: devices, arithmetic, precision by layer, kernels."""

from __future__ import annotations

import platform
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING

import tonelake

if TYPE_CHECKING:
    import polars as pl

    from tonelake.embed import Encoder

WINDOWS_S = (30, 5)                      # for which kernels are shown
PACKAGES = ("torch", "transformers", "lancedb", "pylance", "faiss-cpu", "faiss-gpu")


@dataclass(frozen=True)
class Diagnosis:
    """Facts about the machine, and the precision of an encoder on it."""

    facts: dict[str, str]
    table: pl.DataFrame | None           # layer, cosine, relative_error; None if nothing was measured
    verdict: str
    healthy: bool                        # the requested precision preserves every layer


def diagnose(encoder: str | None = None, *, precision: str = "auto", device: str = "auto") -> Diagnosis:
    """Embed a built-in sample at float32 and at `precision`, and compare the two layer by layer; on a CPU, choose kernels too.

    Without an encoder, take the default one of this machine.  Raises EncoderError if the encoder's weights are not available,
    InputError for an unknown precision or device.
    """
    from tonelake import embed

    name = encoder or embed.default_encoder()[0]
    settings = embed.EmbedSettings.from_dict({"encoder": name, "precision": precision, "device": device})
    place = embed.resolve_device(settings, None)
    loaded = embed.load_encoder(name, device=place)
    facts = machine() | {"encoder": f"{loaded.name}, {len(loaded.layers)} layers, {loaded.sample_rate} Hz", "device": place}
    if precision in ("auto", "float32"):
        choice = embed.choose_precision(loaded)
        table = choice.comparison.table if choice.comparison else None
        facts |= kernel_facts(choice.encoder if precision == "auto" else loaded)
        return Diagnosis(facts, table, f"auto chooses {choice.reason or 'float32, the only precision of this encoder'}", True)
    comparison = embed.compare(loaded, precision)
    facts |= kernel_facts(loaded.at(precision))
    good = comparison.worst_cosine >= embed.MIN_COSINE
    verdict = (
        f"{precision} keeps a cosine of {comparison.worst_cosine:.5f} to float32 at its worst layer and is "
        f"{comparison.gain:.1f} times as fast: {'usable' if good else f'below {embed.MIN_COSINE}, do not use it'}"
    )
    return Diagnosis(facts, comparison.table, verdict, good)


def kernel_facts(encoder: Encoder) -> dict[str, str]:
    """The kernels chosen for an encoder on the CPU, and their figures, for each usual length of window."""
    if encoder.device != "cpu":
        return {}
    facts = {}
    for seconds in WINDOWS_S:
        encoder.prepare(seconds * encoder.sample_rate)
        choice = encoder.kernels
        if choice is None:
            return {}
        chosen = ", ".join(f"{part} {way}" for part, way in asdict(choice.kernels).items())
        facts[f"{seconds} s windows"] = f"{chosen} ({choice.reason})"
        for part in dict.fromkeys(figure.part for figure in choice.figures):
            figures = [figure for figure in choice.figures if figure.part == part]
            facts[f"  {part}, {seconds} s"] = ", ".join(f"{figure.way} {figure.ms:.1f} ms" for figure in figures)
    if encoder.float32_modules:
        facts["float32"] = f"{', '.join(encoder.float32_modules)}: computed wrongly in {encoder.precision} on this processor"
    return facts


def machine() -> dict[str, str]:
    """Versions, cores and arithmetic of this machine."""
    import torch

    from tonelake import embed, store

    return {
        "tonelake": f"{tonelake.__version__}, Python {platform.python_version()}, {platform.system()} {platform.machine()}",
        "packages": ", ".join(f"{package} {found}" for package in PACKAGES if (found := installed(package))),
        "processor": f"{store.cores()} cores, {torch.get_num_threads()} threads, "
        f"{'has' if embed.cpu_has_bfloat16() else 'no'} bfloat16 arithmetic",
        "accelerator": ", ".join(torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count()))
        or ("mps" if embed.device_is_here("mps") else "none"),
        "decoders": decoders(),
        "search": "FAISS" if installed("faiss-cpu") or installed("faiss-gpu") else "NumPy (FAISS is not installed)",
    }


def decoders() -> str:
    """Versions of the libraries that decode audio, or the reason why a decoder process cannot use them."""
    from tonelake import ingest

    try:
        return ", ".join(f"{name} {found}" for name, found in ingest.decoder_libraries().items())
    except ingest.DecoderStartError as error:
        return str(error)


def installed(package: str) -> str | None:
    """The version of a package, or None."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None
