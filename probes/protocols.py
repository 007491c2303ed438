"""Settings of published studies by name, for results that can be compared with theirs.

    marble-v1  MARBLE's constrained track (Yuan et al. 2023, arXiv 2306.10548, and the configurations of its code): an MLP of
               512 with dropout 0.2 on each layer and on a learned weighting of all blocks, Adam, batches of 64 files, six
               learning rates, halved on a plateau; the slices of a file are averaged, and each kind of task has a validation
               metric that stops it: accuracy, ROC-AUC of tags, R², or MIREX's score of keys
    marble-v2  the second version of its code (2025): one learning rate, batches of slices, only test slices averaged, and the
               state after the last epoch tested rather than the best one
    chorales   the chorale study: which of 430 pieces is a snippet from?  Adam 1e-3, batch 256, classes weighted by inverse
               frequency, decays 1e-4, 1e-6 and 0; then SGD with L2; then an MLP; then generalisation across pieces and tunes

No study reports a preparation of vectors, so they are used raw.  A run that differs from its protocol is named PROTOCOL-like,
and its report lists the differences (`probes.marble`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import polars as pl

from tonelake.evaluate import DEFAULT_SPLIT, choose_kind, key_scores
from tonelake.probes.config import ProbeConfig
from tonelake.probes.marble import LIKE, differences_of, marble_kind, marble_settings
from tonelake.probes.probing import probe
from tonelake.probes.runs import Run
from tonelake.store import InputError, Lake, is_list

CHORALE_DECAYS = (1e-4, 1e-6, 0.0)
SPLIT_COLUMN = "split"                   # published splits of data sets are in this column


@dataclass(frozen=True)
class Stage:
    """One experiment of a protocol and its purpose."""

    name: str
    why: str
    config: ProbeConfig


def marble_v1(config: ProbeConfig) -> list[Stage]:
    """Return one experiment on the given column; split and seeds are the user's."""
    settings = marble_settings(1, marble_kind(config))
    return [Stage("mlp", "an MLP on each layer and on a learned weighting of all blocks", replace(config, **settings))]


def marble_v2(config: ProbeConfig) -> list[Stage]:
    """Return one experiment on the given column; split and seeds are the user's."""
    return [Stage("mlp", "an MLP on each layer", replace(config, **marble_settings(2, marble_kind(config))))]


def chorales(config: ProbeConfig) -> list[Stage]:
    """Return five experiments on the columns piece, tune and key of `tonelake ingest chorales --seed-rule`."""
    base = replace(
        config, columns=("piece",), split="random", batch=256, rates=(1e-3,), decays=CHORALE_DECAYS, optimizer="adam",
        head="linear", class_weights="balanced", prepare="raw", monitor="auto",
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


PROTOCOLS: dict[str, Callable[[ProbeConfig], list[Stage]]] = {
    "marble-v1": marble_v1, "marble-v2": marble_v2, "chorales": chorales,
}


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
    if protocol is not None and protocol.startswith("marble"):
        base = resolve_task(lake, base.with_(task=settings.get("task"), where=settings.get("where")))
        if base.split == DEFAULT_SPLIT and has_own_split(lake, base.where):
            base = base.with_(split=f"column:{SPLIT_COLUMN}")
    if protocol is None:
        return [probe(lake, base.with_(**settings), name=name, again=again)]
    stages = stages_of(protocol, base, **settings)
    runs = []
    for stage in stages:
        own = name if name is None or len(stages) == 1 else f"{name}-{stage.name.replace(' ', '-')}"
        runs.append(probe(lake, stage.config, name=own, again=again))
    return runs


def resolve_task(lake: Lake, config: ProbeConfig) -> ProbeConfig:
    """Return the settings with the kind of task, and with MIREX's score as validation metric if the classes are keys.

    Raises InputError if a column does not exist or does not fit the kind.
    """
    for column in config.columns:
        lake.clips.check_column(column)
    clips = lake.clips.read(list(config.columns), where=config.where)
    kind = choose_kind(clips, config.columns, config.task)
    values = clips[config.columns[0]]
    keys = kind == "multiclass" and not is_list(values.dtype)
    if keys:
        names = values.drop_nulls().cast(pl.String).unique().sort().to_list()
        keys = key_scores(tuple(names)) is not None
    return config.with_(task=kind, monitor="key_score" if keys else None)


def has_own_split(lake: Lake, where: str | None) -> bool:
    """Return whether the clips come with a published split into a training and a test set."""
    if SPLIT_COLUMN not in lake.clips.columns():
        return False
    values = lake.clips.read([SPLIT_COLUMN], where=where)[SPLIT_COLUMN].drop_nulls().unique().cast(pl.String)
    return {"train", "test"} <= set(values)


def stages_of(protocol: str, config: ProbeConfig, **changes: Any) -> list[Stage]:
    """Return the experiments of a protocol with `changes` applied.  Raises InputError for an unknown protocol."""
    if protocol not in PROTOCOLS:
        raise InputError(f"protocol {protocol!r}: unknown. Choose {', '.join(PROTOCOLS)}")
    stages = []
    for stage in PROTOCOLS[protocol](config):
        settings = replace(stage.config.with_(**changes), protocol=protocol)
        settings = replace(settings, protocol=protocol + LIKE) if differences_of(settings) else settings
        stages.append(replace(stage, config=settings))
    return stages
