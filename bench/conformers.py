"""MERT-v2 and MuQ at their published sizes with random weights, for `bench.encoders`."""

from __future__ import annotations

import copy
import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np

from bench.plain_conformers import plain_mert2, plain_muq
from bench.ways import Bench, Way, as_embedded

SECONDS = 10.0                           # of a clip: five passes of a model of 2.5 GB have to end within minutes
ROUNDS = 2


def bench_mert2() -> Bench:
    """MERT-v2-30s: 24 blocks of 1,024."""
    import torch

    from tonelake.embed.encoders.mert2.encoder import Mert2Encoder
    from tonelake.embed.encoders.mert2.network import Mert2Network, ResponseNorm, Sizes, rotary_angles

    sizes = Sizes(
        hidden=1_024, inner=4_096, blocks=24, heads=16, bands=128, fft=2_048, window=2_048, hop=240, channels=(128, 512, 1_024),
        depths=(3, 4, 5), kernel=31, rotary_base=10_000.0, eps=1e-5, stage_eps=1e-6,
    )
    network = random_network(Mert2Network, sizes)
    for module in network.modules():
        if isinstance(module, ResponseNorm):
            module.weight.fill_(0.5)
            module.bias.fill_(0.0)
    exact = encoder_of(Mert2Encoder, network, {"sampling_rate": 24_000, "variant": "30s"})
    plain = plain_mert2(network)
    halved = copy.deepcopy(plain)
    halved.subsampling_module.bfloat16()
    halved.layers.bfloat16()

    def in_bfloat16(samples: Any) -> list[Any]:
        states = halved.feature_extractor(samples).bfloat16()
        for stage in halved.subsampling_module:
            states = stage(states)
        angles = tuple(part.bfloat16() for part in rotary_angles(states.shape[1], sizes, states.device))
        found = [states]
        for block in halved.layers:
            found.append(block(found[-1], angles))
        return found

    block = 2 * (4 * sizes.hidden * sizes.inner + 4 * sizes.hidden**2 + 3 * sizes.hidden**2)
    stages = sum(
        2 * 8 * width**2 * depth * rate
        for width, depth, rate in zip(sizes.channels, sizes.depths, (100, 50, 25), strict=True)
    )
    weights = sum(parameter.numel() for parameter in network.parameters()) / 1e6
    return conformer_bench(
        exact, plain.states, in_bfloat16, (sizes.blocks * block * 25 + stages) / 1e9, f"Random weights, {weights:.0f} million.",
        torch,
    )


def bench_muq() -> Bench:
    """MuQ-large: residual 2-D convolutions of 512 channels, 12 blocks of 1,024."""
    import torch

    from tonelake.embed.encoders.muq.encoder import MuqEncoder
    from tonelake.embed.encoders.muq.network import MuqNetwork, Sizes, fold_batch_norms

    sizes = Sizes(hidden=1_024, inner=4_096, blocks=12, heads=16, bands=128, hop=240, channels=512, kernel=31, eps=1e-5)
    network = random_network(MuqNetwork, sizes)
    width = sizes.hidden // sizes.heads
    network.conformer.embed_positions.inv_freq.copy_(10_000.0 ** (-torch.arange(0, width, 2) / width))
    weights = sum(parameter.numel() for parameter in network.parameters()) / 1e6
    plain = plain_muq(network)
    halved = plain_muq(network)
    halved.conv.bfloat16()
    halved.conformer = copy.deepcopy(halved.conformer).bfloat16()
    network = copy.deepcopy(network)
    fold_batch_norms(network)
    exact = encoder_of(MuqEncoder, network, {})
    pixels = sizes.bands // 4 * 25                                   # a second, after both strides
    convolutions = 2 * 9 * pixels * (4 * (sizes.channels**2 + 2 * sizes.channels) + 3 * sizes.channels**2)
    block = 2 * (4 * sizes.hidden * sizes.inner + 4 * sizes.hidden**2 + 3 * sizes.hidden**2)
    linear = 2 * 25 * sizes.channels * sizes.bands // 4 * sizes.hidden
    return conformer_bench(
        exact, plain.states, halved.states, (convolutions + linear + sizes.blocks * block * 25) / 1e9,
        f"Random weights, {weights:.0f} million.", torch,
    )


def random_network(kind: Any, sizes: Any) -> Any:
    """A network with torch's random weights, and the front end filled."""
    import torch

    from tonelake.embed.encoders.mel import htk_bands

    torch.manual_seed(0)
    network = kind(sizes).eval().requires_grad_(False)
    front = network.feature_extractor
    front.mel_mean.zero_()
    front.mel_std.fill_(20.0)
    front.spectrogram.window.copy_(torch.hann_window(front.fft))
    front.mel_scale.fb.copy_(htk_bands(sizes.bands, front.fft, 24_000))
    return network


def encoder_of(kind: Any, network: Any, config: dict[str, Any]) -> Any:
    """An encoder of a network, without a weights file."""
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "config.json").write_text(json.dumps(config))
        with patch(f"{kind.__module__}.load_network", return_value=(network, "random")):
            return kind(Path(folder))


def conformer_bench(
    exact: Any, plain: Callable[[Any], Any], halved: Callable[[Any], Any], gflop: float, about: str, torch: Any
) -> Bench:
    """Ours and the published pass, each in float32 and in bfloat16; the latter by autocast and with all weights cast."""
    def published(states: Callable[[Any], Any], lower: bool) -> Way:
        def run(clips: list[np.ndarray]) -> list[np.ndarray]:
            found = []
            for clip in clips:
                with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16, enabled=lower):
                    layers = [layer.float().mean(dim=1)[0] for layer in states(torch.from_numpy(clip[None]))]
                found.append(layers[-1].numpy())
            return found
        return run

    ways = {
        "plain, float32": published(plain, False), "plain, autocast to bfloat16": published(plain, True),
        "plain, weights in bfloat16": published(halved, False), "tonelake, float32": as_embedded(exact),
        "tonelake, bfloat16": as_embedded(exact.at("bfloat16")),
    }
    return Bench(
        ways=ways, precisions={way: "bfloat16" for way in ways if "bfloat16" in way},
        baseline=tuple(way for way in ways if way.startswith("plain")), gflop=gflop,
        clips=dict.fromkeys(ways, 1) | {"tonelake, bfloat16": torch.get_num_threads()},
        seconds=SECONDS, rounds=ROUNDS,
        about=f"{about} Clips of {SECONDS:g} s, one window each. GFLOP leave out attention's products of frames with frames.",
    )
