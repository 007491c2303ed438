"""MARBLE's settings by version and kind of task, and how an experiment differs from them.

Sources: Yuan et al. 2023 (arXiv 2306.10548) and the configurations of its code, of version 1 for GTZAN, GiantSteps key,
MagnaTagATune and EmoMusic, and of version 2 (2025) for the same data sets.
"""

from __future__ import annotations

from typing import Any

from tonelake.probes.config import ProbeConfig

MARBLE_RATES = (5e-5, 1e-4, 5e-4, 1e-3, 5e-3, 1e-2)
LIKE = "-like"                           # ends the name of a protocol that an experiment does not follow in everything

MARBLE: dict[str, Any] = {               # in both versions
    "head": "mlp", "hidden": 512, "dropout": 0.2, "optimizer": "adam", "decays": (0.0,), "input": "mean", "prepare": "raw",
    "class_weights": "none", "label_smoothing": 0.0, "batch": 64, "epochs": 100,
}
# By kind of task; keys are classes with a score of their own.
MARBLE_V1: dict[str, dict[str, Any]] = {
    "multiclass": {"monitor": "accuracy", "patience": 20, "rate_patience": 6},
    "keys": {"monitor": "key_score", "patience": 20, "rate_patience": 5},
    "multilabel": {"monitor": "auroc", "patience": 10, "rate_patience": 3},
    "regression": {"monitor": "r2", "patience": 20, "rate_patience": 5},
}
MARBLE_V2: dict[str, dict[str, Any]] = {
    "multiclass": {"monitor": "accuracy", "patience": 20, "rate_patience": 6, "rates": (5e-3,)},
    "keys": {"monitor": "key_score", "patience": 20, "rate_patience": 5, "rates": (5e-3,)},
    "multilabel": {
        "monitor": "auroc", "patience": 10, "rate_patience": 3, "rates": (1e-3,), "layers": ("all",), "batch": 128,
        "epochs": 50,
    },
    "regression": {"monitor": "r2", "patience": 20, "rate_patience": 6, "rates": (1e-3,)},
}


def marble_settings(version: int, kind: str) -> dict[str, Any]:
    """Return the settings of a version for a kind of task: multiclass, keys, multilabel or regression."""
    if version == 1:
        shared = {"rates": MARBLE_RATES, "layers": ("each", "blocks"), "average": "tracks", "keep": "best"}
        return MARBLE | shared | MARBLE_V1[kind]
    return MARBLE | {"layers": ("each",), "average": "test", "keep": "last"} | MARBLE_V2[kind]


def marble_kind(config: ProbeConfig) -> str:
    return "keys" if config.monitor == "key_score" else config.task or "multiclass"


def differences_of(config: ProbeConfig) -> list[str]:
    """Return how an experiment that follows MARBLE differs from it; empty for other experiments."""
    name = config.protocol.removesuffix(LIKE)
    if name not in ("marble-v1", "marble-v2"):
        return []
    version, kind = int(name[-1]), marble_kind(config)
    found = [
        f"{setting} {as_text(getattr(config, setting))} instead of {as_text(value)}"
        for setting, value in marble_settings(version, kind).items() if getattr(config, setting) != value
    ]
    if not config.split.startswith("column:"):
        found.append(f"split {config.split} instead of the benchmark's own")
    found.append(("seed 0" if config.seeds == 1 else f"the mean of {config.seeds} seeds") + " instead of the single seed 1234")
    arithmetic = "bfloat16" if config.precision == "bfloat16" else "float32"
    half = "float16" if version == 1 else "bfloat16"
    if arithmetic != half:
        found.append(f"{arithmetic} arithmetic instead of {half} mixed precision")
    return found + [difference for kinds, difference in FIXED_DIFFERENCES[version] if kind in kinds]


ALL_KINDS = ("multiclass", "keys", "multilabel", "regression")
FIXED_DIFFERENCES: dict[int, tuple[tuple[tuple[str, ...], str], ...]] = {
    1: (
        (("keys",), "slices are averaged by their logits; MARBLE uses the best of four ways on the validation set"),
        (("keys",), "six learning rates; MARBLE starts its key task from Lightning's rate finder"),
    ),
    2: (
        (("multiclass", "keys", "regression"), "the validation set selects one of all layers; MARBLE names a layer"),
        (("multilabel",), "layers enter the MLP side by side; MARBLE first maps them linearly to the width of one"),
        (("multilabel", "regression"), "the validation metric covers all clips; MARBLE averages it over batches"),
        (("keys",), "test slices are averaged by their probabilities; MARBLE averages the logits of its key task"),
        (ALL_KINDS, "the last, incomplete batch of an epoch is a full step; MARBLE accumulates gradients and scales it down"),
    ),
}


def as_text(value: Any) -> str:
    return ", ".join(f"{one:g}" if isinstance(one, float) else str(one) for one in (
        value if isinstance(value, tuple) else (value,)
    ))
