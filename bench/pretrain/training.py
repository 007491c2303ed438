"""Masked prediction after HuBERT and MERT: spans of frames are hidden, and the model predicts the targets of both teachers.

The loss: cross-entropy of the mel and the chroma clusters of hidden frames, and the mean squared error of the constant-Q
spectrum of all frames, weighted 1.5 where they are hidden.  In a quarter of the examples another one of the batch is mixed in
while the targets stay (in-batch noise mixture, arXiv 2306.00107, section 3.3).

Only the blocks are trained.  The layers below them, up to layer 0, are initialised as a filter bank and frozen: within an hour
of training their filters deteriorate faster than they improve (with their rate a tenth of the blocks', after 240 steps the
blocks explain nothing of the plain constant-Q spectrum; with rate 0, a tenth).

A step depends only on the seed, its number and the weights, so a training resumed from its last checkpoint gives the
result of an uninterrupted one.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from bench.pretrain import teachers
from bench.pretrain.examples import RATE, make_example
from bench.pretrain.filterbank import start_as_filterbank, start_as_semitones
from bench.pretrain.music import Piece
from bench.pretrain.teachers import CLUSTERS, CQT_BINS, Teachers
from bench.report import circumstances

FIT_EXAMPLES = 384                       # examples that the teachers are fitted to
CHECKED = 48                             # examples of another seed, which measure progress
UNSEEN = 10**9                           # step numbers from here on are reserved for checks
WEIGHTS = {"mel": 0.15, "chroma": 0.15, "cqt": 1.0, "own": 1.0}          # larger ones for clusters hide pitch at first
FIXED = ("feature_extractor.", "feature_projection.", "pos_conv_embed.", "masked_spec_embed")
HIDDEN_WEIGHT = 1.5                      # weight of the constant-Q error in hidden frames


@dataclass(frozen=True)
class Recipe:
    """Settings that determine the result."""

    hidden: int = 192
    blocks: int = 6
    heads: int = 4
    channels: tuple[int, ...] = (32, 48, 64, 96, 128, 160, 192)
    steps: int = 18_000
    batch: int = 6                       # examples
    rate: float = 1e-3                   # at its highest
    warmup: int = 200                    # steps
    decay: float = 0.01                  # of weights
    dropout: float = 0.0                 # no example is repeated; and dropout makes attention four times as slow on a CPU
    mask_share: float = 0.015            # share of frames that start a hidden span
    mask_length: int = 10                # frames, 0.13 s
    mixed: float = 0.25                  # of examples
    seed: int = 0


def config_json(recipe: Recipe) -> dict[str, Any]:
    """Return `config.json` in MERT's own format."""
    return {
        "model_type": "mert_model", "architectures": ["MERTModel"], "hidden_size": recipe.hidden,
        "num_hidden_layers": recipe.blocks, "num_attention_heads": recipe.heads, "intermediate_size": 4 * recipe.hidden,
        "hidden_act": "gelu", "hidden_dropout": recipe.dropout, "attention_dropout": recipe.dropout,
        "activation_dropout": 0.0, "feat_proj_dropout": 0.0, "final_dropout": 0.0, "layerdrop": 0.0,
        "layer_norm_eps": 1e-5, "initializer_range": 0.02, "do_stable_layer_norm": True,
        "feat_extract_norm": "group", "feat_extract_activation": "gelu", "feat_proj_layer_norm": True,
        "conv_dim": list(recipe.channels), "conv_stride": [5, 2, 2, 2, 2, 2, 2], "conv_kernel": [10, 3, 3, 3, 3, 2, 2],
        "conv_bias": False, "num_feat_extract_layers": 7, "num_conv_pos_embeddings": 128,
        "num_conv_pos_embedding_groups": 16, "apply_spec_augment": True, "mask_time_prob": 0.05, "mask_time_length": 10,
        "feature_extractor_cqt": False, "deepnorm": False, "sample_rate": RATE, "vocab_size": 32,
    }


PREPROCESSOR = {
    "do_normalize": True, "feature_extractor_type": "Wav2Vec2FeatureExtractor", "feature_size": 1, "padding_side": "right",
    "padding_value": 0, "return_attention_mask": True, "sampling_rate": RATE,
}


def build(recipe: Recipe, *, filters: bool = True) -> Any:
    """Make the model with its heads, initialised by the recipe's seed.  `filters=False`: all weights random."""
    import torch
    from transformers import HubertConfig, HubertModel

    from tonelake.embed.encoders.checkpoint import NO_SETTINGS

    torch.manual_seed(recipe.seed)
    config = HubertConfig(**{k: v for k, v in config_json(recipe).items() if k not in NO_SETTINGS})
    config._attn_implementation = "sdpa"

    class Pupil(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.encoder = HubertModel(config)
            self.mel = torch.nn.Linear(recipe.hidden, CLUSTERS["mel"])
            self.chroma = torch.nn.Linear(recipe.hidden, CLUSTERS["chroma"])
            self.cqt = torch.nn.Linear(recipe.hidden, 2 * CQT_BINS)

        def forward(self, samples: Any, hidden: Any) -> tuple[Any, Any, Any]:
            """(batch, samples), (batch, frame) bool -> the predictions, (batch, frame, …) each."""
            encoder = self.encoder
            features = encoder.feature_projection(encoder.feature_extractor(samples).transpose(1, 2))
            features = torch.where(hidden[:, :, None], encoder.masked_spec_embed.to(features.dtype), features)
            states = encoder.encoder(features).last_hidden_state
            return self.mel(states), self.chroma(states), self.cqt(states)

    pupil = Pupil()
    if filters:
        start_as_filterbank(pupil.encoder.feature_extractor, RATE)
        start_as_semitones(pupil.encoder, RATE / teachers.HOP)
    pupil.encoder.feature_extractor._freeze_parameters()             # otherwise its input would require a gradient
    for name, parameter in pupil.named_parameters():
        if any(part in name for part in FIXED):
            parameter.requires_grad_(False)
    return pupil


def losses(model: Any, batch: Batch, recipe: Recipe, device: str, number: int) -> dict[str, Any]:
    """Return the step's losses, and the accuracy for the clusters of hidden frames."""
    import torch

    from tonelake.embed.encoders.hubert import normalize

    rng = np.random.default_rng((recipe.seed, 1, number))
    room, mel, chroma, own, cqt = (torch.from_numpy(part).to(device) for part in batch)
    heard = normalize(mix(room, recipe.mixed, rng))
    hidden = torch.from_numpy(spans(mel.shape, recipe, rng)).to(device)
    kind = torch.device(device).type
    with torch.autocast(kind, torch.bfloat16):
        answers = [answer.float() for answer in model(heard, hidden)]
    entropy = torch.nn.functional.cross_entropy
    error = (answers[2][..., :CQT_BINS] - cqt).square().mean(dim=2)
    own_error = (answers[2][..., CQT_BINS:] - own).square().mean(dim=2)
    weight = torch.where(hidden, HIDDEN_WEIGHT, 1.0)
    weight = weight / weight.sum()
    return {
        "mel": entropy(answers[0][hidden], mel[hidden]), "chroma": entropy(answers[1][hidden], chroma[hidden]),
        "cqt": (error * weight).sum(), "own": (own_error * weight).sum(),
        "own_seen": own_error[~hidden].mean(),
        "variance": cqt.var(), "own_variance": own.var(),
        "cqt_hidden": error[hidden].mean(), "cqt_seen": error[~hidden].mean(),
        "mel_named": (answers[0][hidden].argmax(1) == mel[hidden]).float().mean(),
        "chroma_named": (answers[1][hidden].argmax(1) == chroma[hidden]).float().mean(),
    }


class Batch(NamedTuple):
    """Examples with their targets."""

    room: np.ndarray                     # (example, samples) float32
    mel: np.ndarray                      # (example, frame) clusters
    chroma: np.ndarray
    own: np.ndarray                      # (example, frame, 168) constant-Q spectra, scaled: of the sound
    plain: np.ndarray                    # … and of its notes played by one plain tone


def mix(room: Any, share: float, rng: np.random.Generator) -> Any:
    """Mix a second or more of another example, at a lower level, into some examples of a batch."""
    mixed = room.clone()
    level = room.std(dim=1)
    for row in np.flatnonzero(rng.random(len(room)) < share):
        other = int(rng.integers(len(room)))
        length = int(rng.uniform(0.2, 0.6) * room.shape[1])
        source, target = (int(rng.integers(room.shape[1] - length)) for _ in range(2))
        gain = level[row] / (level[other] + 1e-6) * 10 ** (-rng.uniform(3, 20) / 20)
        mixed[row, target : target + length] += gain * room[other, source : source + length]
    return mixed


def spans(shape: Sequence[int], recipe: Recipe, rng: np.random.Generator) -> np.ndarray:
    """Return (batch, frame) bool: spans to hide; they may overlap, and hide a seventh."""
    begins = rng.random(tuple(shape)) < recipe.mask_share
    hidden = begins.copy()
    for shift in range(1, recipe.mask_length):
        hidden[:, shift:] |= begins[:, :-shift]
    return hidden


class Examples:
    """Yield batches by number, made with their targets in other processes during training."""

    def __init__(self, corpus: Sequence[Piece], teach: Teachers, seed: int, batch: int, steps: range) -> None:
        self.corpus, self.teach, self.seed, self.batch, self.steps = corpus, teach, seed, batch, steps

    def __len__(self) -> int:
        return len(self.steps)

    def __getitem__(self, place: int) -> Batch:
        first = self.steps[place] * self.batch
        return make_batch(self.corpus, self.teach, self.seed, range(first, first + self.batch))

    def load(self, workers: int) -> Iterator[Batch]:
        """In order."""
        from torch.utils.data import DataLoader

        def first(batches: list[Batch]) -> Batch:
            return batches[0]

        how: dict[str, Any] = {"multiprocessing_context": "fork", "prefetch_factor": 4} if workers else {}
        return iter(DataLoader(self, batch_size=1, collate_fn=first, num_workers=workers, **how))


def make_sounds(corpus: Sequence[Piece], seed: int, numbers: range) -> tuple[np.ndarray, ...]:
    """Return sound, room and plain, (example, samples) each."""
    made = [make_example(corpus, seed, number) for number in numbers]
    return tuple(np.stack(part) for part in zip(*made, strict=True))


def make_batch(corpus: Sequence[Piece], teach: Teachers, seed: int, numbers: range) -> Batch:
    import torch

    sound, room, plain = (torch.from_numpy(part) for part in make_sounds(corpus, seed, numbers))
    mel, chroma = teach.clusters(teachers.log_mel(sound), teachers.chroma_of(sound))
    return Batch(*(part.numpy() for part in (room, mel, chroma, teach.cqt(teachers.halved(sound)), teach.cqt(plain))))


def rate_at(step: int, recipe: Recipe) -> float:
    """Return the learning rate: linear warm-up, then cosine decay to a hundredth."""
    if step < recipe.warmup:
        return recipe.rate * (step + 1) / recipe.warmup
    done = (step - recipe.warmup) / max(recipe.steps - recipe.warmup, 1)
    return recipe.rate * (0.01 + 0.99 * 0.5 * (1 + np.cos(np.pi * done)))


def train(
    recipe: Recipe, corpus: Sequence[Piece], work: Path, *, device: str = "cpu", workers: int = 1, every: int = 250,
    until: int | None = None,
) -> Any:
    """Train and return the model.  `work` holds teachers, checkpoint and log; an existing training is resumed.

    `every`: steps between checkpoints.  `until`: step to stop at, to be resumed later.
    """
    import torch

    work.mkdir(parents=True, exist_ok=True)
    check_recipe(work / "recipe.json", recipe)
    teach = load_teachers(work / "teachers.safetensors", recipe, corpus)
    model = build(recipe).to(device)
    optimizer = torch.optim.AdamW(groups(model, recipe.decay), lr=recipe.rate, betas=(0.9, 0.98), eps=1e-6, fused=True)
    step = restore(work / "checkpoint.safetensors", model, optimizer)
    last = recipe.steps if until is None else min(until, recipe.steps)
    checked = make_batch(corpus, teach, recipe.seed + 1, range(CHECKED))
    started, seen = time.monotonic(), step
    sums: dict[str, float] = {}
    for batch in Examples(corpus, teach, recipe.seed, recipe.batch, range(step, last)).load(workers):
        model.train()
        torch.manual_seed(recipe.seed * 1_000_003 + step)            # of dropout
        for group in optimizer.param_groups:
            group["lr"] = rate_at(step, recipe)
        found = losses(model, batch, recipe, device, step)
        optimizer.zero_grad(set_to_none=True)
        sum(weight * found[name] for name, weight in WEIGHTS.items()).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        step += 1
        for name, value in found.items():
            sums[name] = sums.get(name, 0.0) + float(value.detach())
        if step % every == 0 or step == last:
            count = (step - 1) % every + 1
            pace = (time.monotonic() - started) / (step - seen)
            line = {"step": step, "seconds_a_step": round(pace, 3)} | {k: round(v / count, 4) for k, v in sums.items()}
            line |= {f"checked_{k}": round(v, 4) for k, v in check(model, checked, recipe, device).items()}
            sums = {}
            save(work / "checkpoint.safetensors", model, optimizer, step)
            with (work / "log.jsonl").open("a") as log:
                log.write(json.dumps(line) + "\n")
            print(json.dumps(line), flush=True)
    return model


def check(model: Any, batch: Batch, recipe: Recipe, device: str) -> dict[str, float]:
    """Return the losses on a fixed set of examples of another seed."""
    import torch

    model.eval()
    sums: dict[str, float] = {}
    pieces = range(0, len(batch.room), recipe.batch)
    with torch.no_grad():
        for first in pieces:
            part = Batch(*(kind[first : first + recipe.batch] for kind in batch))
            for name, value in losses(model, part, recipe, device, UNSEEN + first).items():
                sums[name] = sums.get(name, 0.0) + float(value) / len(pieces)
    return sums


def groups(model: Any, decay: float) -> list[dict[str, Any]]:
    """Return parameter groups: weight decay applies to matrices, not to biases, norms and the mask vector."""
    parameters = [p for p in model.parameters() if p.requires_grad]
    return [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": decay},
        {"params": [p for p in parameters if p.ndim < 2], "weight_decay": 0.0},
    ]


def check_recipe(path: Path, recipe: Recipe) -> None:
    """Raise SystemExit if the folder holds a training with another recipe."""
    text = json.dumps(asdict(recipe), indent=2)
    if path.exists() and path.read_text() != text:
        raise SystemExit(f"{path}: holds a training with another recipe. Choose another folder with --work, or remove this one")
    path.write_text(text)


def load_teachers(path: Path, recipe: Recipe, corpus: Sequence[Piece]) -> Teachers:
    """Return the teachers from their file; fit and write them if there is none."""
    from safetensors.torch import load_file, save_file

    if not path.exists():
        sound, _, plain = make_sounds(corpus, recipe.seed + 2, range(FIT_EXAMPLES))
        save_file(teachers.fit(sound, plain, recipe.seed)._asdict(), path)
    return Teachers(**load_file(path))


def save(path: Path, model: Any, optimizer: Any, step: int) -> None:
    """Write weights and the optimiser's moments atomically."""
    import torch
    from safetensors.torch import save_file

    tensors = {f"model.{name}": tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()}
    of = {id(p): name for name, p in model.named_parameters()}
    for parameter, state in optimizer.state.items():
        for kind, tensor in state.items():
            tensors[f"optimizer.{kind}.{of[id(parameter)]}"] = tensor.detach().cpu().contiguous()
    tensors["step"] = torch.tensor(step)
    beside = path.with_suffix(".tmp")
    save_file(tensors, beside)
    beside.replace(path)


def restore(path: Path, model: Any, optimizer: Any) -> int:
    """Load a checkpoint's state and return its step; 0 if there is none."""
    from safetensors.torch import load_file

    if not path.exists():
        return 0
    tensors = load_file(path)
    model.load_state_dict({name.removeprefix("model."): t for name, t in tensors.items() if name.startswith("model.")})
    for name, parameter in model.named_parameters():
        kept = {kind: tensors.get(f"optimizer.{kind}.{name}") for kind in ("step", "exp_avg", "exp_avg_sq")}
        if kept["step"] is not None:
            optimizer.state[parameter] = {kind: tensor.to(parameter.device) for kind, tensor in kept.items()}
    return int(tensors["step"])


def export(model: Any, recipe: Recipe, folder: Path, work: Path | None = None) -> int:
    """Write the encoder without its heads in the hub's format, float16; return the size of its weights in bytes.

    `work`: the folder of its training, whose log is summarised in `training.json`.
    """
    import torch
    from safetensors.torch import save_file

    folder.mkdir(parents=True, exist_ok=True)
    tensors = {name: t.detach().to("cpu", torch.float16).contiguous() for name, t in model.encoder.state_dict().items()}
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    (folder / "config.json").write_text(json.dumps(config_json(recipe), indent=2) + "\n")
    (folder / "preprocessor_config.json").write_text(json.dumps(PREPROCESSOR, indent=2) + "\n")
    if work is not None:
        log = [json.loads(line) for line in (work / "log.jsonl").read_text().splitlines()]
        about = circumstances("the examples and the initial weights (seeded)")
        done = {
            "recipe": asdict(recipe), "hours": round(hours_of(log), 2), "machine": about["machine"],
            "commit": about["commit"], "log": log,
        }
        (folder / "training.json").write_text(json.dumps(done, indent=1) + "\n")
    return (folder / "model.safetensors").stat().st_size


def hours_of(log: Sequence[dict[str, float]]) -> float:
    """Return the duration of a training, without work lost by stopping between checkpoints.

    >>> hours_of([{"step": 1800, "seconds_a_step": 1.0}, {"step": 3600, "seconds_a_step": 2.0}])
    1.5
    """
    steps = np.diff([0, *(line["step"] for line in log)])
    return float((steps * [line["seconds_a_step"] for line in log]).sum() / 3600)
