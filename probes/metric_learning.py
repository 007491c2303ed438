"""Metric learning: a linear projection of stored vectors in which clips of one group are close, stored as a space.

The groups (values of the column) are divided into a training, a validation and a test set; reported is the retrieval of
test groups before and after.  Two losses:

    contrastive   each clip against the others of a batch of P groups × K clips: supervised contrastive learning
                  (Khosla et al. 2020, arXiv 2004.11362, equation 2)
    proxy         each clip against a learned point for each group: normalised softmax (Zhai and Wu 2019, arXiv 1811.12649)

If groups span tracks, pairs of clips of one track count neither as positive nor as negative, so that recordings are not
learned instead.  pytorch-metric-learning is not used: two losses of a few lines do not justify a dependency.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from tonelake.evaluate import Split, Targets, make_manifest, read_targets
from tonelake.probes.inputs import Inputs, InputSpec, input_specs
from tonelake.probes.metric_runs import Intervals, LearnedMetric, find_metric_run
from tonelake.store import (
    InputError,
    Lake,
    LakeError,
    Projection,
    Space,
    check_name,
    extend_projected,
    in_list,
    is_number,
    is_projection,
    make_projected,
)

# Version of the computation of a metric.  Raise it when equal settings and data give another projection or other figures;
# metrics are then learned again as spaces of their own instead of being returned.
METRIC_VERSION = 1
LOSSES = ("contrastive", "proxy")
HELD_SHARE = 0.2                         # of the groups, for validation, and as many for test
MIN_GROUPS = 6
CLIPS_A_GROUP = 4                        # in a batch
GROUPS_A_BATCH = 32
TEMPERATURE = 0.1
PATIENCE = 12                            # epochs
MIN_STEPS = 30                           # in an epoch
MAX_VALIDATION_CLIPS = 5_000             # compared with each other for early stopping

# (name of a space, number of a layer, SQL filter) -> retrieval metrics by name, each with its interval.
MeasureRetrieval = Callable[[str, int, str], Intervals]


def learn_metric(
    lake: Lake, column: str, measure_retrieval: MeasureRetrieval, *, space: str | None = None, layer: int | str | None = None,
    dim: int = 128, loss: str = "contrastive", rate: float = 3e-3, epochs: int = 60, seed: int = 0, where: str | None = None,
    name: str | None = None,
) -> LearnedMetric:
    """Learn a projection of one layer (or of `all`, concatenated) and store it as a space with every embedded clip.

    A metric of the same settings and data is returned as it is stored; `name` or the default name of another one is not
    replaced (`metric_runs.find_metric_run`).  `measure_retrieval` measures a space before and after.  Raises InputError if the
    column has too few groups of two or more tracks, or for invalid settings.
    """
    if loss not in LOSSES:
        raise InputError(f"loss {loss!r}: unknown. Choose {', '.join(LOSSES)}")
    if dim < 2 or epochs < 1 or not 0 < rate < 1e3:
        raise InputError(
            f"dim {dim}, epochs {epochs}, rate {rate:g}: dim must be at least 2, epochs at least 1, the rate above 0"
        )
    parent = lake.spaces.get(space)
    if is_projection(parent):
        raise InputError(f"space {parent.name!r}: is itself a projection. Project the space that it was made from")
    spec, *more = input_specs(parent, [layer if layer is not None else parent.default_layer])
    if spec.parts or more:
        raise InputError(f"layer {layer!r}: a projection needs one layer, or `all` for all layers concatenated")
    default = f"{parent.name[: 60 - len(column)]}-{column}".encode("ascii", "ignore").decode()
    check_name(name or default)
    task = read_targets(lake, parent, [column], kind="multiclass", where=where)
    sides = hold_out_groups(task.targets, task.track, seed, column)
    split = split_of(task, sides, column)
    settings = {
        "column": column, "space": parent.name, "layer": spec.name, "dim": dim, "loss": loss, "rate": rate, "epochs": epochs,
        "seed": seed, "where": where,
    }
    manifest = make_manifest(settings, METRIC_VERSION, parent.fingerprint, task, [split], groups=())
    run = find_metric_run(lake, name, default, manifest)
    known = run.result() if run.stored else None
    if known is not None and known.after:
        return known
    if known is None:
        if run.stored:
            raise LakeError(f"projections/{run.name}/metric.json: cannot be read. Choose another --name")
        known = LearnedMetric(
            space=run.name, parent=parent.name, layer=spec.name, column=column, epochs=0, clips=len(task),
            groups=(len(sides[0]), len(sides[1]), len(sides[2])), before={}, after={}, notes=run.notes,
        )
        projection, trained = learn_projection(lake, parent, spec, task, split, settings)
        known = replace(known, epochs=trained)
        run.write(manifest, known)
        make_projected(lake, projection, run.name, column, f"{parent.encoder} projected by {column}")
    extend_projected(lake, lake.spaces.get(run.name))
    filtered = filter_of_groups(task, column, sides[2], where)
    baseline_layer = parent.default_layer if spec.name == "all" else spec.columns[0][0]
    finished = replace(
        known, before=measure_retrieval(parent.name, baseline_layer, filtered), after=measure_retrieval(run.name, 0, filtered)
    )
    run.write(manifest, finished)
    return finished


def split_of(task: Targets, sides: list[np.ndarray], column: str) -> Split:
    """Return the clips of training, validation and test groups; training clips whose track is in another set are left out."""
    train, valid, test = (np.flatnonzero(np.isin(task.targets, groups)) for groups in sides)
    train = train[~np.isin(task.track[train], task.track[np.concatenate([valid, test])])]        # no recording in two sets
    if len(np.unique(task.targets[train])) < 2:
        raise InputError(f"column {column!r}: its groups share tracks, so none can be held out with its recordings")
    return Split(train, valid, test)


def learn_projection(
    lake: Lake, parent: Space, spec: InputSpec, task: Targets, split: Split, settings: Mapping[str, Any]
) -> tuple[Projection, int]:
    """Train a projection of the parent's vectors; return it with the number of epochs."""
    vectors = Inputs(lake, parent, task.ids).read_columns(spec)
    mean, scale = standardisation(vectors[split.train])
    epochs = settings["epochs"]
    weight, trained = fit_projection(
        (vectors - mean) / scale, task.targets, task.track, [split.train, split.valid, split.test],
        min(settings["dim"], spec.width), settings["loss"], settings["rate"], epochs, settings["seed"],
        lambda items: lake.progress(items, epochs, f"learning a projection by {settings['column']}"),
    )
    merged = (weight / scale).astype(np.float32)                                 # applies to vectors as stored
    return Projection(
        parent=parent.name, fingerprint=parent.fingerprint, layers=tuple(number for number, _ in spec.columns), weight=merged,
        bias=(-merged @ mean).astype(np.float32),
    ), trained


def filter_of_groups(task: Targets, column: str, groups: np.ndarray, where: str | None) -> str:
    """Return the SQL filter for the clips of these groups."""
    names = [task.names[group] for group in groups]
    filtered = f"{column} IN ({', '.join(names)})" if is_number(task.clips[column].dtype) else in_list(column, names)
    return filtered if where is None else f"({where}) AND {filtered}"


def extend_metric(lake: Lake, space: str) -> int:
    """Add the vectors of new clips to a projected space; returns how many.

    Raises InputError if the space is not a projection.
    """
    found = lake.spaces.get(space)
    if not is_projection(found):
        raise InputError(f"space {space!r}: not a projection. Run `tonelake embed --space {space}` to embed new clips")
    return extend_projected(lake, found)


def hold_out_groups(targets: np.ndarray, track: np.ndarray, seed: int, column: str) -> list[np.ndarray]:
    """Divide groups into training, validation and test; groups without comparable clips (see below) are used for training.

    Groups need two tracks or, if no group has two, two clips.  `evaluate.halve_groups` differs: it makes two halves and drops
    the other groups.  Raises InputError if fewer than MIN_GROUPS remain.
    """
    groups = np.arange(targets.max() + 1)
    pairs = np.unique(np.stack([targets, track]), axis=1)
    tracks = np.bincount(pairs[0], minlength=len(groups))
    enough = tracks >= 2 if (tracks >= 2).any() else np.bincount(targets, minlength=len(groups)) >= 2
    usable = np.random.default_rng(seed).permutation(groups[enough])
    if len(usable) < MIN_GROUPS:
        raise InputError(
            f"column {column!r}: a metric needs {MIN_GROUPS} groups with clips that can be compared, it has {len(usable)}. "
            "Choose another column"
        )
    held = max(round(len(usable) * HELD_SHARE), 2)       # at least two, so that there is something to confuse
    first, second = len(usable) - 2 * held, len(usable) - held
    return [np.sort(np.concatenate([usable[:first], groups[~enough]])), np.sort(usable[first:second]), np.sort(usable[second:])]


def standardisation(vectors: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    spread = vectors.std(axis=0)
    return vectors.mean(axis=0), np.where(spread > 1e-9, spread, 1).astype(np.float32)


def fit_projection(
    vectors: np.ndarray, targets: np.ndarray, track: np.ndarray, rows: list[np.ndarray], dim: int, loss: str, rate: float,
    epochs: int, seed: int, progress: Callable[[Any], Any],
) -> tuple[np.ndarray, int]:
    """Return the (dim, width) projection with the best recall@1 on the validation groups, and the number of epochs trained."""
    import torch

    generator = torch.Generator().manual_seed(seed)
    rng = np.random.default_rng(seed)
    x, width = torch.from_numpy(vectors.astype(np.float32)), vectors.shape[1]
    weight = torch.nn.Parameter(torch.linalg.qr(torch.randn(width, dim, generator=generator))[0].T.contiguous())
    training = np.unique(targets[rows[0]])
    number = np.searchsorted(training, targets)          # of the training groups
    proxies = torch.nn.Parameter(torch.randn(len(training), dim, generator=generator) / dim**0.5)
    optimizer = torch.optim.AdamW([weight, proxies] if loss == "proxy" else [weight], rate, weight_decay=1e-4)
    value: torch.Tensor | None
    best, best_weight, waited, done = validation_recall(x, weight, targets, track, rows[1]), weight.detach().clone(), 0, 0
    for _ in progress(range(epochs)):
        done += 1
        for batch in epoch_batches(number, rows[0], loss, rng):
            z = torch.nn.functional.normalize(x[batch] @ weight.T)
            own = torch.from_numpy(number[batch])
            if loss == "proxy":
                logits = z @ torch.nn.functional.normalize(proxies).T / TEMPERATURE
                value = torch.nn.functional.cross_entropy(logits, own)
            else:
                value = contrastive(z, own, torch.from_numpy(track[batch]))
            if value is None:
                continue
            optimizer.zero_grad()
            value.backward()
            optimizer.step()
        found = validation_recall(x, weight, targets, track, rows[1])
        waited = 0 if found > best else waited + 1
        if found > best:
            best, best_weight = found, weight.detach().clone()
        if waited >= PATIENCE:
            break
    return best_weight.numpy(), done


def epoch_batches(number: np.ndarray, rows: np.ndarray, loss: str, rng: np.random.Generator) -> Iterator[np.ndarray]:
    """Yield batches of every clip once, or repeatedly until MIN_STEPS if there are few clips."""
    steps = 0
    while steps < MIN_STEPS:
        for batch in batches(number, rows, loss, rng):
            steps += 1
            yield batch


def batches(number: np.ndarray, rows: np.ndarray, loss: str, rng: np.random.Generator) -> Iterator[np.ndarray]:
    """Yield rows of clips: for `contrastive` a few clips from each of several groups, each group once; else all, shuffled."""
    if loss == "proxy":
        order = rng.permutation(rows)
        yield from (order[start : start + 256] for start in range(0, len(order), 256))
        return
    order = rng.permutation(rows)
    order = order[np.argsort(number[order], kind="stable")]                      # by group, shuffled within it
    starts = np.flatnonzero(np.diff(number[order], prepend=-1))
    within = np.arange(len(order)) - np.repeat(starts, np.diff(np.append(starts, len(order))))
    chunks = np.split(order, np.flatnonzero((within % CLIPS_A_GROUP == 0) & (np.arange(len(order)) > 0)))
    mixed = rng.permutation(len(chunks))
    for start in range(0, len(mixed), GROUPS_A_BATCH):
        yield np.concatenate([chunks[i] for i in mixed[start : start + GROUPS_A_BATCH]])


def contrastive(z: Any, group: Any, track: Any) -> Any:
    """Return the loss of Khosla et al., equation 2 (outside the logarithm), for z (clip, dim) of length 1; None if no two clips
    are positives."""
    import torch

    same = group[:, None] == group[None]
    itself = torch.eye(len(z), dtype=torch.bool)
    recording = track[:, None] == track[None]
    positive = same & ~itself
    across = positive & ~recording
    if across.any():                                     # groups span tracks: pairs of one track do not count
        positive, counted = across, ~recording
    else:
        counted = ~itself
    has = positive.any(dim=1)
    if not has.any():
        return None
    positive, counted = positive[has], counted[has]
    logits = (z[has] @ z.T / TEMPERATURE).masked_fill(~counted, -torch.inf)
    logged = logits - torch.logsumexp(logits, dim=1, keepdim=True)
    return -(torch.where(positive, logged, 0.0).sum(dim=1) / positive.sum(dim=1)).mean()


def validation_recall(x: Any, weight: Any, targets: np.ndarray, track: np.ndarray, rows: np.ndarray) -> float:
    """Return the share of clips whose nearest clip of another track (or other clip, if no group has two tracks) shares their
    group."""
    import torch

    rows = rows[:: len(rows) // MAX_VALIDATION_CLIPS + 1]
    with torch.no_grad():
        z = torch.nn.functional.normalize(x[rows] @ weight.T)
        own, recording = torch.from_numpy(targets[rows]), torch.from_numpy(track[rows])
        positive = own[:, None] == own[None]
        apart = recording[:, None] != recording[None]
        if not (positive & apart).any():
            apart = ~torch.eye(len(rows), dtype=torch.bool)
        cosines = (z @ z.T).masked_fill(~apart, -2.0)
        nearest = cosines.argmax(dim=1)
        comparable = (positive & apart).any(dim=1)
        return float((own[nearest] == own)[comparable].float().mean())
