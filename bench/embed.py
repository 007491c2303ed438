"""Embedding: seconds of audio per second and peak memory of `tonelake embed`, compared with a plain loop.

The loop: one clip at a time, librosa.load, a HubertModel with the original code's eager attention, float32,
`output_hidden_states`, means over time.  All methods embed the same files with models of MERT's exact shapes and random
weights: the figures measure speed, never quality.  Each method runs in a separate process; peak memory is that of the process
and its decoder.  Methods alternate round by round, so that drifting machine speed affects all equally.

    python -m bench.embed --models 95M 330M --rounds 3
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from bench.memory import PeakMemory
from bench.report import circumstances, table, write_results

CONFIGS = Path(__file__).parent.parent / "tests" / "data" / "mert" / "hub_configs"
CLIPS = {"95M": 6, "330M": 2}            # clips of 30 s in each round
SECONDS = 30.0
READ_ROWS, READ_DIM = 100_000, 768


@dataclass(frozen=True)
class Way:
    """One method of embedding."""

    model: str                           # 95M or 330M
    kind: str                            # loop, float32 or auto
    window_s: float

    def __str__(self) -> str:
        name = "plain loop, float32" if self.kind == "loop" else f"tonelake, {self.kind}"
        return f"{name}, {self.window_s:g} s windows"


def make_checkpoint(folder: Path, model: str) -> Path:
    """Write a checkpoint with a MERT model's shape and seeded random weights, in the hub's format."""
    import torch
    from safetensors.torch import save_file
    from transformers import HubertModel

    from tonelake.embed.encoders.checkpoint import read_config

    torch.manual_seed(0)
    config, _ = read_config(CONFIGS / model)
    folder.mkdir()
    for name in ("config.json", "preprocessor_config.json"):
        (folder / name).write_text((CONFIGS / model / name).read_text())
    save_file({k: v.contiguous() for k, v in HubertModel(config).state_dict().items()}, folder / "model.safetensors")
    return folder


def make_music(folder: Path, clips: int) -> None:
    """Write stereo FLAC files at 44.1 kHz."""
    import soundfile as sf

    folder.mkdir()
    for seed in range(clips):
        rng = np.random.default_rng(seed)
        noise = rng.standard_normal((round(SECONDS * 44_100), 2)).cumsum(axis=0)
        sf.write(folder / f"{seed}.flac", 0.5 * noise / np.abs(noise).max(), 44_100)


# -- the methods, each in a separate process


def plain_loop(checkpoint: Path, music: Path, window_s: float, device: str) -> Callable[[], tuple[float, np.ndarray]]:
    """The plain loop."""
    import librosa
    import torch
    from safetensors.torch import load_file
    from transformers import HubertModel

    from tonelake.embed.encoders.checkpoint import read_config

    config, _ = read_config(checkpoint)
    config._attn_implementation = "eager"                # as in MERT's own code
    config.tie_last_hidden_states = True
    model = HubertModel(config).eval()
    model.load_state_dict(load_file(checkpoint / "model.safetensors"))
    model.to(device)
    window = round(window_s * 24_000)

    def run() -> tuple[float, np.ndarray]:
        started = time.perf_counter()
        vectors = []
        for path in sorted(music.iterdir()):
            wave, _ = librosa.load(path, sr=24_000, mono=True)
            means = []
            for number in range(max(1, len(wave) // window)):        # the remainder is dropped
                begin = number * window
                part = wave[begin : begin + window]
                part = (part - part.mean()) / np.sqrt(part.var() + 1e-7)
                with torch.no_grad():
                    states = model(torch.from_numpy(part)[None].to(device), output_hidden_states=True).hidden_states
                means.append(torch.stack(states).mean(dim=2)[:, 0].cpu().numpy())
            vectors.append(np.mean(means, axis=0))
        return time.perf_counter() - started, np.stack(vectors)      # (clip, layer, dim)

    return run


def our_way(
    checkpoint: Path, music: Path, lakes: Path, precision: str, window_s: float, device: str
) -> Callable[[], tuple[float, np.ndarray]]:
    """`tonelake embed` into a fresh lake each time, including decoding and storing, without ingest."""
    from dataclasses import replace

    from tonelake import ingest
    from tonelake.embed import EmbedSettings, embed_clips, open_space
    from tonelake.store import Lake

    rounds = iter(range(1_000))
    known: list[Any] = []

    def run() -> tuple[float, np.ndarray]:
        lake = Lake(lakes / f"{precision}-{window_s:g}-{next(rounds)}")
        ingest.ingest_folder(lake, music, seconds=None)
        if not known:
            settings = EmbedSettings(
                str(checkpoint), space="bench", window_s=window_s, precision=precision, device=device
            )
            known.append(open_space(lake, settings))
        space, encoder = known[0]
        lake.spaces.make(replace(space))
        started = time.perf_counter()
        embed_clips(lake, space, encoder, ingest.read_clips)
        seconds = time.perf_counter() - started
        ids = lake.clips.read(["clip_id", "track"]).sort("track")["clip_id"].to_list()
        vectors = lake.vectors(space)
        return seconds, np.stack([vectors.take(ids, layer).vectors for layer in range(len(space.layers))], axis=1)

    return run


def be_way(arguments: argparse.Namespace) -> None:
    """Process of one method: run a round for each line of standard input, then print times and memory as JSON."""
    home, model, kind = Path(arguments.home), arguments.models[0], arguments.way
    checkpoint, music = home / f"MERT-{model}", home / f"music-{model}"
    if kind == "loop":
        run = plain_loop(checkpoint, music, arguments.window, arguments.device)
    else:
        run = our_way(checkpoint, music, home / f"lakes-{model}", kind, arguments.window, arguments.device)
    memory = PeakMemory()
    for _ in sys.stdin:
        seconds, vectors = run()
        np.save(home / f"{model}-{kind}-{arguments.window:g}.npy", vectors)
        print(json.dumps({"seconds": seconds, "peak_mb": memory.mb}), flush=True)


# -- limits


def matmul_gflops(dtype: str, device: str, rounds: int = 3) -> float:
    """Return the FLOP/s that matrix products reach in a precision, for the best of several shapes like the model's."""
    import torch

    best = 0.0
    for rows, inner, columns in ((2048, 2048, 2048), (4096, 1024, 4096), (2249, 768, 3072)):
        a = torch.randn(rows, inner, device=device).to(getattr(torch, dtype))
        b = torch.randn(inner, columns, device=device).to(getattr(torch, dtype))
        repeat = 3 if device == "cpu" else 200
        for _ in range(rounds):
            started = time.perf_counter()
            for _ in range(repeat):
                c = a @ b
            float(c[0, 0])                                           # waits for an accelerator
            best = max(best, repeat * 2 * rows * inner * columns / (time.perf_counter() - started) / 1e9)
    return best


def count_gflop(model: str, window_s: float) -> float:
    """Return the GFLOP of the forward pass over 30 s in windows of this length, counted by operation without computing."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode
    from transformers import HubertModel

    from tonelake.embed.encoders.checkpoint import read_config

    config, _ = read_config(CONFIGS / model)
    config._attn_implementation = "eager"
    with torch.device("meta"):
        network = HubertModel(config).eval()
        batch = torch.empty(round(SECONDS / window_s), round(window_s * 24_000))
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        network(batch)
    return counter.get_total_flops() / 1e9


def read_layer() -> dict[str, float]:
    """Return ms to read one layer of 100,000 clips from a lake, and by `np.fromfile` the same bytes; alternating, warm."""
    from tonelake.embed.encoders.spectral import SpectralEncoder
    from tonelake.embed.settings import describe_space
    from tonelake.store import Lake

    with tempfile.TemporaryDirectory() as folder:
        lake = Lake(Path(folder) / "lake")
        lake.clips.add(made_up_clips(READ_ROWS))
        shape: Any = SpectralEncoder()
        shape.layers, shape.dims = ("0", "1", "2"), (READ_DIM,) * 3
        vectors = lake.vectors(lake.spaces.make(describe_space(shape, "bench", 30.0)))
        ids, rng = lake.clips.ids().to_list(), np.random.default_rng(0)
        for start in range(0, READ_ROWS, 5_000):
            layers = [rng.standard_normal((5_000, READ_DIM), dtype=np.float32) for _ in range(3)]
            vectors.add(ids[start : start + 5_000], layers, layers, [1] * 5_000)
        vectors.table.compact()
        plain = Path(folder) / "layer.bin"
        vectors.layer(1, dtype="float16").vectors.tofile(plain)
        scan = vectors.table.dataset()
        ways: dict[str, Callable[[], Any]] = {
            "np.fromfile": lambda: np.fromfile(plain, np.float16),
            "tonelake, float16": lambda: vectors.layer(1, dtype="float16"),
            "tonelake, float32": lambda: vectors.layer(1),
            "Lance scan to Arrow": lambda: scan.to_table(columns=["mean_01"]),
        }
        taken: dict[str, list[float]] = {name: [] for name in ways}
        for number in range(22):
            for name, way in ways.items():
                started = time.perf_counter()
                way()
                if number > 1:
                    taken[name].append(1000 * (time.perf_counter() - started))
        return {name: statistics.median(times) for name, times in taken.items()}


def made_up_clips(count: int) -> Any:
    """Return rows of clips without audio."""
    import polars as pl

    number = pl.int_range(count, eager=True)
    return pl.DataFrame({
        "clip_id": number.map_elements(lambda n: f"{n:020x}", pl.String), "track": (number // 10).cast(pl.String),
        "source": "made:" + (number // 10).cast(pl.String), "digest": "00", "start_s": (number % 10) * 30.0,
        "duration_s": 30.0, "cut": "30s",
    }, strict=False)


# -- running


def measure(model: str, home: Path, rounds: int, device: str) -> dict[Way, dict[str, Any]]:
    """Run all methods for one model; return median seconds, peak memory and vectors."""
    make_checkpoint(home / f"MERT-{model}", model)
    make_music(home / f"music-{model}", CLIPS[model])
    ways = [Way(model, kind, window_s) for window_s in (30.0, 5.0) for kind in ("loop", "float32", "auto")]
    children = {way: start(way, home, device) for way in ways}
    found: dict[Way, dict[str, Any]] = {way: {"seconds": []} for way in ways}
    for number in range(rounds + 1):     # the first round is a warm-up
        for way, child in children.items():
            assert child.stdin is not None and child.stdout is not None
            child.stdin.write("go\n")
            child.stdin.flush()
            reply = json.loads(child.stdout.readline())
            found[way]["peak_mb"] = reply["peak_mb"]
            if number:
                found[way]["seconds"].append(reply["seconds"])
        print(f"{model}: round {number} of {rounds}", file=sys.stderr)
    for way, child in children.items():
        child.communicate()
        found[way]["median"] = statistics.median(found[way]["seconds"])
        found[way]["vectors"] = np.load(home / f"{model}-{way.kind}-{way.window_s:g}.npy")
    return found


def start(way: Way, home: Path, device: str) -> subprocess.Popen[str]:
    command = [
        sys.executable, "-m", "bench.embed", "--way", way.kind, "--models", way.model, "--window", str(way.window_s),
        "--home", str(home), "--device", device,
    ]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def compare(model: str, found: dict[Way, dict[str, Any]], peaks: dict[str, float], auto: str) -> tuple[str, dict[str, float]]:
    """Return a Markdown table and the ratios."""
    rows, ratios = [], {}
    audio_s = CLIPS[model] * SECONDS
    for way, result in found.items():
        base = found[Way(model, "loop", way.window_s)]
        ratio, memory = base["median"] / result["median"], result["peak_mb"] / base["peak_mb"]
        rate = audio_s / result["median"] * count_gflop(model, way.window_s) / SECONDS
        precision = auto if way.kind == "auto" else "float32"
        a, b = result["vectors"], base["vectors"]
        cosine = ((a * b).sum(-1) / np.linalg.norm(a, axis=-1) / np.linalg.norm(b, axis=-1)).min()
        rows.append([
            str(way) + (f" ({auto})" if way.kind == "auto" else ""), f"{audio_s / result['median']:.2f}", f"{ratio:.2f}",
            f"{rate:.0f}", f"{100 * rate / peaks[precision]:.0f} %", f"{result['peak_mb']:,.0f}", f"{cosine:.5f}",
        ])
        if way.kind != "loop":
            ratios[f"{way.kind}_{way.window_s:g}s"] = ratio
            ratios[f"memory_{way.kind}_{way.window_s:g}s"] = memory
    header = ["way", "audio s/s", "× loop", "GFLOP/s", "of the peak", "peak memory, MB", "worst cosine to the loop"]
    return f"## MERT-v1-{model}, {CLIPS[model]} clips of 30 s a round\n\n{table(header, rows)}", ratios


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", nargs="+", choices=list(CLIPS), default=list(CLIPS))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--way", help=argparse.SUPPRESS)
    parser.add_argument("--window", type=float, help=argparse.SUPPRESS)
    parser.add_argument("--home", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.way:
        be_way(arguments)
        return
    about = circumstances("the weights of both models and the audio (seeded); speed and memory only, never quality")
    texts, ratios, counted = [], {}, {}
    with tempfile.TemporaryDirectory() as folder:
        for model in arguments.models:
            found = measure(model, Path(folder), arguments.rounds, arguments.device)
            peaks = {dtype: matmul_gflops(dtype, arguments.device) for dtype in ("float32", "bfloat16")}
            text, measured = compare(model, found, peaks, precision_of(Path(folder) / f"lakes-{model}"))
            counted[model] = {f"{w:g}s": round(count_gflop(model, w)) for w in (30.0, 5.0)}
            texts.append(
                f"{text}\nForward pass over 30 s, counted: {counted[model]['30s']} GFLOP in one window, "
                f"{counted[model]['5s']} in windows of 5 s. Matrix products on this machine, measured after the rounds: "
                f"{peaks['float32']:.0f} GFLOP/s in float32, {peaks['bfloat16']:.0f} in bfloat16.\n"
            )
            ratios |= {(key if model == "95M" else f"{key}_{model}"): value for key, value in measured.items()}
    reading = read_layer()
    ratios["read_layer_vs_fromfile"] = reading["np.fromfile"] / reading["tonelake, float16"]
    if "memory_auto_30s" in ratios:
        ratios["memory_30s"] = ratios["memory_auto_30s"]
    size = READ_ROWS * READ_DIM * 2
    rows = [[name, f"{ms:.1f}", f"{size / ms / 1e6:.1f}", f"{reading['np.fromfile'] / ms:.2f}"] for name, ms in reading.items()]
    texts.append(
        f"## Reading one layer of {READ_ROWS:,} clips ({size / 1e6:.0f} MB of float16), warm\n\n"
        + table(["way", "ms", "GB/s", "× np.fromfile"], rows)
        + "\nThe limit is memory bandwidth: each byte is copied once from the disk cache. float32 writes three times as much.\n"
    )
    name = "embed" if arguments.device == "cpu" else "embed_cuda"
    write_results(name, "Embedding against a plain loop", LIMITS + "\n".join(texts), about, ratios, gflop=counted)
    print(f"bench/results/{name}.md and .json are written")


LIMITS = """
Times of `tonelake embed` include decoding and storing, those of the loop include decoding. Peak memory is that of the whole
process, including loading and measuring, and of its decoder. Memory bandwidth is not the limit: the weights are read once a
window (190 MB in bfloat16, 380 MB in float32 for 95M: under 3 % of the time at 10 GB/s), the convolutions' intermediates stay
in the cache, and 40 kB (95M) or 100 kB (330M) are stored for a clip.

"""


def precision_of(lakes: Path) -> str:
    """Return the precision that `auto` chose."""
    from tonelake.store import Lake

    return Lake(next(lakes.glob("auto-*"))).spaces.get("bench").precision


if __name__ == "__main__":
    main()
