"""OpenVINO as a way of `bench.embed`: transformers' HubertModel, converted by tracing, on the CPU.

The converted model returns what a lake stores, mean and maximum over time of every layer, so hidden states stay inside it.
It computes in bfloat16 where the processor has it, and by the hint (latency or throughput) that is the faster one here.
Conversion runs in a process of its own, so that peak memory is that of OpenVINO alone.  OpenVINO is no dependency of
tonelake: `pip install openvino`; without it the benchmark leaves the row out and says so.
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from tonelake.embed.precision import MIN_COSINE

RATE = 24_000
EXAMPLE_S = 2.0                          # of audio that is traced; the converted model is reshaped to its windows
HINTS = ("LATENCY", "THROUGHPUT")


def is_installed() -> bool:
    return find_spec("openvino") is not None


def import_openvino() -> Any:
    """OpenVINO without its telemetry, which otherwise reports imports and conversions."""
    sys.modules.setdefault("openvino_telemetry", None)
    import openvino

    return openvino


def convert(checkpoint: Path, target: Path, window_s: float, windows: int) -> None:
    """Write `target`.xml, for (windows, samples) batches, and `target`.npz, to check it: a batch, and its means and maxima by
    torch in float32, (layer, 2, windows, dim)."""
    import torch
    from safetensors.torch import load_file
    from transformers import HubertModel

    from tonelake.embed.encoders.checkpoint import read_config
    from tonelake.embed.sample import sample_music

    openvino, config = import_openvino(), read_config(checkpoint)[0]
    config._attn_implementation = "sdpa"             # OpenVINO has a fused kernel for it
    config.tie_last_hidden_states = True
    network = HubertModel(config).eval()
    network.load_state_dict(load_file(checkpoint / "model.safetensors"))

    class Pooled(torch.nn.Module):
        def forward(self, audio: Any) -> Any:
            states = network(audio, output_hidden_states=True).hidden_states
            return torch.stack([torch.stack([layer.mean(dim=1), layer.amax(dim=1)]) for layer in states])

    pooled, samples = Pooled().eval(), round(window_s * RATE)
    pooled.network = network
    batch = np.stack([normalized(sample_music(RATE, window_s)) for _ in range(windows)])
    with torch.no_grad():
        expected = pooled(torch.from_numpy(batch)).numpy()
        example = torch.from_numpy(batch[:, : round(EXAMPLE_S * RATE)])
        converted = openvino.convert_model(pooled, example_input=example, input=[[windows, samples]])
    openvino.save_model(converted, target.with_suffix(".xml"), compress_to_fp16=False)
    np.savez(target.with_suffix(".npz"), batch=batch, expected=expected)


def normalized(wave: np.ndarray) -> np.ndarray:
    return ((wave - wave.mean()) / np.sqrt(wave.var() + 1e-7)).astype(np.float32)


def openvino_way(
    checkpoint: Path, music: Path, window_s: float, clip_s: float, note: Path
) -> Callable[[], tuple[float, np.ndarray]]:
    """A function that embeds all clips and returns seconds and (clip, layer, dim) means.  `note` receives the settings used.

    Each clip is one request: all its windows in a batch, as tonelake takes them.  Decoding overlaps with computing.
    """
    import librosa

    openvino = import_openvino()
    windows, samples = round(clip_s / window_s), round(window_s * RATE)
    target = checkpoint.with_name(f"{checkpoint.name}-openvino-{window_s:g}")
    subprocess.run([sys.executable, "-m", "bench.openvino_way", checkpoint, target, str(window_s), str(windows)], check=True)
    core, known = openvino.Core(), np.load(target.with_suffix(".npz"))
    lower = "BF16" in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    queues, settings = {}, {}
    for hint in HINTS:
        model = core.compile_model(
            target.with_suffix(".xml"), "CPU",
            {"PERFORMANCE_HINT": hint, "INFERENCE_PRECISION_HINT": "bf16" if lower else "f32"},
        )
        worst = worst_cosine(model(known["batch"])[0], known["expected"])
        assert worst >= MIN_COSINE, f"OpenVINO: a layer has a cosine of {worst:.4f} to float32. Uninstall it to leave it out"
        settings[hint] = f"{'bfloat16' if lower else 'float32'}, {hint.lower()}; worst cosine {worst:.5f} (means and maxima)"
        queues[hint] = openvino.AsyncInferQueue(model)

    def run(queue: Any) -> tuple[float, np.ndarray]:
        started, found = time.perf_counter(), {}
        queue.set_callback(lambda request, clip: found.update({clip: request.get_output_tensor().data[:, 0].mean(axis=1)}))
        for clip, path in enumerate(sorted(music.iterdir())):
            wave, _ = librosa.load(path, sr=RATE, mono=True)
            parts = [normalized(wave[first : first + samples]) for first in range(0, windows * samples, samples)]
            queue.start_async(np.stack(parts), clip)
        queue.wait_all()
        return time.perf_counter() - started, np.stack([found[clip] for clip in sorted(found)])

    taken = {hint: min(run(queue)[0] for _ in range(2)) for hint, queue in queues.items()}
    best = min(taken, key=lambda hint: taken[hint])
    note.write_text(f"OpenVINO {openvino.__version__.split('-')[0]}, {settings[best]}")
    return lambda: run(queues[best])


def worst_cosine(found: np.ndarray, expected: np.ndarray) -> float:
    """The lowest cosine of any layer, statistic and window."""
    lengths = np.linalg.norm(found, axis=-1) * np.linalg.norm(expected, axis=-1)
    return float(((found * expected).sum(axis=-1) / lengths).min())


if __name__ == "__main__":
    convert(Path(sys.argv[1]), Path(sys.argv[2]), float(sys.argv[3]), int(sys.argv[4]))
