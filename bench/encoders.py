"""Encoders: seconds of audio per second of each encoder, compared with its published forward pass in plain PyTorch.

Each encoder is one entry of `BENCHES`.  Methods alternate round by round in one process, so that drifting machine speed affects
all equally.  Ours computes as `tonelake embed` does, several clips at once on a thread each where the encoder asks for it; the
plain ways take one clip after another on all threads.  All start at samples in memory: nothing is decoded or stored.

    python -m bench.encoders --encoders musicnn --rounds 5
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np

from bench.conformers import bench_mert2, bench_muq
from bench.memory import peak_mb
from bench.report import RESULTS, circumstances, table, write_results
from bench.ways import Bench, Way, as_embedded

ROUNDS = 2                               # of encoders whose figures vary little
SIDE = 2048                              # of the square matrices that give the processor's peak


def bench_musicnn() -> Bench:
    """Both networks.  With the published weights if they are here, else with random ones, none of whose filters is constant."""
    import torch

    from bench.plain_musicnn import plain_network
    from tonelake.embed.encoders.musicnn.encoder import MusicnnEncoder, join
    from tonelake.embed.encoders.musicnn.mel import log_mel
    from tonelake.embed.encoders.musicnn.network import PATCH, expected_shapes
    from tonelake.embed.encoders.musicnn.weights import WheelWeights, read_networks

    weights = WheelWeights()
    folder = weights.folder(download=False) if weights.present() else random_musicnn()
    exact = MusicnnEncoder(folder)
    networks = read_networks(folder)

    def plain(precision: str) -> Way:
        def run(clips: list[np.ndarray]) -> list[np.ndarray]:
            found = []
            for clip in clips:
                count = len(clip) // 256 // PATCH
                mel = log_mel(torch.from_numpy(clip[None]), count * PATCH)[0].unflatten(0, (count, PATCH))
                with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16, enabled=precision == "bfloat16"):
                    vectors = join([plain_network(tensors, mel)[1].float() for tensors in networks.values()])
                found.append(vectors.mean(dim=0).numpy())
            return found

        return run

    frames, front = 62.5, 0
    for name, shape in expected_shapes().items():
        if name.endswith("kernel") and len(shape) == 4:
            height, width, _, filters = shape
            positions = 97 - width if height == 7 and width < 96 and filters > 64 else 96 if width == 1 else 1
            front += 2 * height * width * filters * positions
    live = [len(network.live) for network in exact._networks]
    parallel = exact.clips_in_parallel
    return Bench(
        ways={
            "plain, float32": plain("float32"), "plain, autocast to bfloat16": plain("bfloat16"),
            "tonelake, float32": as_embedded(exact), "tonelake, bfloat16": as_embedded(exact.at("bfloat16")),
        },
        precisions={"plain, autocast to bfloat16": "bfloat16", "tonelake, bfloat16": "bfloat16"},
        baseline=("plain, float32", "plain, autocast to bfloat16"),
        clips={
            "plain, float32": 1, "plain, autocast to bfloat16": 1, "tonelake, float32": 2 * parallel,
            "tonelake, bfloat16": 4 * parallel,
        },
        gflop=len(networks) * front * frames / 1e9,
        about=(
            f"Weights: {'published' if weights.present() else 'random'}. Of 753 outputs a frame and network, {live[0]} and "
            f"{live[1]} are computed; the others do not depend on the sound."
        ),
    )


def random_musicnn() -> Any:
    """A folder with random weights of musicnn's shapes."""
    import tempfile

    from safetensors.numpy import save_file

    from tonelake.embed.encoders.musicnn.network import expected_shapes
    from tonelake.embed.encoders.musicnn.weights import NETWORKS, file_name

    folder, rng = Path(tempfile.mkdtemp()), np.random.default_rng(0)
    for network in NETWORKS:
        tensors = {
            name: rng.uniform(0.5, 1.5, shape) if name.endswith(("gamma", "variance"))
            else rng.standard_normal(shape) / np.sqrt(max(1.0, float(np.prod(shape[:-1]))))
            for name, shape in expected_shapes().items()
        }
        save_file({name: tensor.astype(np.float32) for name, tensor in tensors.items()}, folder / file_name(network))
    return folder


def bench_clap() -> Bench:
    """The audio side at the sizes of larger_clap_general.  transformers computes it in both ways."""
    from unittest.mock import patch

    import torch
    from transformers import ClapConfig, ClapModel

    from tonelake.embed.encoders.clap.checkpoint import FrontEnd
    from tonelake.embed.encoders.clap.encoder import ClapEncoder

    torch.manual_seed(0)
    audio = {"patch_embeds_hidden_size": 128, "hidden_size": 1_024, "depths": [2, 2, 12, 2]}
    model = ClapModel(ClapConfig(audio_config=audio)).eval().requires_grad_(False)
    module = ClapEncoder.__module__
    side = patch(f"{module}.read_side", return_value=(model, "random"))
    front = patch(f"{module}.read_front_end", return_value=FrontEnd())
    with side, front:
        exact = ClapEncoder(Path())
    log_mel = exact.model.log_mel

    def plain(precision: str) -> Way:
        def run(clips: list[np.ndarray]) -> list[np.ndarray]:
            found = []
            for clip in clips:
                with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16, enabled=precision == "bfloat16"):
                    parts = torch.from_numpy(clip.reshape(-1, FrontEnd().samples))
                    joint = model.audio_projection(model.audio_model(input_features=log_mel(parts)).pooler_output).float()
                found.append(torch.nn.functional.normalize(joint, dim=-1).mean(dim=0).numpy())
            return found
        return run

    ways = {
        "plain, float32": plain("float32"), "plain, autocast to bfloat16": plain("bfloat16"),
        "tonelake, float32": as_embedded(exact), "tonelake, bfloat16": as_embedded(exact.at("bfloat16")),
    }
    return Bench(
        ways=ways, precisions={way: "bfloat16" for way in ways if "bfloat16" in way}, baseline=tuple(ways)[:2],
        clips=dict.fromkeys(ways, 1) | {"tonelake, bfloat16": torch.get_num_threads()}, gflop=None, rounds=ROUNDS,
        about="Random weights of the sizes of larger_clap_general; clips of 30 s, three parts of 10 s.",
    )


def bench_alone(name: str) -> Bench:
    """An encoder that comes with the package, without a baseline."""
    from tonelake.embed import load_encoder

    exact = load_encoder(name)
    ways = {"tonelake, float32": as_embedded(exact)}
    if "bfloat16" in exact.precisions:
        ways["tonelake, bfloat16"] = as_embedded(exact.at("bfloat16"))
    return Bench(
        ways=ways, precisions={"tonelake, bfloat16": "bfloat16"}, baseline=(), clips=dict.fromkeys(ways, 4), gflop=None,
        rounds=ROUNDS, about="Weights of the package; nothing is published to compare with. `bench.embed` compares MERT-v1.",
    )


BENCHES: dict[str, Callable[[], Bench]] = {
    "spectral": lambda: bench_alone("spectral"), "small": lambda: bench_alone("small"), "musicnn": bench_musicnn,
    "clap": bench_clap, "muq": bench_muq, "mert2-30s": bench_mert2,
}


def matrix_peak(precision: str) -> float:
    """GFLOP/s of square matrix products on all threads, the best of five."""
    import torch

    factor = torch.randn(SIDE, SIDE).to(getattr(torch, precision))
    out, best = torch.empty_like(factor), float("inf")
    for _ in range(5):
        started = time.perf_counter()
        torch.mm(factor, factor, out=out)
        best = min(best, time.perf_counter() - started)
    return 2 * SIDE**3 / best / 1e9


def measure(name: str, rounds: int) -> tuple[str, dict[str, float]]:
    """A Markdown section about one encoder, and its ratios."""
    from tonelake.embed.encoders.table import ALIASES, BY_NAME
    from tonelake.embed.sample import sample_music

    bench = BENCHES[name]()
    music = sample_music(BY_NAME[ALIASES.get(name, name)].sample_rate, bench.seconds)
    rounds = min(rounds, bench.rounds or rounds)
    seconds: dict[str, list[float]] = {way: [] for way in bench.ways}
    peaks: dict[str, list[float]] = {"float32": [], "bfloat16": []}
    vectors = {}
    for number in range(rounds + 1):     # the first round is a warm-up
        for way, encode in bench.ways.items():
            clips = [music] * bench.clips[way]
            started = time.perf_counter()
            vectors[way] = encode(clips)[0]
            if number:
                seconds[way].append((time.perf_counter() - started) / len(clips))
        for precision, found in peaks.items():
            found.append(matrix_peak(precision))
        print(f"{name}: round {number} of {rounds}", file=sys.stderr)
    median = {way: statistics.median(found) for way, found in seconds.items()}
    peak = {precision: statistics.median(found) for precision, found in peaks.items()}
    first = next(iter(median))           # in float32
    fastest = min((median[way] for way in bench.baseline), default=None)
    rows, ratios, exact = [], {}, vectors[first]
    for way, taken in median.items():
        precision = bench.precisions.get(way, "float32")
        cosine = float(vectors[way] @ exact / np.linalg.norm(vectors[way]) / np.linalg.norm(exact))
        found = {"audio_s_per_s": bench.seconds / taken}
        if fastest is not None:
            found |= {"": fastest / taken, "vs_float32": median[first] / taken}
        if bench.gflop is not None:
            found["share_of_peak"] = bench.gflop * bench.seconds / taken / peak[precision]
        rows.append([
            way, f"{found['audio_s_per_s']:.1f}", f"{median[first] / taken:.2f}", f"{found['']:.2f}" if "" in found else "–",
            f"{100 * found['share_of_peak']:.0f} %" if "share_of_peak" in found else "–", f"{cosine:.6f}",
        ])
        if way not in bench.baseline:
            ratios |= {"_".join(filter(None, (name, precision, figure))): value for figure, value in found.items()}
    mine = [taken for way, taken in median.items() if way not in bench.baseline]
    if fastest is not None:
        ratios[f"{name}_auto"] = fastest / min(mine)
    header = ["way", "audio s/s", "× first way", "× fastest plain", "of the peak", "cosine to first way"]
    work = "" if bench.gflop is None else (
        f"Published forward pass: {bench.gflop:.2f} GFLOP a second of audio; the share of the peak counts all of it, whatever "
        "is left out. "
    )
    text = (
        f"## {name}\n\n{bench.about}\n\n{table(header, rows)}\n{work}"
        f"Matrix products between the rounds: {peak['float32']:.0f} GFLOP/s in float32, {peak['bfloat16']:.0f} in bfloat16. "
        f"Peak memory of the process, all ways together: {peak_mb(os.getpid()):,.0f} MB.\n"
    )
    return text, ratios


def kept_results() -> tuple[dict[str, str], dict[str, float]]:
    """Sections by encoder and ratios of earlier runs, which a run of some encoders leaves as they are."""
    report, figures = RESULTS / "encoders.md", RESULTS / "encoders.json"
    if not (report.exists() and figures.exists()):
        return {}, {}
    sections = report.read_text(encoding="utf-8").split("\n## ")[1:]
    texts = {section.partition("\n")[0]: f"## {section.rstrip()}\n" for section in sections}
    return texts, json.loads(figures.read_text())["ratios"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--encoders", nargs="+", choices=list(BENCHES), default=list(BENCHES))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--print", action="store_true", help="Only print the tables; leave the results as they are.")
    arguments = parser.parse_args()
    about = circumstances("the audio, which is synthetic, and weights where a table says so; speed only, never quality")
    texts, ratios = ({}, {}) if arguments.print else kept_results()
    for name in arguments.encoders:
        with ProcessPoolExecutor(1, get_context("spawn")) as process:            # so that each has its own peak of memory
            text, measured = process.submit(measure, name, arguments.rounds).result()
        texts[name] = text
        ratios |= measured
        if not arguments.print:          # after each encoder, so that an interrupted run leaves something
            title = "Encoders against their published forward passes"
            write_results("encoders", title, "\n".join(texts.values()), about, ratios)
    print("\n".join(texts.values()) if arguments.print else "bench/results/encoders.md and .json are written")


if __name__ == "__main__":
    main()
