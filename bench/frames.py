"""Frame probes: the whole grid at once compared with the same fits one after another, in one run and at equal score.

    python -m bench.frames
    python -m bench.frames --lake frames-lake       keeps the lake for the next time

Chorales played by the built-in organ, states of every layer of the small encoder.  The loop is plain PyTorch: for each fit it
reads the layer's stored frames once, standardises them, and trains a module with AdamW and BCEWithLogitsLoss in float32, with
the validation loss after each epoch.  The grid reads from the store as well, computes the average precision in addition, and
uses bfloat16 products where the processor has them, as a run does.  The loop is timed on some layers and scaled.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import nn

import tonelake
from bench.report import RESULTS, circumstances, table, write_results
from tonelake.evaluate import counted
from tonelake.probes import FrameProbeConfig
from tonelake.probes.frames.experiment import FrameExperiment, make_frame_experiment
from tonelake.probes.frames.frame_losses import Cells, FrameLoss, ValidationSums, positive_weights
from tonelake.probes.frames.stacks import initial_fits
from tonelake.probes.heads import Tensors

PIECES, CLIP_END_S = 60, 20.0
RATES, DECAYS, SEEDS = (3e-4, 1e-3, 3e-3), (0.0, 0.01), 2


@dataclass(frozen=True, kw_only=True)
class Size:
    """One comparison."""

    head: str
    layers: tuple[str, ...]
    loop_layers: tuple[str, ...]         # on which the loop is timed
    epochs: int


SIZES = (
    Size(head="linear", layers=("each",), loop_layers=("3", "6"), epochs=6),
    Size(head="conv", layers=("6",), loop_layers=("6",), epochs=4),
)


def fill(folder: Path) -> tonelake.Lake:
    """Make a lake of chorales with the frames of every layer of `small`, or open the one that is there."""
    lake = tonelake.open(folder, create=True)
    if not lake.clips.count():
        lake.ingest_chorales(limit=PIECES, bars=4, hop=4)
    lake.embed("small", frames=range(7))
    return lake


def experiment_of(lake: tonelake.Lake, size: Size) -> FrameExperiment:
    return make_frame_experiment(lake, FrameProbeConfig(
        "notes", head=size.head, layers=size.layers, rates=RATES, decays=DECAYS, seeds=SEEDS, epochs=size.epochs, patience=0,
        lowest=36, highest=84, split="by:piece", where=f"start_s < {CLIP_END_S}", device="cpu", dropout=0.0,
    ))


class LoadedLayer:
    """Segments of one layer in memory, as a loop would hold them: float32 states, targets, and which frames are judged."""

    def __init__(self, experiment: FrameExperiment, layer: int) -> None:
        split, task, known = experiment.split.split, experiment.task, experiment.clips
        read = known.frames.reader(known.clips["clip_id"].to_list(), experiment.specs[layer].layers[0])
        self.sides = []
        for clips in (split.train, split.valid):
            states = [torch.from_numpy(part.astype(np.float32)) for part in read(clips)]
            if not self.sides:
                together = torch.cat(states)
                mean, scale = together.mean(dim=0), together.std(dim=0, correction=0).clamp_min(1e-6)
            x = cut([(part - mean) / scale for part in states], experiment.segment_frames)
            targets = [torch.from_numpy(known.targets(int(clip))).float() for clip in clips]
            judged = cut([torch.ones(len(part), 1) for part in targets], experiment.segment_frames)
            self.sides.append((x, cut(targets, experiment.segment_frames), judged[..., 0]))
        counts = self.sides[0][1].sum(dim=(0, 1)).long().numpy()
        frames = int(self.sides[0][2].sum())
        self.weights = torch.from_numpy(positive_weights(task.kind, counts, frames, task.groups, balanced=True))


def cut(clips: list[torch.Tensor], frames: int) -> torch.Tensor:
    """Return (segment, frame, …): clips cut into segments, the last one of each padded with zeros."""
    return torch.cat([
        nn.functional.pad(clip, (0, 0, 0, -len(clip) % frames)).unflatten(0, (-1, frames)) for clip in clips
    ])


def loop(experiment: FrameExperiment, layer: int) -> tuple[float, list[Tensors]]:
    """Train every fit of one layer in turn; return seconds and the best state of each, in the order of the grid."""
    config, shape = experiment.config, experiment.shape(experiment.specs[layer])
    states = []
    started = time.perf_counter()
    for seed in range(config.seeds):
        for setting in config.settings:
            loaded = LoadedLayer(experiment, layer)
            head = shape.make()
            head.load_state_dict({name: value[0] for name, value in initial_fits(shape, [seed]).items()})
            criterion = nn.BCEWithLogitsLoss(pos_weight=loaded.weights, reduction="none")
            optimizer = torch.optim.AdamW(head.parameters(), setting.rate, weight_decay=setting.decay)
            (x, targets, judged), valid = loaded.sides
            best, state = np.inf, {}
            for epoch in range(config.epochs):
                head.train()
                order = torch.from_numpy(np.random.default_rng([seed, epoch]).permutation(len(x)))
                for rows in order.split(config.batch):
                    optimizer.zero_grad()
                    loss = (criterion(head(x[rows]), targets[rows]) * judged[rows][..., None]).sum()
                    (loss / (judged[rows].sum() * targets.shape[-1])).backward()
                    optimizer.step()
                head.eval()
                with torch.no_grad():
                    total = sum(
                        float((criterion(head(a), b) * c[..., None]).sum())
                        for a, b, c in zip(*(part.split(config.batch) for part in valid), strict=True)
                    )
                if total < best:
                    best, state = total, {name: value.clone() for name, value in head.state_dict().items()}
            states.append(state)
    return time.perf_counter() - started, states


def grid(experiment: FrameExperiment) -> tuple[float, list[list[Tensors]]]:
    """Train the whole grid from the store; return seconds and the best state of each fit of each layer."""
    spent, found = 0.0, []
    for spec in experiment.specs:
        started = time.perf_counter()
        results, _ = experiment.fit(spec)
        spent += time.perf_counter() - started
        fits = len(results.score)
        found.append([{name: value[fit] for name, value in results.states.items()} for fit in range(fits)])
    return spent, found


def scores(experiment: FrameExperiment, layer: int, states: list[Tensors]) -> np.ndarray:
    """Return (fit,) mean average precision of onsets, frames and offsets on the validation clips, in float32."""
    loaded, shape, task = LoadedLayer(experiment, layer), experiment.shape(experiment.specs[layer]), experiment.task
    head = shape.make().eval()
    found = []
    x, targets, judged = loaded.sides[1]
    for state in states:
        head.load_state_dict(state)
        sums = ValidationSums(FrameLoss(task.kind, loaded.weights), 1, task.groups, 1, torch.device("cpu"))
        for a, b, c in zip(*(part.split(8) for part in (x, targets, judged)), strict=True):
            with torch.no_grad():
                logits = head(a)[c.bool()][None]
            sums.add(logits, cells_of(b[c.bool()]), None, 0)
        found.append(float(sums.results()[1][0]))
    return np.array(found)


def cells_of(targets: torch.Tensor) -> Cells:
    rows, outputs = targets.nonzero(as_tuple=True)
    return Cells(rows, outputs, targets[rows, outputs])


def measure(lake: tonelake.Lake, size: Size) -> tuple[list[list[str]], dict[str, float], str]:
    """Compare both; return rows of a table, ratios, and a sentence on what was trained."""
    experiment = experiment_of(lake, size)
    names = [spec.name for spec in experiment.specs]
    timed = [names.index(name) for name in size.loop_layers]
    before = [loop(experiment, layer) for layer in timed[:1]]
    spent, states = grid(experiment)
    loops = before + [loop(experiment, layer) for layer in timed[1:]]        # before and after ours
    factor = len(names) / len(loops)
    loop_s = sum(seconds for seconds, _ in loops) * factor
    theirs = np.mean([scores(experiment, layer, own).max() for layer, (_, own) in zip(timed, loops, strict=True)])
    mine = np.mean([scores(experiment, layer, states[layer]).max() for layer in timed])
    fits = experiment.fits
    measured = "" if factor == 1 else f" ({len(loops)} of {len(names)} layers, scaled)"
    rows = [
        [size.head, f"PyTorch, one fit after another, float32{measured}", f"{loop_s:.1f}", f"{1e3 * loop_s / fits:.0f}", "1.0",
         f"{theirs:.3f}"],
        [size.head, f"tonelake, the grid at once, {experiment.compute_dtype(experiment.specs[0])}".replace("torch.", ""),
         f"{spent:.1f}", f"{1e3 * spent / fits:.0f}", f"{loop_s / spent:.1f}", f"{mine:.3f}"],
    ]
    clips = experiment.split.split
    about = (
        f"{size.head}: {fits} fits ({counted(len(names), 'layers')}, {len(RATES)} rates, {len(DECAYS)} decays, {SEEDS} seeds), "
        f"{size.epochs} epochs, {len(clips.train)} training and {len(clips.valid)} validation clips, "
        f"{experiment.shape(experiment.specs[0]).parameters():,} parameters each."
    )
    return rows, {f"grid_vs_loop_{size.head}": loop_s / spent, f"score_loss_{size.head}": float(theirs - mine)}, about


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--lake", type=Path)
    parser.add_argument("--only", choices=[size.head for size in SIZES])
    options = parser.parse_args()
    about = circumstances("initial weights and the order of segments (seeded)")
    with tempfile.TemporaryDirectory() as temporary:
        lake = fill(options.lake or Path(temporary) / "lake")
        rows, ratios, notes = [], dict[str, float](), []
        for size in SIZES:
            if options.only in (None, size.head):
                found, more, sentence = measure(lake, size)
                rows += found
                ratios |= more
                notes.append(sentence)
                print(table(["head", "way", "s", "ms a fit", "× loop", "score"], found), sentence, more, sep="\n", flush=True)
    if options.only:
        return
    ratios["grid_vs_loop"] = ratios["grid_vs_loop_linear"]
    text = table(["head", "way", "s", "ms a fit", "× loop", "score"], rows) + "\n" + "\n".join(notes) + (
        "\n\nThe score is the mean average precision of onsets, frames and offsets on the validation clips, of the best fit.  "
        "Both read frames from the store, the loop once for each fit.  `grid_vs_loop` is the ratio of the grid over all "
        "layers, linear."
        "\n\nNotes read from frames, by encoder and head: docs/notes.md"
    )
    kept = RESULTS / "frames.json"
    others = json.loads(kept.read_text()) if kept.exists() else {}
    more = {key: value for key, value in others.items() if key not in ("about", "ratios")}
    write_results("frames", "Frame probes: a grid at once", text, about, ratios, **more)
    print("bench/results/frames.md and .json are written")


if __name__ == "__main__":
    main()
