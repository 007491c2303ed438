"""Encoders: seconds of audio per second of each encoder, compared with its published forward pass in plain PyTorch.

Each encoder is one entry of `BENCHES`.  Methods alternate round by round in one process, so that drifting machine speed affects
all equally.  Ours computes as `tonelake embed` does, several clips at once on a thread each where the encoder asks for it; the
plain ways take one clip after another on all threads.  All start at samples in memory: nothing is decoded or stored.

    python -m bench.encoders --encoders musicnn --rounds 5
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from bench.memory import peak_mb
from bench.report import circumstances, table, write_results

SECONDS = 30.0                           # of a clip
SIDE = 2048                              # of the square matrices that give the processor's peak


@dataclass(frozen=True, kw_only=True)
class Bench:
    """The ways of one encoder, each of which encodes clips; and what is known of its work."""

    ways: dict[str, Callable[[list[np.ndarray]], list[np.ndarray]]]          # clips -> one vector each, to compare
    precisions: dict[str, str]           # by way
    baseline: tuple[str, ...]            # ways of plain PyTorch, the first in float32
    clips: dict[str, int]                # in a round, by way
    gflop: float                         # of the published forward pass, for a second of audio
    about: str                           # the weights, and what else has to be said


def bench_musicnn() -> Bench:
    """Both networks.  With the published weights if they are here, else with random ones, none of whose filters is constant."""
    import torch

    from bench.plain_musicnn import plain_network
    from tonelake.embed.encoders.musicnn.encoder import MusicnnEncoder, join
    from tonelake.embed.encoders.musicnn.mel import log_mel
    from tonelake.embed.encoders.musicnn.network import PATCH, expected_shapes
    from tonelake.embed.encoders.musicnn.weights import WheelWeights, read_networks
    from tonelake.embed.kernels.threads import single_threads

    weights = WheelWeights()
    folder = weights.folder(download=False) if weights.present() else random_musicnn()
    exact = MusicnnEncoder(folder)
    networks = read_networks(folder)

    def plain(precision: str) -> Callable[[list[np.ndarray]], list[np.ndarray]]:
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

    def ours(encoder: MusicnnEncoder) -> Callable[[list[np.ndarray]], list[np.ndarray]]:
        def run(clips: list[np.ndarray]) -> list[np.ndarray]:
            with single_threads(encoder.clips_in_parallel, "encode") as pool:
                return [vectors.mean[-1][0] for vectors in pool.map(lambda clip: encoder.encode(clip[None]), clips)]

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
            "tonelake, float32": ours(exact), "tonelake, bfloat16": ours(exact.at("bfloat16")),
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
    from pathlib import Path

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


BENCHES: dict[str, Callable[[], Bench]] = {"musicnn": bench_musicnn}


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
    from tonelake.embed.encoders.table import BY_NAME
    from tonelake.embed.sample import sample_music

    bench = BENCHES[name]()
    music = sample_music(BY_NAME[name].sample_rate, SECONDS)
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
    fastest = min(median[way] for way in bench.baseline)
    rows, ratios, exact = [], {}, vectors[bench.baseline[0]]
    for way, taken in median.items():
        rate = bench.gflop * SECONDS / taken
        precision = bench.precisions.get(way, "float32")
        cosine = float(vectors[way] @ exact / np.linalg.norm(vectors[way]) / np.linalg.norm(exact))
        rows.append([
            way, f"{SECONDS / taken:.1f}", f"{median[bench.baseline[0]] / taken:.2f}", f"{fastest / taken:.2f}", f"{rate:.0f}",
            f"{100 * rate / peak[precision]:.0f} %", f"{cosine:.6f}",
        ])
        if way not in bench.baseline:
            ratios |= {
                f"{name}_{precision}": fastest / taken, f"{name}_{precision}_vs_float32": median[bench.baseline[0]] / taken,
                f"{name}_{precision}_share_of_peak": rate / peak[precision],
                f"{name}_{precision}_audio_s_per_s": SECONDS / taken,
            }
    header = ["way", "audio s/s", "× plain float32", "× fastest plain", "GFLOP/s", "of the peak", "cosine to plain float32"]
    text = (
        f"## {name}\n\n{bench.about}\n\n{table(header, rows)}\n"
        f"Published forward pass: {bench.gflop:.2f} GFLOP a second of audio; GFLOP/s count all of it, whatever is left out. "
        f"Matrix products between the rounds: {peak['float32']:.0f} GFLOP/s in float32, {peak['bfloat16']:.0f} in bfloat16. "
        f"Peak memory of the process: {peak_mb(os.getpid()):,.0f} MB.\n"
    )
    return text, ratios


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--encoders", nargs="+", choices=list(BENCHES), default=list(BENCHES))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--print", action="store_true", help="Only print the tables; leave the results as they are.")
    arguments = parser.parse_args()
    about = circumstances("the audio, which is synthetic, and weights where a table says so; speed only, never quality")
    texts, ratios = [], {}
    for name in arguments.encoders:
        text, measured = measure(name, arguments.rounds)
        texts.append(text)
        ratios |= measured
    if arguments.print:
        print("\n".join(texts))
        return
    write_results("encoders", "Encoders against their published forward passes", "\n".join(texts), about, ratios)
    print("bench/results/encoders.md and .json are written")


if __name__ == "__main__":
    main()
