"""Settings of published studies by name, for results that can be compared with theirs.

    marble     MARBLE's constrained track (Yuan et al. 2023, arXiv 2306.10548): an MLP of 512 with dropout 0.2 on each
               layer and on a learned weighting of all, batch 64, six learning rates
    chorales   the chorale study: which of 430 pieces is a snippet from?  Adam 1e-3, batch 256, classes weighted by inverse
               frequency, decays 1e-4, 1e-6 and 0; then SGD with L2; then an MLP; then generalisation across pieces and tunes

Neither study reports a preparation of vectors, so they are used raw.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tonelake.probes.config import ProbeConfig
from tonelake.probes.probing import probe
from tonelake.probes.runs import Run
from tonelake.store import InputError, Lake

MARBLE_RATES = (5e-5, 1e-4, 5e-4, 1e-3, 5e-3, 1e-2)
CHORALE_DECAYS = (1e-4, 1e-6, 0.0)


@dataclass(frozen=True)
class Stage:
    """One experiment of a protocol and its purpose."""

    name: str
    why: str
    config: ProbeConfig


def marble(config: ProbeConfig) -> list[Stage]:
    """Return one experiment on the given column; split and seeds are the user's."""
    layers = ("each", "weighted") if config.layers == ("each",) else config.layers
    settings = replace(
        config, head="mlp", hidden=512, dropout=0.2, batch=64, rates=MARBLE_RATES, decays=(0.0,), optimizer="adam",
        layers=layers, prepare="raw", class_weights="none", protocol="marble",
    )
    return [Stage("mlp", "an MLP on each layer and on a learned weighting of all", settings)]


def chorales(config: ProbeConfig) -> list[Stage]:
    """Return five experiments on the columns piece, tune and key of `tonelake ingest chorales --seed-rule`."""
    base = replace(
        config, columns=("piece",), split="random", batch=256, rates=(1e-3,), decays=CHORALE_DECAYS, optimizer="adam",
        head="linear", class_weights="balanced", prepare="raw", protocol="chorales",
    )
    return [
        Stage("linear", "piece of a snippet, by a linear head on each layer; snippets split at random", base),
        Stage("sgd", "likewise, by SGD with an L2 penalty", replace(base, optimizer="sgd", rates=(1e-2, 1e-1))),
        Stage("mlp", "likewise, by an MLP of 512", replace(base, head="mlp", hidden=512)),
        Stage(
            "by piece", "tune of a snippet, with whole pieces held out: training has other settings of the tune",
            replace(base, columns=("tune",), split="by:piece"),
        ),
        Stage(
            "by tune", "key of a snippet, with whole tunes held out",
            replace(base, columns=("key",), split="by:tune"),
        ),
    ]


PROTOCOLS: dict[str, Callable[[ProbeConfig], list[Stage]]] = {"marble": marble, "chorales": chorales}


def probe_all(
    lake: Lake, columns: str | Sequence[str] = (), *, config: str | Path | ProbeConfig | None = None,
    protocol: str | None = None, name: str | None = None, again: bool = False, **settings: Any,
) -> list[Run]:
    """Train probes on stored vectors: one run, or as many as a protocol has; see `probes.probe`.

    `settings` are those of `ProbeConfig`.  `columns` and `settings` change what `config` (settings, or a file of them) says,
    and what the protocol does.  Raises InputError if nothing names a column to learn.
    """
    columns = (columns,) if isinstance(columns, str) else tuple(columns)
    if isinstance(config, str | Path):
        config = ProbeConfig.from_file(Path(config).expanduser())
    if config is None and not columns and protocol != "chorales":
        raise InputError("no label column given. Name the label column to learn, as in: tonelake probe artist")
    base = (config or ProbeConfig(columns or ("piece",))).with_(columns=columns or None)
    if protocol is None:
        return [probe(lake, base.with_(**settings), name=name, again=again)]
    stages = stages_of(protocol, base, **settings)
    runs = []
    for stage in stages:
        own = name if name is None or len(stages) == 1 else f"{name}-{stage.name.replace(' ', '-')}"
        runs.append(probe(lake, stage.config, name=own, again=again))
    return runs


def stages_of(protocol: str, config: ProbeConfig, **changes: Any) -> list[Stage]:
    """Return the experiments of a protocol with `changes` applied.  Raises InputError for an unknown protocol."""
    if protocol not in PROTOCOLS:
        raise InputError(f"protocol {protocol!r}: unknown. Choose {', '.join(PROTOCOLS)}")
    return [replace(stage, config=stage.config.with_(**changes)) for stage in PROTOCOLS[protocol](config)]
