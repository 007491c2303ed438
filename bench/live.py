"""Live audio and k-means: the latency from a chunk's last sample to its tokens, by layer; and centres against scikit-learn.

The encoder has the size of MERT-v1-95M and random weights, so the figures are times and do not measure quality.  One hop is
pushed at a time, as by a sound card; the latency is that of the push that returns its tokens.  A layer keeps up if a push takes
less than a hop.  The baseline is a plain pass over the same window: a HubertModel with torch's fused attention, under autocast,
all layers, without tokens.  Frames for k-means are synthetic: clusters with a decaying spectrum.

    python -m bench.live --device cpu
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from bench.embed import make_checkpoint
from bench.report import circumstances, table, write_results
from tonelake.embed import LiveFrames, load_encoder
from tonelake.embed.encoders.checkpoint import read_config
from tonelake.embed.precision import cpu_has_bfloat16
from tonelake.index.tokens.vocabulary import FRAMES_PER_TOKEN, find_centres, nearest_centre

LAYERS = (0, 1, 3, 5, 7, 9, 12)
WINDOWS_S, HOP_S, PUSHES, PLAIN_PUSHES = (5.0, 2.0), 0.5, 40, 10
TOKENS, FRAMES, DIM = 2048, 200_000, 768


def latencies(encoder: Any, layer: int, window_s: float, centres: np.ndarray) -> np.ndarray:
    """Return (push,) seconds from a chunk's last sample to its tokens, once the window is full."""
    rate = encoder.sample_rate
    live = LiveFrames(encoder, layer, rate, window_s=window_s, hop_s=HOP_S)
    chunk = round(round(HOP_S * rate / encoder.frame_samples) * encoder.frame_samples)
    sound = 0.1 * np.random.default_rng(0).standard_normal((PUSHES + round(window_s / HOP_S) + 2) * chunk).astype(np.float32)
    seconds = []
    for start in range(0, len(sound), chunk):
        begun = time.perf_counter()
        heard = live.push(sound[start : start + chunk])
        if len(heard.states):
            nearest_centre(heard.states, centres)
            seconds.append(time.perf_counter() - begun)
    return np.array(seconds[-PUSHES:])


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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu")
    device = parser.parse_args().device
    with tempfile.TemporaryDirectory() as folder:
        make_checkpoint(Path(folder) / "MERT-95M", "95M")
        encoder: Any = load_encoder(str(Path(folder) / "MERT-95M"), device=device)
        precision = "bfloat16" if device != "cpu" or cpu_has_bfloat16() else "float32"
        encoder = encoder.at(precision)
        centres = np.random.default_rng(0).standard_normal((TOKENS, DIM)).astype(np.float32)
        rows, told, ratios = [], {}, {}
        for window_s in WINDOWS_S:
            plain = float(np.median(plain_latencies(Path(folder) / "MERT-95M", window_s, device)))
            rows.append([f"{window_s:g}", "plain", f"{1e3 * plain:.0f}", "", "1.0", f"{HOP_S / plain:.1f}", ""])
            for layer in LAYERS:
                seconds = latencies(encoder, layer, window_s, centres)
                middle, late = float(np.median(seconds)), float(np.percentile(seconds, 99))
                told[f"{device}, window {window_s:g} s, layer {layer}"] = round(1e3 * middle, 1)
                keeps = "yes" if late < HOP_S else "no"
                figures = [f"{1e3 * middle:.0f}", f"{1e3 * late:.0f}", f"{plain / middle:.1f}", f"{HOP_S / middle:.1f}", keeps]
                ratios[f"layer_{layer}_{window_s:g}s_vs_autocast"] = plain / middle
                rows.append([f"{window_s:g}", str(layer), *figures])
                print(" | ".join(rows[-1]), flush=True)
    found = k_means()
    print(found, flush=True)
    (our_s, our_loss), (their_s, their_loss) = found["ours"], found["sklearn"]
    text = "## From a chunk's last sample to its tokens\n\n" + table(
        ["window, s", "layer", "median, ms", "99th percentile, ms", "× transformers pass", "times real time", "keeps up"], rows
    ) + f"\n\nChunks and hops of {HOP_S:g} s, {precision}, {TOKENS:,} tokens; MERT-v1-95M's size, random weights.  "
    text += "Plain: one pass of transformers over the window, all layers, sdpa under autocast to bfloat16.\n\n"
    text += f"## k-means: {FRAMES:,} frames of {DIM}, {TOKENS:,} centres\n\n" + table(
        ["", "seconds", "mean squared distance"],
        [["tonelake (FAISS, two stages)", f"{our_s:.1f}", f"{our_loss:.4f}"],
         ["scikit-learn MiniBatchKMeans", f"{their_s:.1f}", f"{their_loss:.4f}"]],
    )
    about = circumstances("weights, sounds and frames, seed 0")
    write_results("live" if device == "cpu" else f"live-{device}", "Live audio", text, about, {
        **ratios, "kmeans_time_vs_sklearn": their_s / our_s, "kmeans_distortion_vs_sklearn": their_loss / our_loss,
    }, latency_ms=told)


if __name__ == "__main__":
    main()
