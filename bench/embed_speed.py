"""Embedding speed: seconds of audio a second, `tonelake embed` against the loop that people write.

The loop: one clip at a time, librosa.load, a HubertModel with the original code's eager attention, float32, all hidden
states kept and averaged.  All ways embed the same files by a model of MERT-v1-95M's exact shape with random weights: the
figures are about speed, never about quality.  Ways take turns, round by round, so that a machine whose speed drifts is
unfair to none; ratios are of medians.

    python -m bench.embed_speed --clips 4 --seconds 30 --rounds 3
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

import ingest
from embed import EmbedSettings, embed_clips, open_space
from store import Lake

HUB_CONFIG = Path(__file__).parent.parent / "tests" / "data" / "mert" / "hub_configs" / "95M"
GFLOP_A_SECOND = 812 / 30                # of audio: the forward pass of MERT-v1-95M over 30 s is 812 GFLOP


def make_checkpoint(folder: Path) -> Path:
    """A checkpoint of MERT-v1-95M's shape with seeded random weights, in the hub's form."""
    from safetensors.torch import save_file
    from transformers import HubertModel

    from embed.checkpoint import read_config

    torch.manual_seed(0)
    config, _ = read_config(HUB_CONFIG)
    folder.mkdir()
    for name in ("config.json", "preprocessor_config.json"):
        (folder / name).write_text((HUB_CONFIG / name).read_text())
    save_file({k: v.contiguous() for k, v in HubertModel(config).state_dict().items()}, folder / "model.safetensors")
    return folder


def make_music(folder: Path, clips: int, seconds: float) -> None:
    """Stereo FLAC files at 44.1 kHz."""
    import soundfile as sf

    folder.mkdir()
    for seed in range(clips):
        rng = np.random.default_rng(seed)
        noise = rng.standard_normal((round(seconds * 44_100), 2)).cumsum(axis=0)
        sf.write(folder / f"{seed}.flac", 0.5 * noise / np.abs(noise).max(), 44_100)


def plain_loop(checkpoint: Path, music: Path) -> Callable[[], np.ndarray]:
    """The loop that people write."""
    import librosa
    from safetensors.torch import load_file
    from transformers import HubertModel

    from embed.checkpoint import read_config

    config, _ = read_config(checkpoint)
    config._attn_implementation = "eager"                # as MERT's own code
    model = HubertModel(config).eval()
    model.load_state_dict(load_file(checkpoint / "model.safetensors"))

    def run() -> np.ndarray:
        vectors = []
        for path in sorted(music.iterdir()):
            wave, _ = librosa.load(path, sr=24_000, mono=True)
            wave = (wave - wave.mean()) / np.sqrt(wave.var() + 1e-7)
            with torch.no_grad():
                states = model(torch.from_numpy(wave)[None], output_hidden_states=True).hidden_states
            vectors.append(torch.stack(states).mean(dim=2)[:, 0].numpy())
        return np.stack(vectors)                         # (clip, layer, dim)

    return run


def our_way(checkpoint: Path, music: Path, lakes: Path, precision: str) -> Callable[[], np.ndarray]:
    """`tonelake embed` into a fresh lake each time, decoding and storing included."""
    rounds = iter(range(1_000))
    encoders: list = []

    def run() -> np.ndarray:
        lake = Lake(lakes / f"{precision}-{next(rounds)}")
        if not encoders:
            encoders.append(open_space(lake, EmbedSettings(str(checkpoint), precision=precision, device="cpu"))[1])
        from embed.settings import describe_space

        space = lake.spaces.make(describe_space(encoders[0], "bench", 30.0))
        started = time.perf_counter()
        ingest.ingest_folder(lake, music, ingest.Cut(None))
        run.not_counted = time.perf_counter() - started              # type: ignore[attr-defined]
        embed_clips(lake, space, encoders[0], ingest.read_clips)
        ids = lake.clips.read(["clip_id", "track"]).sort("track")["clip_id"].to_list()
        return np.stack([lake.vectors(space).take(ids, layer).vectors for layer in range(13)], axis=1)

    return run


def matmul_gflops() -> float:
    """What this machine's float32 matrix product reaches: the ceiling of the transformer."""
    a = torch.randn(2048, 2048)
    a @ a
    started = time.perf_counter()
    for _ in range(5):
        a @ a
    return 5 * 2 * 2048**3 / (time.perf_counter() - started) / 1e9


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--clips", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=30.0)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        checkpoint = make_checkpoint(home / "MERT-shape")
        make_music(home / "music", arguments.clips, arguments.seconds)
        ways = {
            "plain loop, float32": plain_loop(checkpoint, home / "music"),
            "tonelake, float32": our_way(checkpoint, home / "music", home, "float32"),
            "tonelake, bfloat16": our_way(checkpoint, home / "music", home, "bfloat16"),
        }
        taken: dict[str, list[float]] = {name: [] for name in ways}
        vectors = {}
        for round_number in range(arguments.rounds + 1):             # the first one warms up
            for name, way in ways.items():
                started = time.perf_counter()
                vectors[name] = way()
                seconds = time.perf_counter() - started - getattr(way, "not_counted", 0.0)
                if round_number:
                    taken[name].append(seconds)
        audio_s = arguments.clips * arguments.seconds
        base = statistics.median(taken["plain loop, float32"])
        print(f"{arguments.clips} clips of {arguments.seconds:g} s, {arguments.rounds} rounds, "
              f"{torch.get_num_threads()} threads, matrix products {matmul_gflops():.0f} GFLOP/s\n")
        print("| way | audio s/s | ratio | GFLOP/s | worst cosine to the loop |\n|---|---|---|---|---|")
        for name, times in taken.items():
            median = statistics.median(times)
            speed = audio_s / median
            a, b = vectors[name], vectors["plain loop, float32"]
            cosine = ((a * b).sum(-1) / np.linalg.norm(a, axis=-1) / np.linalg.norm(b, axis=-1)).min()
            print(f"| {name} | {speed:.2f} | {base / median:.2f} | {speed * GFLOP_A_SECOND:.0f} | {cosine:.5f} |")


if __name__ == "__main__":
    main()
