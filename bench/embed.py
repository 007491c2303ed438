"""Embedding: seconds of audio per second and peak memory of `tonelake embed`, compared with three plain loops and OpenVINO.

The loops take one clip at a time: librosa.load, a HubertModel with `output_hidden_states`, means over time.

    eager      the original code's attention, float32
    sdpa       torch's fused attention, float32
    autocast   torch's fused attention, under autocast to bfloat16

`openvino` is the same model converted, with all clips in flight (`bench.openvino_way`; needs `pip install openvino`).

Ours: `float32`, `auto` (the precision and kernels that are chosen here), and `blockwise` (bfloat16 with the kernels of earlier
releases: attention in blocks, one clip at a time).  All methods embed the same files with models of MERT's exact shapes and
random weights: the figures measure speed, never quality.  Methods alternate round by round, so that drifting machine speed
affects all equally.  The loops take one clip a round, which is scaled, because they take one after another anyway.  They share
a process and its weights; every other method has a process of its own, so that its kernels are prepared once, in the warm-up.
Peak memory is that of a process and its decoders.  All processes of 330M together take 20 GB.

    python -m bench.embed --models 95M 330M --rounds 3
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
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from bench import openvino_way
from bench.memory import PeakMemory
from bench.reading import reading_section
from bench.report import circumstances, table, write_results

CONFIGS = Path(__file__).parent.parent / "tests" / "data" / "mert" / "hub_configs"
CLIPS = {"95M": 4, "330M": 2}            # clips of 30 s in each round
LOOP_CLIPS = 1                           # of them for the loops
SECONDS = 30.0
WINDOWS_S = (30.0, 5.0)
PROCESSES = {
    "loops": ("eager", "sdpa", "autocast"), "float32": ("float32",), "auto": ("auto",), "blockwise": ("blockwise",),
}
LOOPS = PROCESSES["loops"]
OPENVINO = "openvino"                    # process and kind, where it is installed
NAMES = {
    "eager": "loop, eager attention, float32", "sdpa": "loop, sdpa, float32", "autocast": "loop, sdpa, autocast to bfloat16",
    OPENVINO: "OpenVINO", "float32": "tonelake, float32", "auto": "tonelake, auto",
    "blockwise": "tonelake, bfloat16, blockwise kernels",
}
BLOCKWISE = "attention=blocks,tile=128,clips=together,linear=torch,positions=torch"


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


# -- the methods, each in one of the processes


Ways = dict[str, Callable[[], tuple[float, np.ndarray]]]             # each returns seconds and (clip, layer, dim) vectors


def plain_loops(checkpoint: Path, music: Path, window_s: float, device: str) -> Ways:
    """The plain loops, by name; their models share weights."""
    import copy

    import librosa
    import torch
    from safetensors.torch import load_file
    from transformers import HubertModel

    from tonelake.embed.encoders.checkpoint import read_config

    state = load_file(checkpoint / "model.safetensors")
    window = round(window_s * 24_000)

    def loop(name: str) -> Callable[[], tuple[float, np.ndarray]]:
        config = copy.deepcopy(read_config(checkpoint)[0])
        config._attn_implementation = "eager" if name == "eager" else "sdpa"             # MERT's own code has eager
        config.tie_last_hidden_states = True
        with torch.device("meta"):
            model = HubertModel(config).eval()
        model.load_state_dict(state, assign=True)
        model.to(device)

        def run() -> tuple[float, np.ndarray]:
            started = time.perf_counter()
            vectors = []
            for path in sorted(music.iterdir())[:LOOP_CLIPS]:
                wave, _ = librosa.load(path, sr=24_000, mono=True)
                means = []
                for number in range(max(1, len(wave) // window)):    # the remainder is dropped
                    part = wave[number * window : (number + 1) * window]
                    part = (part - part.mean()) / np.sqrt(part.var() + 1e-7)
                    with torch.no_grad(), torch.autocast(device, torch.bfloat16, enabled=name == "autocast"):
                        states = model(torch.from_numpy(part)[None].to(device), output_hidden_states=True).hidden_states
                    means.append(torch.stack([layer.float() for layer in states]).mean(dim=2)[:, 0].cpu().numpy())
                vectors.append(np.mean(means, axis=0))
            return time.perf_counter() - started, np.stack(vectors)  # (clip, layer, dim)

        return run

    return {name: loop(name) for name in LOOPS}


def our_ways(
    checkpoint: Path, music: Path, lakes: Path, kinds: tuple[str, ...], window_s: float, device: str
) -> Ways:
    """`tonelake embed` into a fresh lake each time, including decoding and storing, without ingest; by name."""
    from tonelake import ingest
    from tonelake.embed import EmbedSettings, embed_clips, open_space
    from tonelake.store import Lake

    rounds = iter(range(1_000))
    known: list[Any] = []

    def embed(kind: str) -> tuple[float, np.ndarray]:
        lake = Lake(lakes / f"{kind}-{window_s:g}-{next(rounds)}")
        ingest.ingest_folder(lake, music, seconds=None)
        if not known:
            os.environ["TONELAKE_KERNELS"] = BLOCKWISE if kind == "blockwise" else ""
            precision = "float32" if kind == "float32" else "auto"
            known.append(open_space(lake, EmbedSettings(
                str(checkpoint), space="bench", window_s=window_s, precision=precision, device=device
            )))
        space, encoder = known[0]
        lake.spaces.make(space)
        started = time.perf_counter()
        embed_clips(lake, space, encoder, ingest.read_clips)
        seconds = time.perf_counter() - started
        ids = lake.clips.read(["clip_id", "track"]).sort("track")["clip_id"].to_list()
        vectors = lake.vectors(space)
        (lakes / f"{kind}-{window_s:g}.txt").write_text(f"{space.precision}; {encoder.kernels and encoder.kernels.kernels}")
        return seconds, np.stack([vectors.take(ids, layer).vectors for layer in range(len(space.layers))], axis=1)

    return {kind: lambda kind=kind: embed(kind) for kind in kinds}   # type: ignore[misc]


def be_process(arguments: argparse.Namespace) -> None:
    """One process: run the method that each line of standard input names, and print time and memory as JSON."""
    home, model, name = Path(arguments.home), arguments.models[0], arguments.process
    checkpoint, music = home / f"MERT-{model}", home / f"music-{model}"
    if name == "loops":
        ways = plain_loops(checkpoint, music, arguments.window, arguments.device)
    elif name == OPENVINO:
        note = home / f"openvino-{model}-{arguments.window:g}.txt"
        ways = {OPENVINO: openvino_way.openvino_way(checkpoint, music, arguments.window, SECONDS, note)}
    else:
        ways = our_ways(checkpoint, music, home / f"lakes-{model}", PROCESSES[name], arguments.window, arguments.device)
    memory = PeakMemory()
    for line in sys.stdin:
        if line.strip() == "peak":
            print(json.dumps({dtype: matmul_gflops(dtype, arguments.device) for dtype in ("float32", "bfloat16")}), flush=True)
            continue
        seconds, vectors = ways[line.strip()]()
        np.save(home / f"{model}-{line.strip()}-{arguments.window:g}.npy", vectors)
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


@contextmanager
def busy_neighbour() -> Iterator[None]:
    """Another process that computes on one processor all the time."""
    child = subprocess.Popen([sys.executable, "-c", "while True: pass"])
    try:
        time.sleep(0.2)
        yield
    finally:
        child.kill()
        child.wait()


# -- running


def processes_here(device: str) -> dict[str, tuple[str, ...]]:
    """The processes, and the ways in each: OpenVINO computes on the CPU, where it is installed."""
    return PROCESSES | ({OPENVINO: (OPENVINO,)} if device == "cpu" and openvino_way.is_installed() else {})


class Processes:
    """The processes of one model and window length."""

    def __init__(self, model: str, window_s: float, home: Path, device: str) -> None:
        self._children = {
            name: subprocess.Popen(
                [sys.executable, "-m", "bench.embed", "--process", name, "--models", model, "--window", str(window_s), "--home",
                 str(home), "--device", device], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            ) for name in processes_here(device)
        }

    def ask(self, process: str, line: str) -> dict[str, float]:
        """Return the reply of a process to one line."""
        child = self._children[process]
        assert child.stdin is not None and child.stdout is not None
        child.stdin.write(f"{line}\n")
        child.stdin.flush()
        return json.loads(child.stdout.readline())

    def end(self) -> None:
        """End all processes."""
        for child in self._children.values():
            child.communicate()


def measure(model: str, window_s: float, home: Path, rounds: int, device: str) -> dict[str, Any]:
    """Run all methods for one model and window length; return figures by method, peaks, and the effect of a busy neighbour."""
    processes = Processes(model, window_s, home, device)
    kinds = [(process, kind) for process, named in processes_here(device).items() for kind in named]
    found: dict[str, Any] = {kind: {"seconds": []} for _, kind in kinds}
    for number in range(rounds + 1):     # the first round is a warm-up
        for process, kind in kinds:
            reply = processes.ask(process, kind)
            found[kind]["peak_mb"] = reply["peak_mb"]
            if number:
                scale = CLIPS[model] / LOOP_CLIPS if process == "loops" else 1
                found[kind]["seconds"].append(scale * reply["seconds"])
        print(f"{model}, {window_s:g} s: round {number} of {rounds}", file=sys.stderr)
    found["peaks"] = processes.ask("auto", "peak")
    if window_s == SECONDS:
        slowed: dict[str, list[float]] = {"auto": [], "blockwise": []}
        for _ in range(rounds):
            for kind, seconds in slowed.items():
                alone = processes.ask(kind, kind)["seconds"]
                with busy_neighbour():
                    seconds.append(alone / processes.ask(kind, kind)["seconds"])
        found["busy"] = {kind: statistics.median(shares) for kind, shares in slowed.items()}
    processes.end()
    for _, kind in kinds:
        found[kind]["median"] = statistics.median(found[kind]["seconds"])
        found[kind]["vectors"] = np.load(home / f"{model}-{kind}-{window_s:g}.npy")
    return found


def compare(model: str, window_s: float, found: dict[str, Any], precision: str) -> tuple[str, dict[str, float]]:
    """Return a Markdown table and the ratios."""
    rows, ratios = [], {}
    audio_s, base = CLIPS[model] * SECONDS, found["eager"]
    baselines = [kind for kind in (*LOOPS, OPENVINO) if kind in found]
    for kind, name in NAMES.items():
        if kind not in found:
            continue
        result = found[kind]
        rate = audio_s / result["median"] * count_gflop(model, window_s) / SECONDS
        lower = kind in ("autocast", "blockwise", OPENVINO) or (kind == "auto" and precision == "bfloat16")
        peak = found["peaks"]["bfloat16" if lower else "float32"]
        a, b = result["vectors"][:LOOP_CLIPS], base["vectors"]
        cosine = ((a * b).sum(-1) / np.linalg.norm(a, axis=-1) / np.linalg.norm(b, axis=-1)).min()
        rows.append([
            name + (f" ({precision})" if kind == "auto" else ""), f"{audio_s / result['median']:.2f}",
            *(f"{found[baseline]['median'] / result['median']:.2f}" for baseline in baselines),
            f"{rate:.0f}", f"{100 * rate / peak:.0f} %", f"{result['peak_mb']:,.0f}", f"{cosine:.5f}",
        ])
        length = f"{window_s:g}s"
        if kind in ("float32", "auto"):
            ratios[f"{kind}_{length}"] = base["median"] / result["median"]
            ratios[f"{kind}_{length}_vs_sdpa"] = found["sdpa"]["median"] / result["median"]
            ratios[f"{kind}_{length}_vs_autocast"] = found["autocast"]["median"] / result["median"]
            if OPENVINO in found:
                ratios[f"{kind}_{length}_vs_openvino"] = found[OPENVINO]["median"] / result["median"]
            ratios[f"memory_{kind}_{length}"] = result["peak_mb"] / base["peak_mb"]
    ratios[f"chosen_vs_blockwise_{length}"] = found["blockwise"]["median"] / found["auto"]["median"]
    header = [
        "way", "audio s/s", *(f"× {kind}" for kind in baselines), "GFLOP/s", "of the peak", "peak memory, MB",
        "worst cosine to eager",
    ]
    text = (
        f"## MERT-v1-{model}, windows of {window_s:g} s, {CLIPS[model]} clips of 30 s a round\n\n{table(header, rows)}\n"
        f"Forward pass over 30 s: {count_gflop(model, window_s):.0f} GFLOP. Matrix products in the process of `auto`, after "
        f"the rounds: {found['peaks']['float32']:.0f} GFLOP/s in float32, {found['peaks']['bfloat16']:.0f} in bfloat16.\n"
    )
    if "busy" in found:
        ratios[f"busy_neighbour_{length}"] = found["busy"]["auto"]
        ratios[f"busy_neighbour_blockwise_{length}"] = found["busy"]["blockwise"]
        text += (
            f"\nBeside another process that keeps one processor busy, `auto` keeps {100 * found['busy']['auto']:.0f} % of its "
            f"speed, the blockwise kernels {100 * found['busy']['blockwise']:.0f} %; {fair_share():.0f} % is the share of the "
            "processors that the system grants.\n"
        )
    return text, ratios


def fair_share() -> float:
    """Return the percentage of the processors that a program with a thread on each gets beside one busy thread."""
    cores = os.cpu_count() or 1
    return 100 * cores / (cores + 1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", nargs="+", choices=list(CLIPS), default=list(CLIPS))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--process", help=argparse.SUPPRESS)
    parser.add_argument("--window", type=float, help=argparse.SUPPRESS)
    parser.add_argument("--home", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.process:
        be_process(arguments)
        return
    about = circumstances("the weights of both models and the audio (seeded); speed and memory only, never quality")
    texts, ratios, chosen = [], {}, {}
    reading, ratios["read_layer_vs_fromfile"] = reading_section()
    with tempfile.TemporaryDirectory() as folder:
        for model in arguments.models:
            make_checkpoint(Path(folder) / f"MERT-{model}", model)
            make_music(Path(folder) / f"music-{model}", CLIPS[model])
            for window_s in WINDOWS_S:
                found = measure(model, window_s, Path(folder), arguments.rounds, arguments.device)
                note = (Path(folder) / f"lakes-{model}" / f"auto-{window_s:g}.txt").read_text()
                text, measured = compare(model, window_s, found, note.partition(";")[0])
                setting = Path(folder) / f"openvino-{model}-{window_s:g}.txt"
                other = setting.read_text() if setting.exists() else NO_OPENVINO
                texts.append(f"{text}\nChosen by `auto`: {note}. {other}.\n")
                chosen[f"{model}, {window_s:g} s"] = note
                ratios |= {(key if model == "95M" else f"{key}_{model}"): value for key, value in measured.items()}
    if "memory_auto_30s" in ratios:
        ratios["memory_30s"] = ratios["memory_auto_30s"]
    name = "embed" if arguments.device == "cpu" else "embed_cuda"
    write_results(name, "Embedding against plain loops", LIMITS + "\n".join([*texts, reading]), about, ratios, chosen=chosen)
    print(f"bench/results/{name}.md and .json are written")


NO_OPENVINO = "OpenVINO was not compared: it needs the CPU and `pip install openvino`"
LIMITS = """
Each loop is a baseline of its own: `eager` is MERT's published code, `sdpa` and `autocast` are what a careful user writes.
`openvino` is the same model converted, with all clips in flight, its hint chosen by measurement.  Times of `tonelake embed`
include decoding and storing, the others include decoding. Peak memory is that of the whole process, including loading and
measuring, and of its decoders. Memory bandwidth is not the limit: the weights are read once a window (190 MB in bfloat16,
380 MB in float32 for 95M: under 3 % of the time at 10 GB/s), the convolutions' intermediates stay in the cache, and 40 kB
(95M) or 100 kB (330M) are stored for a clip.

On processors with AMX the front end limits `auto`: a quarter of the operations of a 30 s window of 95M are its convolutions,
at a third of the rate of large products. Exponentials of attention (12 heads of 2,249² scores a block), layer norms and GELU
take time as well. On AMD Zen 5 matrix products take more than four fifths of the time, at 390 to 480 GFLOP/s a core, which is
the rate of large ones: there OpenVINO and tonelake can differ by the rest only.

"""


if __name__ == "__main__":
    main()
