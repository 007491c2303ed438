"""Settings of a probe: everything that decides its results, as stored in a run's config.yaml."""

from __future__ import annotations

from dataclasses import KW_ONLY, replace
from typing import Annotated, Any, Literal, NamedTuple

from pydantic import BeforeValidator, Field

from tonelake.evaluate import DEFAULT_SPLIT, SHARES, VAL_SHARE, check_shares
from tonelake.store import Count, InputError, Settings, Share, Texts, frozen_settings

MOST_FITS = 100_000
# Version of the computation of a probe.  Raise it when equal settings and data give other results: training, selection,
# metrics, intervals or baselines.  Finished runs are then trained again under another default name instead of being returned.
PROBE_VERSION = 1
LATER = {                                # settings of later releases, with the values of before
    "rate_patience": 0, "monitor": "auto", "keep": "best", "average": "none", "classes": None, "val_share": VAL_SHARE,
    "solver": "batches",
}
# Settings of training by batches, which have no meaning for a fit to convergence.
OF_BATCHES = ("hidden", "dropout", "optimizer", "rates", "rate_patience", "batch", "patience", "keep")

ClassName = Annotated[str, BeforeValidator(lambda name: str(name) if type(name) is int else name)]
LayerName = Annotated[str, BeforeValidator(lambda layer: str(layer) if type(layer) is int else layer)]
Rate = Annotated[float, Field(gt=0, lt=1e3)]
Decay = Annotated[float, Field(ge=0, lt=1e3)]


class Setting(NamedTuple):
    """Learning rate and weight decay, by which the fits of one layer and seed differ."""

    rate: float                          # learning rate; 0 of a fit to convergence
    decay: float                         # weight decay: the L2 penalty of adam and sgd, decoupled in adamw

    def __str__(self) -> str:
        return f"rate {self.rate:g}, decay {self.decay:g}" if self.rate else f"decay {self.decay:g}"


@frozen_settings
class ProbeConfig(Settings):
    """One experiment.  The defaults suit a first look; `probes.protocols` has the settings of published studies."""

    columns: Texts = Field(description="Label column to predict; several for a regression.")
    _: KW_ONLY
    space: str | None = Field(default=None, description="Space whose vectors are used; default: the default space.")
    task: Literal["multiclass", "multilabel", "regression"] | None = Field(
        default=None, description="Kind of task; default: by the type of the column."
    )
    where: str | None = Field(default=None, description="SQL filter over clip columns.")
    classes: Annotated[tuple[ClassName, ...], Field(min_length=1, strict=False)] | None = Field(
        default=None, description="Known classes, in the order of the outputs: of a list column, other labels are dropped; of "
        "another column, clips of other classes; default: all.",
    )

    layers: Annotated[tuple[LayerName, ...], Field(strict=False)] = Field(
        default=("each",),
        description="Layers by number or name; each: one probe a layer; all: side by side; weighted: under learned weights; "
        "blocks: likewise, without the first layer, from random weights.",
    )
    input: Literal["mean", "max", "mean+max"] = Field(default="mean", description="Statistic over time that a probe sees.")
    prepare: Literal["raw", "centre", "standardise", "l2", "l2+standardise"] = Field(
        default="standardise", description="Preparation of the vectors. l2 suits cosines: it discards the norm."
    )

    head: Literal["linear", "mlp"] = Field(default="linear", description="Kind of classifier or regressor.")
    hidden: Count = Field(default=512, description="Hidden units of the MLP (512 as in MARBLE).")
    dropout: Share = Field(default=0.2, description="Dropout of the MLP (0.2 as in MARBLE).")
    class_weights: Literal["none", "balanced"] = Field(
        default="none", description="Weights in the loss; balanced: by inverse frequency of a class, or of a tag's positives."
    )
    label_smoothing: Share = Field(default=0.0, description="Label smoothing; for tags, of the negatives only.")

    solver: Literal["batches", "lbfgs"] = Field(
        default="batches",
        description="Training. batches: steps of the optimizer, with early stopping; lbfgs: linear heads to convergence, one "
        "for each weight decay (logistic regression; of numbers, ridge regression), without learning rates and seeds.",
    )
    optimizer: Literal["adam", "adamw", "sgd"] = Field(default="adam", description="Optimizer.")
    rates: Annotated[tuple[Rate, ...], Field(min_length=1, strict=False)] = Field(
        default=(1e-4, 1e-3, 1e-2), description="Learning rates to try; the validation set selects one."
    )
    decays: Annotated[tuple[Decay, ...], Field(min_length=1, strict=False)] = Field(
        default=(0.0, 0.01, 0.1, 1.0), description="Weight decays (L2 penalties) to try; the validation set selects one."
    )
    rate_patience: Annotated[int, Field(ge=0)] = Field(
        default=0, description="Epochs without improvement after which the learning rate is halved; 0: constant rates."
    )
    batch: Count = Field(default=64, description="Clips in a batch.")
    epochs: Count = Field(default=100, description="Maximum number of epochs, or of iterations of lbfgs.")
    patience: Annotated[int, Field(ge=0)] = Field(
        default=10, description="Epochs without improvement after which training stops; 0: always train all epochs."
    )
    monitor: Literal["auto", "loss", "accuracy", "auroc", "r2", "key_score"] = Field(
        default="auto",
        description="Validation metric that stops and selects fits; auto: accuracy, then loss; for tags and numbers, loss.",
    )
    keep: Literal["best", "last"] = Field(
        default="best", description="State of a fit that is evaluated: that of its best epoch, or of its last."
    )
    average: Literal["none", "test", "tracks"] = Field(
        default="none",
        description="Average over a track's clips. none: each clip counts; test: mean probabilities on the test set; tracks: "
        "mean logits on validation and test set, and batches of whole tracks.",
    )

    split: str = Field(
        default=DEFAULT_SPLIT, description="Split into training, validation and test set: random, by:COLUMN, column:COLUMN, "
        "column:COLUMN+GROUP, folds:K or folds:K:COLUMN.",
    )
    shares: Annotated[tuple[float, ...], Field(strict=False)] = Field(
        default=SHARES, description="Shares of the training, validation and test set."
    )
    val_share: Annotated[float, Field(gt=0, lt=1)] = Field(
        default=VAL_SHARE, description="Validation share, for column:COLUMN: of the clips that +GROUP adds; of train if the "
        "column has no valid.",
    )
    split_seed: int = Field(default=0, description="Random seed of the split.")
    seeds: Count = Field(default=3, description="Number of runs, which differ in initial weights and order of clips.")

    device: str = Field(default="auto", description="Device: auto, cpu, cuda, cuda:1 or mps.")
    precision: Literal["auto", "float32", "bfloat16"] = Field(
        default="auto",
        description="Precision of matrix products; auto: bfloat16 where the processor has it and heads are large.",
    )
    protocol: str = Field(default="", description="Name of the published protocol that these settings follow.")

    def __post_init__(self) -> None:
        check_shares(self.shares)
        if self.solver == "lbfgs":
            self.check_convergence()
        fits = len(self.settings) * self.seeds
        if fits > MOST_FITS:
            raise InputError(f"settings: {fits:,} fits a layer exceed the limit of {MOST_FITS:,}. Give fewer rates or seeds")

    def check_convergence(self) -> None:
        """Raise InputError for settings that a fit to convergence cannot follow."""
        if self.head != "linear":
            raise InputError("--solver lbfgs: fits linear heads. Use --head linear or --solver batches")
        weighted = [layer for layer in self.layers if layer in ("weighted", "blocks")]
        if weighted:
            raise InputError(
                f"--solver lbfgs: does not learn weights of layers (--layers {weighted[0]}). Use --layers each or all, or "
                "--solver batches"
            )
        if self.precision == "bfloat16":
            raise InputError("--solver lbfgs: computes in float32. Leave --precision out, or use --solver batches")
        unused = [name for name in OF_BATCHES if getattr(self, name) != getattr(type(self), name)]
        if unused:
            raise InputError(
                f"--solver lbfgs: does not use {', '.join(unused)}. Leave {'it' if len(unused) == 1 else 'them'} out, or use "
                "--solver batches"
            )

    def identity(self) -> dict[str, Any]:
        """Return the values that the digest covers; settings that earlier releases lacked are left out at their defaults."""
        return {key: value for key, value in self.as_dict().items() if key not in LATER or value != LATER[key]}

    @property
    def settings(self) -> list[Setting]:
        """Return every combination of learning rate and weight decay, or every decay of a fit to convergence."""
        rates = self.rates if self.solver == "batches" else (0.0,)
        return [Setting(rate, decay) for decay in dict.fromkeys(self.decays) for rate in dict.fromkeys(rates)]

    def with_(self, **changes: Any) -> ProbeConfig:
        """Return a copy with `changes` applied; None keeps a setting."""
        return replace(self, **{key: value for key, value in changes.items() if value is not None})
