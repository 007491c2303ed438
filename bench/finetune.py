"""Fine-tuning: steps a second and peak memory of tonelake's model, compared with plain loops in PEFT and PyTorch.

The loops: one clip at a time, its windows as a batch, `output_hidden_states` of a HubertModel with LoRA in train mode, each
layer's mean and maximum, a head over their learned weighting; gradients gathered over the clips of a step.  `loop` has the
original code's eager attention, in float32 on a CPU; `autocast` has torch's fused attention, under autocast to bfloat16.
Ours: the same windows of all clips together, in float32 and in the precision that a run chooses by default, and, with stored
frames, from the states of layer k = half the depth.  All use the same samples from memory (decoding is not measured) and
models of MERT-v1-95M's shape with random weights: the figures measure speed, never quality.  Each method runs in a separate
process; methods alternate step by step.

    python -m bench.finetune --rounds 5
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from bench.embed import make_checkpoint
from bench.memory import peak_mb
from bench.report import circumstances, table, write_results

WAYS = {
    "loop": "plain PEFT + PyTorch loop, eager, {plain}", "autocast": "plain PEFT + PyTorch loop, sdpa, bfloat16 (autocast)",
    "float32": "tonelake, from audio, float32",
    "auto": "tonelake, from audio, {auto}", "half": "tonelake, from stored states of layer {k}, {auto}",
}
WINDOW_S, RATE, CLASSES = 5.0, 24_000, 10


def plain_loop(
    checkpoint: Path, clips: np.ndarray, labels: np.ndarray, device: str, autocast: bool
) -> Callable[[], float]:
    """Return a function that takes one step of a plain loop and returns its loss."""
    import torch
    from peft import LoraConfig, get_peft_model
    from torch.nn import functional
    from transformers import HubertModel

    from tonelake.embed.encoders.checkpoint import read_config, read_state
    from tonelake.finetune.model import Head

    config, _ = read_config(checkpoint)
    config._attn_implementation = "sdpa" if autocast else "eager"
    model = HubertModel(config)
    model.load_state_dict(read_state(checkpoint))
    model = get_peft_model(model, LoraConfig(r=16, lora_alpha=32, lora_dropout=0.05, target_modules=["q_proj", "v_proj"]))
    head = Head(config.num_hidden_layers + 1, 2 * config.hidden_size, CLASSES, 256, 0.4)
    model.to(device).train()
    head.to(device).train()
    learns = [p for p in (*model.parameters(), *head.parameters()) if p.requires_grad]
    optimizer = torch.optim.AdamW(learns, lr=1e-4)
    window = round(WINDOW_S * RATE)

    def step() -> float:
        total = 0.0
        optimizer.zero_grad()
        for clip, label in zip(clips, labels, strict=True):
            windows = torch.from_numpy(clip).to(device).reshape(-1, window)
            windows = (windows - windows.mean(1, keepdim=True)) / (windows.var(1, keepdim=True) + 1e-7).sqrt()
            with torch.autocast(device, torch.bfloat16, enabled=autocast or device == "cuda"):
                states = torch.stack(model(windows, output_hidden_states=True).hidden_states).float()
                pooled = torch.cat([states.mean(dim=2).mean(dim=1), states.amax(dim=2).amax(dim=1)], dim=1)[None]
                loss = functional.cross_entropy(head(pooled), torch.tensor([label], device=device)) / len(clips)
            loss.backward()
            total += float(loss.detach())
        torch.nn.utils.clip_grad_norm_(learns, 1.0)
        optimizer.step()
        return total

    return step


def auto_precision(device: str) -> str:
    """Return the precision that a run chooses by default."""
    from tonelake.finetune import FinetuneConfig
    from tonelake.finetune.setup import resolve_precision

    return resolve_precision(FinetuneConfig("kind"), device)


def ours(
    checkpoint: Path, clips: np.ndarray, labels: np.ndarray, device: str, half: bool, precision: str
) -> Callable[[], float]:
    """Return a function that takes one step of our model, from audio or from the states of the middle layer."""
    import torch

    from tonelake.embed import load_encoder
    from tonelake.finetune import FinetuneConfig
    from tonelake.finetune.model import LoraModel

    encoder: Any = load_encoder(str(checkpoint))
    blocks = len(encoder.layers) - 1
    config = replace(
        FinetuneConfig("kind", task="multiclass", window_s=WINDOW_S, above=blocks // 2 if half else 0), precision=precision
    )
    window = round(WINDOW_S * RATE)
    encoder.prepare_training(window, precision, device)
    states = [
        [torch.from_numpy(encoder.hidden_states(part)[blocks // 2]).half().to(device) for part in clip.reshape(-1, window)]
        for clip in clips
    ] if half else []
    model = LoraModel(encoder, config, CLASSES).to(device).train()
    learns = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(learns, lr=1e-4)
    target = torch.from_numpy(labels).to(device)

    def step() -> float:
        optimizer.zero_grad()
        audio = [] if half else [torch.from_numpy(clip).to(device) for clip in clips]
        with torch.autocast(device, torch.bfloat16, enabled=precision == "bfloat16"):
            loss = model(target, audio, states)["loss"]
        loss.backward()
        torch.nn.utils.clip_grad_norm_(learns, 1.0)
        optimizer.step()
        return float(loss.detach())

    return step


def serve(way: str, checkpoint: Path, count: int, seconds: float, device: str) -> None:
    """Take a step for each line of standard input and print its seconds and loss; at the end print the peak memory in MB."""
    import torch

    rng = np.random.default_rng(0)
    clips = rng.standard_normal((count, round(seconds * RATE))).astype(np.float32) * 0.1
    labels = rng.integers(CLASSES, size=count)
    torch.manual_seed(0)
    if way in ("loop", "autocast"):
        step = plain_loop(checkpoint, clips, labels, device, way == "autocast")
    else:
        precision = "float32" if way == "float32" else auto_precision(device)
        step = ours(checkpoint, clips, labels, device, way == "half", precision)
    print("ready", flush=True)
    for _ in sys.stdin:
        began = time.perf_counter()
        loss = step()
        if device == "cuda":
            torch.cuda.synchronize()
        print(json.dumps({"seconds": time.perf_counter() - began, "loss": loss}), flush=True)
    memory = torch.cuda.max_memory_allocated() / 1e6 if device == "cuda" else peak_mb(os.getpid())
    print(json.dumps({"memory_mb": memory}), flush=True)


def measure(checkpoint: Path, rounds: int, count: int, seconds: float, device: str) -> dict[str, dict[str, float]]:
    """Return the median seconds of a step and the peak memory of each method, after one warm-up step."""
    served = {
        way: subprocess.Popen(
            [sys.executable, "-m", "bench.finetune", "--serve", way, "--checkpoint", str(checkpoint), "--clips", str(count),
             "--seconds", str(seconds), "--device", device],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )
        for way in WAYS
    }
    taken: dict[str, list[float]] = {way: [] for way in WAYS}
    for child in served.values():
        assert child.stdout is not None and child.stdout.readline().strip() == "ready"
    for number in range(rounds + 1):
        for way, child in served.items():
            assert child.stdin is not None and child.stdout is not None
            child.stdin.write("step\n")
            child.stdin.flush()
            found = json.loads(child.stdout.readline())
            if number:
                taken[way].append(found["seconds"])
            print(f"{way}: {found['seconds']:.2f} s, loss {found['loss']:.3f}", flush=True)
    result = {}
    for way, child in served.items():
        assert child.stdin is not None and child.stdout is not None
        child.stdin.close()
        memory = json.loads(child.stdout.readline())["memory_mb"]
        child.wait()
        result[way] = {"step_s": statistics.median(taken[way]), "memory_mb": memory}
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="95M", choices=["95M", "330M"])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--clips", type=int, default=2, help="clips in a step")
    parser.add_argument("--seconds", type=float, default=10.0, help="length of a clip, a multiple of 5")
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--serve", choices=list(WAYS), help=argparse.SUPPRESS)
    parser.add_argument("--checkpoint", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.serve:
        serve(given.serve, given.checkpoint, given.clips, given.seconds, given.device)
        return
    with tempfile.TemporaryDirectory() as folder:
        checkpoint = make_checkpoint(Path(folder) / given.model, given.model)
        found = measure(checkpoint, given.rounds, given.clips, given.seconds, given.device)
    half = (12 if given.model == "95M" else 24) // 2
    loop, plain = found["loop"], "bfloat16 (autocast)" if given.device == "cuda" else "float32"
    rows = [
        [
            WAYS[way].format(k=half, plain=plain, auto=auto_precision(given.device)), f"{own['step_s']:.2f}",
            f"{loop['step_s'] / own['step_s']:.2f}", f"{found['autocast']['step_s'] / own['step_s']:.2f}",
            f"{own['memory_mb']:,.0f}", f"{own['memory_mb'] / loop['memory_mb']:.2f}",
        ]
        for way, own in found.items()
    ]
    text = (
        f"A step of {given.clips} clips of {given.seconds:g} s in windows of {WINDOW_S:g} s, forward, backward and AdamW, by a "
        f"model of MERT-v1-{given.model}'s shape, median of {given.rounds}.\n\n"
        + table(["way", "s a step", "steps, × eager loop", "steps, × autocast loop", "peak memory, MB", "× eager loop"], rows)
        + "\nReasons for the difference: the convolutions carry no gradient (in the loop they do, because of train mode), "
        "layers are pooled as they leave their block, and windows of all clips form one batch.  From stored states the "
        "convolutions and the lower half of the blocks are not computed at all: only the work of the upper half remains."
    )
    name = "finetune" if given.device == "cpu" else f"finetune-{given.device}"
    write_results(name, "Fine-tuning", text, circumstances("the weights, the audio and the labels; seeded"), {
        "steps_vs_autocast": found["autocast"]["step_s"] / found["auto"]["step_s"],
        "steps_vs_plain": loop["step_s"] / found["auto"]["step_s"],
        "steps_vs_plain_float32": loop["step_s"] / found["float32"]["step_s"],
        "memory_vs_plain": found["auto"]["memory_mb"] / loop["memory_mb"],
        "from_frames_half": found["auto"]["step_s"] / found["half"]["step_s"],
        "memory_from_frames_half": found["half"]["memory_mb"] / loop["memory_mb"],
    }, measured=found)


if __name__ == "__main__":
    main()
