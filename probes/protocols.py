"""Settings of published studies by name, so that a figure can be set beside theirs.

    marble     MARBLE's constrained track (Yuan et al. 2023, arXiv 2306.10548): an MLP of 512 with dropout 0.2 on each
               layer and on a learned weighting of all, batch 64, six learning rates
    chorales   the chorale study: which of 430 pieces is a snippet of?  Adam 1e-3, batch 256, classes weighted by inverse
               frequency, decays 1e-4, 1e-6 and 0; then SGD with L2; then an MLP; then what is left across pieces and tunes

Neither says how vectors are prepared: they are taken raw.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from tonelake.probes.config import ProbeConfig
from tonelake.probes.probing import Step, probe
from tonelake.probes.runs import Run
from tonelake.store import InputError, Lake, Progress, silent_progress

MARBLE_RATES = (5e-5, 1e-4, 5e-4, 1e-3, 5e-3, 1e-2)
CHORALE_DECAYS = (1e-4, 1e-6, 0.0)


@dataclass(frozen=True)
class Stage:
    """One experiment of a protocol, and what it is for."""

    name: str
    why: str
    config: ProbeConfig


def marble(config: ProbeConfig) -> list[Stage]:
    """One experiment on the column asked for; the split and the seeds are the user's."""
    layers = ("each", "weighted") if config.layers == ("each",) else config.layers
    settings = replace(
        config, head="mlp", hidden=512, dropout=0.2, batch=64, rates=MARBLE_RATES, decays=(0.0,), optimizer="adam",
        layers=layers, prepare="raw", class_weights="none", protocol="marble",
    )
    return [Stage("mlp", "an MLP on each layer and on a learned weighting of all", settings)]


def chorales(config: ProbeConfig) -> list[Stage]:
    """Five experiments on the columns piece, tune and key of `tonelake ingest chorales --seed-rule`."""
    base = replace(
        config, columns=("piece",), split="random", batch=256, rates=(1e-3,), decays=CHORALE_DECAYS, optimizer="adam",
        head="linear", class_weights="balanced", prepare="raw", protocol="chorales",
    )
    return [
        Stage("linear", "which piece is a snippet of, by a linear head on each layer; snippets split at random", base),
        Stage("sgd", "the same by SGD with an L2 penalty", replace(base, optimizer="sgd", rates=(1e-2, 1e-1))),
        Stage("mlp", "the same by an MLP of 512", replace(base, head="mlp", hidden=512)),
        Stage(
            "by piece", "which tune is a snippet of, where no piece stands on both sides: a tune is known by other settings",
            replace(base, columns=("tune",), split="by:piece"),
        ),
        Stage(
            "by tune", "which key is a snippet in, where no tune stands on both sides",
            replace(base, columns=("key",), split="by:tune"),
        ),
    ]


PROTOCOLS: dict[str, Callable[[ProbeConfig], list[Stage]]] = {"marble": marble, "chorales": chorales}


def probe_all(
    lake: Lake, columns: Sequence[str], *, config: ProbeConfig | None = None, protocol: str | None = None,
    name: str | None = None, again: bool = False, settings: Mapping[str, Any] | None = None, progress: Progress = silent_progress,
    step: Step = lambda name: None,
) -> list[Run]:
    """Run the experiments of a protocol, or the one that settings describe; see `probes.probe`.

    `columns` and `settings` change what `config` says, and what the protocol does.  Raises InputError where nothing says
    what to learn.
    """
    if config is None and not columns and protocol != "chorales":
        raise InputError("name the label column to learn, as in: tonelake probe artist")
    base = (config or ProbeConfig(tuple(columns) or ("piece",))).with_(columns=tuple(columns) or None)
    changes = settings or {}
    if protocol is None:
        return [probe(lake, base.with_(**changes), name=name, again=again, progress=progress, step=step)]
    stages = stages_of(protocol, base, **changes)
    runs = []
    for stage in stages:
        own = name if name is None or len(stages) == 1 else f"{name}-{stage.name.replace(' ', '-')}"
        runs.append(probe(lake, stage.config, name=own, again=again, progress=progress, step=step))
    return runs


def stages_of(protocol: str, config: ProbeConfig, **changes: Any) -> list[Stage]:
    """The experiments of a protocol, with what is asked for differently.  Raises InputError for one that does not exist."""
    if protocol not in PROTOCOLS:
        raise InputError(f"no protocol {protocol!r}: choose {', '.join(PROTOCOLS)}")
    return [replace(stage, config=stage.config.with_(**changes)) for stage in PROTOCOLS[protocol](config)]
