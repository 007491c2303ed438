"""Live audio and k-means: the latency from a chunk's last sample to its tokens, by encoder and layer; and centres against
scikit-learn.

MERT has the size of MERT-v1-95M and random weights, so its figures are times and do not measure quality; the other encoders
are as they are installed.  One hop is pushed at a time, as by a sound card; the latency is that of the push that returns its
tokens.  A layer keeps up if a push takes less than a hop.  The baseline is a plain pass over the same window: a HubertModel
with torch's fused attention, under autocast, all layers, without tokens.  Finally an hour of audio is pushed, hop by hop.

Sounds are noise whose power changes every half a second by 2 dB (standard deviation).  With a window of 2 s, 64 % of the pushes
then compute new frames only, as they do on free game music (60 tracks, filters of random weights).  Frames for k-means are
synthetic: clusters with a decaying spectrum.

    python -m bench.live --device cpu
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from bench.embed import make_checkpoint
from bench.memory import resident_mb
from bench.report import circumstances, table, write_results
from tonelake.embed import LIVE_DRIFT, LiveFrames, have_weights, load_encoder
from tonelake.embed.encoders.checkpoint import read_config
from tonelake.embed.precision import cpu_has_bfloat16
from tonelake.index.tokens.vocabulary import FRAMES_PER_TOKEN, find_centres, nearest_centre

MERT, LAYERS, BEST = "MERT-95M", (0, 1, 3, 5, 7, 9, 12), 7           # BEST is measured in further ways
WINDOWS_S, HOP_S, PUSHES, PLAIN_PUSHES = (5.0, 2.0), 0.5, 40, 10
HOUR_WINDOW_S, HOUR_PUSHES, MINUTE_PUSHES = 2.0, 7_200, 120
POWER_DB = 2.0
OTHERS = {
    "musicnn": ("mtt.timbral", "mtt.penultimate", "joined"), "small": ("0", "4", "6"), "logmel": ("mel",), "vqt": ("vqt",),
    "cqt": ("cqt",),
}
TOKENS, FRAMES, DIM = 2048, 200_000, 768
HEADER = [
    "encoder", "window, s", "layer", "median, ms", "99th percentile, ms", "× transformers pass", "times real time", "keeps up",
    "pushes of new frames only",
]
TEXT = """## From a chunk's last sample to its tokens

{latencies}

Chunks and hops of {hop_s:g} s, {precision} where an encoder has it, {tokens:,} tokens; noise whose power changes by
{power_db:g} dB.  MERT-95M: MERT-v1-95M's size, random weights.  Without drift: every window is computed whole.  Plain: one pass
of transformers over the window, all layers, sdpa under autocast to bfloat16.  An hour: {pushes:,} pushes; resident memory after
the first minute {begin_mb:.0f} MB, at the end {end_mb:.0f} MB.

## k-means: {frames:,} frames of {dim}, {tokens:,} centres

{k_means}"""


@dataclass(frozen=True, kw_only=True)
class Latency:
    """The pushes of a stream, once its window is full."""

    seconds: np.ndarray                  # (push,)
    new_only: float | None               # share of the pushes that computed new frames only; None where it is not counted
    begin_mb: float                      # resident memory after the first minute, or after the first of fewer pushes
    end_mb: float

    @property
    def median_ms(self) -> float:
        return 1e3 * float(np.median(self.seconds))

    @property
    def p99_ms(self) -> float:
        return 1e3 * float(np.percentile(self.seconds, 99))


def chunks(encoder: Any, count: int) -> Iterator[np.ndarray]:
    """Yield chunks of one hop: noise whose power changes."""
    rng = np.random.default_rng(0)
    samples = round(HOP_S * encoder.sample_rate / encoder.frame_samples) * encoder.frame_samples
    for _ in range(count):
        gain = 0.1 * 10 ** (rng.normal(0, POWER_DB) / 20)
        yield (gain * rng.standard_normal(samples)).astype(np.float32)


def latencies(encoder: Any, layer: int, window_s: float, pushes: int = PUSHES, drift: float = LIVE_DRIFT) -> Latency:
    """Push chunks; measure from a chunk's last sample to its tokens, once the window is full."""
    centres = np.random.default_rng(0).standard_normal((TOKENS, encoder.dims[layer])).astype(np.float32)
    live = LiveFrames(encoder, layer, encoder.sample_rate, window_s=window_s, hop_s=HOP_S, drift=drift)
    seconds, computed, memory = [], [], []
    for chunk in chunks(encoder, pushes + round(window_s / HOP_S) + 2):
        begun = time.perf_counter()
        heard = live.push(chunk)
        if not len(heard.states):
            continue
        nearest_centre(heard.states, centres)
        seconds.append(time.perf_counter() - begun)
        computed.append(getattr(live.stream._pass, "computed", 0))
        memory.append(resident_mb(os.getpid()))
    each = np.diff(computed)[-pushes:]
    return Latency(
        seconds=np.array(seconds[-pushes:]), new_only=float((each == each.min()).mean()) if each.any() and drift else None,
        begin_mb=memory[min(MINUTE_PUSHES, len(memory) - pushes)], end_mb=memory[-1],
    )


def plain_latencies(checkpoint: Path, window_s: float, device: str) -> np.ndarray:
    """Return (push,) seconds of a plain pass over the window: sdpa under autocast to bfloat16, all layers."""
    import torch
    from safetensors.torch import load_file
    from transformers import HubertModel

    config, _ = read_config(checkpoint)
    config._attn_implementation = "sdpa"
    model = HubertModel(config).eval()
    model.load_state_dict(load_file(checkpoint / "model.safetensors"))
    model.to(device)
    window = torch.from_numpy(0.1 * np.random.default_rng(0).standard_normal((1, round(window_s * 24_000)))).float().to(device)
    seconds = []
    for _ in range(PLAIN_PUSHES + 1):
        begun = time.perf_counter()
        with torch.inference_mode(), torch.autocast(device, torch.bfloat16):
            model(window, output_hidden_states=True).hidden_states[-1].cpu()
        seconds.append(time.perf_counter() - begun)
    return np.array(seconds[1:])


def made_up_frames() -> np.ndarray:
    """Return (frame, dim) float32 samples of 600 clusters with a decaying spectrum."""
    rng = np.random.default_rng(0)
    spectrum = (1 + np.arange(DIM)) ** -0.6
    centres = rng.standard_normal((600, DIM)) * spectrum
    found = np.empty((FRAMES, DIM), np.float32)
    for start in range(0, FRAMES, 20_000):
        part = slice(start, start + 20_000)
        found[part] = centres[rng.integers(600, size=20_000)] + 0.8 * rng.standard_normal((20_000, DIM)) * spectrum
    return found


def k_means() -> dict[str, tuple[float, float]]:
    """Return (seconds, mean squared distance to the nearest centre) of our k-means and of scikit-learn's."""
    from sklearn.cluster import MiniBatchKMeans

    sample = made_up_frames()[: FRAMES_PER_TOKEN * TOKENS]
    found = {}
    begun = time.perf_counter()
    centres = find_centres(sample, TOKENS, seed=0)
    found["ours"] = (time.perf_counter() - begun, float(nearest_centre(sample, centres)[1].mean()))
    begun = time.perf_counter()
    theirs = MiniBatchKMeans(TOKENS, random_state=0, n_init=1).fit(sample).cluster_centers_
    found["sklearn"] = (time.perf_counter() - begun, float(nearest_centre(sample, theirs.astype(np.float32))[1].mean()))
    return found


@dataclass(frozen=True)
class Figures:
    """Figures for programs in ms, by encoder, window and layer, and the rows of the table, as they are measured."""

    median_ms: dict[str, float] = field(default_factory=dict)
    p99_ms: dict[str, float] = field(default_factory=dict)
    rows: list[list[str]] = field(default_factory=list)

    def add(self, name: str, layer: str, window_s: float, found: Latency, plain: float | None = None) -> None:
        key = f"{name}, window {window_s:g} s, layer {layer}"
        self.median_ms[key], self.p99_ms[key] = round(found.median_ms, 1), round(found.p99_ms, 1)
        keeps = "yes" if found.p99_ms < 1e3 * HOP_S else "no"
        new_only = "" if found.new_only is None else f"{100 * found.new_only:.0f} %"
        ratio = "" if plain is None else f"{1e3 * plain / found.median_ms:.1f}"
        self.rows.append([
            name, f"{window_s:g}", layer, f"{found.median_ms:.1f}", f"{found.p99_ms:.1f}", ratio,
            f"{1e3 * HOP_S / found.median_ms:.1f}", keeps, new_only,
        ])
        print(" | ".join(self.rows[-1]), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu")
    device = parser.parse_args().device
    precision = "bfloat16" if device != "cpu" or cpu_has_bfloat16() else "float32"
    figures, ratios, latency_ms = Figures(), {}, {}
    with tempfile.TemporaryDirectory() as folder:
        make_checkpoint(Path(folder) / MERT, "95M")
        encoder: Any = load_encoder(str(Path(folder) / MERT), device=device).at(precision)
        for window_s in WINDOWS_S:
            plain = float(np.median(plain_latencies(Path(folder) / MERT, window_s, device)))
            real_time = f"{HOP_S / plain:.1f}"
            figures.rows.append(["plain", f"{window_s:g}", "all", f"{1e3 * plain:.1f}", "", "1.0", real_time, "", ""])
            for layer in LAYERS:
                found = latencies(encoder, layer, window_s)
                figures.add(MERT, str(layer), window_s, found, plain)
                latency_ms[f"{device}, window {window_s:g} s, layer {layer}"] = round(found.median_ms, 1)
                ratios[f"layer_{layer}_{window_s:g}s_vs_autocast"] = 1e3 * plain / found.median_ms
            exact = latencies(encoder, BEST, window_s, drift=0)
            figures.add(f"{MERT} without drift", str(BEST), window_s, exact, plain)
            streamed = figures.median_ms[f"{MERT}, window {window_s:g} s, layer {BEST}"]
            ratios[f"layer_{BEST}_{window_s:g}s_drift_vs_none"] = exact.median_ms / streamed
        for name, layers in OTHERS.items():
            if have_weights(name):
                other: Any = load_encoder(name, device=device)
                other = other.at(precision) if precision in other.precisions else other
                for layer_name in layers:
                    for window_s in WINDOWS_S:
                        found = latencies(other, other.layers.index(layer_name), window_s)
                        figures.add(name, layer_name, window_s, found)
        hour = latencies(encoder, BEST, HOUR_WINDOW_S, pushes=HOUR_PUSHES)
        figures.add(f"{MERT}, an hour", str(BEST), HOUR_WINDOW_S, hour)
        print(f"{hour.begin_mb:.0f} MB, {hour.end_mb:.0f} MB", flush=True)
    found_centres = k_means()
    print(found_centres, flush=True)
    (our_s, our_loss), (their_s, their_loss) = found_centres["ours"], found_centres["sklearn"]
    text = TEXT.format(
        latencies=table(HEADER, figures.rows), hop_s=HOP_S, precision=precision, tokens=TOKENS, power_db=POWER_DB,
        pushes=HOUR_PUSHES, begin_mb=hour.begin_mb, end_mb=hour.end_mb, frames=FRAMES, dim=DIM,
        k_means=table(["", "seconds", "mean squared distance"], [
            ["tonelake (FAISS, two stages)", f"{our_s:.1f}", f"{our_loss:.4f}"],
            ["scikit-learn MiniBatchKMeans", f"{their_s:.1f}", f"{their_loss:.4f}"],
        ]),
    )
    about = circumstances("weights, sounds and frames, seed 0")
    write_results("live" if device == "cpu" else f"live-{device}", "Live audio", text, about, {
        **ratios, "kmeans_time_vs_sklearn": their_s / our_s, "kmeans_distortion_vs_sklearn": their_loss / our_loss,
    }, latency_ms=latency_ms, median_ms=figures.median_ms, p99_ms=figures.p99_ms,
        hour_mb={"after a minute": round(hour.begin_mb), "at the end": round(hour.end_mb)})


if __name__ == "__main__":
    main()
