"""The settings of a probe: everything that decides what comes out, in one place, as it stands in a run's config.yaml."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from typing import Any, ClassVar, NamedTuple

import numpy as np

from tonelake.evaluate import DEFAULT_SPLIT, SHARES, TARGET_KINDS, check_shares
from tonelake.probes.inputs import STATS, check_preparation
from tonelake.store import InputError, Settings

HEADS = ("linear", "mlp")
OPTIMIZERS = ("adam", "adamw", "sgd")
CLASS_WEIGHTS = ("none", "balanced")
PRECISIONS = ("auto", "float32", "bfloat16")
MOST_FITS = 100_000


class Setting(NamedTuple):
    """What the fits of one layer and seed differ by."""

    rate: float                          # learning rate
    decay: float                         # weight decay: the L2 penalty of adam and sgd, decoupled in adamw

    def __str__(self) -> str:
        return f"rate {self.rate:g}, decay {self.decay:g}"


@dataclass(frozen=True)
class ProbeConfig(Settings):
    """One experiment.  The defaults are for a first look; `probes.protocols` has those of published studies."""

    learned: ClassVar[str] = "columns"

    columns: tuple[str, ...]                         # the label column; several for regression
    space: str | None = None                         # needed where the lake has several
    task: str | None = None                          # by the column's type
    where: str | None = None                         # SQL over clip columns

    layers: tuple[str, ...] = ("each",)              # layers, each, all (side by side), weighted
    input: str = "mean"                              # mean, max or mean+max over time
    prepare: str = "standardise"                     # l2 is for cosines: it throws away how loud a direction is

    head: str = "linear"
    hidden: int = 512                                # of the mlp, as is dropout; both MARBLE's
    dropout: float = 0.2
    class_weights: str = "none"                      # balanced: by inverse frequency; for tags, of positives
    label_smoothing: float = 0.0                     # for tags, of negatives alone

    optimizer: str = "adam"
    rates: tuple[float, ...] = (1e-4, 1e-3, 1e-2)    # learning rates; the best by the validation clips is taken
    decays: tuple[float, ...] = (0.0,)
    batch: int = 64
    epochs: int = 100
    patience: int = 10                               # epochs without a better state; 0: train them all

    split: str = DEFAULT_SPLIT
    shares: tuple[float, ...] = SHARES               # of train, valid, test
    split_seed: int = 0
    seeds: int = 3                                   # runs that differ by start and order of clips

    device: str = "auto"
    precision: str = "auto"                          # of the products: bfloat16 where the processor has it and heads are large
    protocol: str = ""                               # whose settings these are

    def __post_init__(self) -> None:
        for name, choices in (
            ("head", HEADS), ("class_weights", CLASS_WEIGHTS), ("optimizer", OPTIMIZERS), ("input", tuple(STATS)),
            ("precision", PRECISIONS),
        ):
            if getattr(self, name) not in choices:
                raise InputError(f"no {name.replace('_', ' ')} {getattr(self, name)!r}: choose {', '.join(choices)}")
        if self.task is not None and self.task not in TARGET_KINDS:
            raise InputError(f"no task {self.task!r}: choose {', '.join(TARGET_KINDS)}")
        check_preparation(self.prepare)
        check_shares(self.shares)
        for name in ("hidden", "batch", "epochs", "seeds"):
            if getattr(self, name) < 1:
                raise InputError(f"{name} {getattr(self, name)}: at least 1")
        if self.patience < 0 or not 0 <= self.dropout < 1 or not 0 <= self.label_smoothing < 1:
            raise InputError("patience is at least 0; dropout and label smoothing lie between 0 and 1")
        if not self.rates or not all(0 < rate < 1e3 for rate in self.rates):
            raise InputError(f"learning rates {self.rates}: give one or several, above 0")
        if not self.decays or not all(0 <= decay < 1e3 for decay in self.decays):
            raise InputError(f"weight decays {self.decays}: give one or several, 0 or more")
        fits = len(self.settings) * self.seeds
        if fits > MOST_FITS:
            raise InputError(f"{fits:,} fits a layer are more than {MOST_FITS:,}: ask for fewer rates or seeds")

    @property
    def settings(self) -> list[Setting]:
        """Every learning rate with every weight decay."""
        return [Setting(rate, decay) for decay in dict.fromkeys(self.decays) for rate in dict.fromkeys(self.rates)]

    def with_(self, **changes: Any) -> ProbeConfig:
        return replace(self, **{key: value for key, value in changes.items() if value is not None})


def data_digest(targets: np.ndarray, ids: list[str], space: str) -> bytes:
    """What an experiment runs on: clips, targets, and the fingerprint of the space, in which a clip's vector never changes."""
    hasher = hashlib.blake2b(digest_size=16)
    for part in ("\n".join(ids).encode(), np.ascontiguousarray(targets).tobytes(), space.encode()):
        hasher.update(part)
    return hasher.digest()
