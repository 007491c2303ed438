"""`musicnn`: both networks as one encoder.  (batch, samples) at 16 kHz -> eight layers of each, their penultimate layers
joined, and scores of tags.

Frames are 16 ms apart.  The layers of a patch (max, mean, penultimate, joined) have one vector for all frames that the patch
answers for, so a mean over frames weighs a patch by them; `embed.encoders.musicnn.patches` says where patches lie.
"""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tonelake.embed.encoders.base import PRECISIONS, Encoder, FrameSpan, Pooled
from tonelake.embed.encoders.live_pass import LivePass
from tonelake.embed.encoders.musicnn.mel import HOP, MIN_SAMPLES, SAMPLE_RATE, log_mel
from tonelake.embed.encoders.musicnn.network import DENSE, PATCH, SPANS, STATES, Network, PatchStates
from tonelake.embed.encoders.musicnn.patches import Patch, place_patches
from tonelake.embed.encoders.musicnn.tags import merge_scores, tag_names
from tonelake.embed.encoders.musicnn.weights import NETWORKS, read_networks, tensor_digest
from tonelake.store import InputError

REVISION = "musicnn-1"                   # of this code; increase it when results change by more than rounding
JOINED = "joined"
WIDTHS = {**{name: last - first for name, (first, last) in SPANS.items()}, "max": STATES, "mean": STATES, "penultimate": DENSE}
PATCHES_AT_ONCE = {"cpu": 20}            # in memory: 20 take 30 MB
MOST_PATCHES = 320
CLIPS_AT_ONCE = 32                       # on an accelerator


@dataclass(frozen=True, kw_only=True)
class Statistics:
    """(window, width) float32 tensors of each layer, over the same frames of every window."""

    mean: list[Any]
    max: list[Any]


class MusicnnEncoder(Encoder):
    """The networks that musicnn trained on MagnaTagATune and on the Million Song Dataset."""

    name = "musicnn"
    sample_rate = SAMPLE_RATE
    layers = (*(f"{network}.{layer}" for network in NETWORKS for layer in WIDTHS), JOINED)
    dims = (*(width for _ in NETWORKS for width in WIDTHS.values()), len(NETWORKS) * DENSE)
    default_layer = len(layers) - 1
    frame_samples = HOP
    frame_offset = 0
    frame_field = HOP                    # half of the spectrum's window on the right of the centre; the left is reflected
    licence = "ISC"
    needs_torch = True
    tags = tag_names()
    tag_layers = tuple(f"{network}.penultimate" for network in NETWORKS)
    precisions = PRECISIONS

    def __init__(self, folder: Path, *, device: str = "cpu") -> None:
        """Load in float32 from a folder as `weights.convert` writes it.  Raises CheckpointError if its files are refused."""
        import torch

        self._tensors = read_networks(folder)
        digests = [REVISION, *map(tensor_digest, self._tensors.values())]
        self.revision = hashlib.blake2b(" ".join(digests).encode(), digest_size=16).hexdigest()
        self.device, kind = device, torch.device(device).type
        self.clips_at_once = 1 if kind == "cpu" else CLIPS_AT_ONCE
        self.clips_in_parallel = torch.get_num_threads() if kind == "cpu" else 1
        self._load("float32")

    def _load(self, precision: str) -> None:
        self.precision = precision
        self._networks = [Network(tensors, precision, self.device) for tensors in self._tensors.values()]

    def at(self, precision: str) -> MusicnnEncoder:
        """This encoder with convolutions in another precision; all other steps stay in float32."""
        if precision == self.precision:
            return self
        if precision not in self.precisions:
            raise InputError(f"precision {precision!r}: unknown. Choose one of {', '.join(self.precisions)}")
        other = copy.copy(self)
        other._load(precision)
        return other

    def frames_of(self, samples: int) -> int:
        """Number of frames of a window that count."""
        return place_patches(samples)[-1].last

    def encode(self, windows: np.ndarray, keep: Sequence[FrameSpan] | None = None, frames: Sequence[int] = ()) -> Pooled:
        """(batch, samples) of one length -> every layer, pooled."""
        import torch

        patches = place_patches(windows.shape[1])
        total = patches[-1].last
        counted = [slice(*span).indices(total)[:2] for span in keep or [(0, None)] * len(windows)]
        means: list[list[np.ndarray]] = []                           # [rows][layer]
        maxima: list[list[np.ndarray]] = []
        states: list[list[np.ndarray]] = [[] for _ in frames]
        with torch.inference_mode():
            for rows, outputs in self._run(windows, patches):
                mean = [np.empty((rows.stop - rows.start, dim), np.float32) for dim in self.dims]
                most = [np.empty_like(array) for array in mean]
                for span in dict.fromkeys(counted[rows]):
                    chosen = [row for row, other in enumerate(counted[rows]) if other == span]
                    found = self._pool([at_rows(output, chosen, len(patches)) for output in outputs], patches, span)
                    for layer in range(len(self.dims)):
                        mean[layer][chosen], most[layer][chosen] = found.mean[layer].cpu(), found.max[layer].cpu()
                means.append(mean)
                maxima.append(most)
                for number, layer in enumerate(frames):
                    of_layer = self.frames(outputs, layer, patches)
                    states[number] += [
                        window[slice(*span)].numpy() for window, span in zip(of_layer, counted[rows], strict=True)
                    ]
        return Pooled(
            [np.concatenate(parts) for parts in zip(*means, strict=True)],
            [np.concatenate(parts) for parts in zip(*maxima, strict=True)],
            np.array([max(0, last - first) for first, last in counted]), states,
        )

    def states(self, window: np.ndarray, layer: int) -> np.ndarray:
        """(samples,) -> (frame, dim) float32 of one layer, to the last frame of the window, however short the rest."""
        return self.states_of(window, (layer,))[0]

    def states_of(self, window: np.ndarray, layers: Sequence[int]) -> list[np.ndarray]:
        import torch

        patches = place_patches(len(window), least_rest=1)
        with torch.inference_mode():
            ((_, outputs),) = self._run(window[None], patches)
            return [self.frames(outputs, layer, patches)[0].float().numpy() for layer in layers]

    def live_pass(self, layers: Sequence[int], drift: float) -> LivePass:
        if self.device != "cpu":
            return super().live_pass(layers, drift)
        from tonelake.embed.encoders.musicnn.live import MusicnnLivePass

        return MusicnnLivePass(self, layers)

    def networks_of(self, layers: Sequence[int]) -> dict[int, Network]:
        """The networks that compute these layers, by number."""
        joined = len(self.layers) - 1
        return {
            number: network for number, network in enumerate(self._networks)
            if any(layer == joined or layer // len(WIDTHS) == number for layer in layers)
        }

    def score_tags(self, means: Sequence[np.ndarray]) -> np.ndarray:
        """(clip, 200) mean vectors of both penultimate layers -> (clip, tag) scores from 0 to 1.

        The tags' layer is linear up to its sigmoid, so these are scores of the mean evidence of all patches; musicnn itself
        averages the scores of patches.
        """
        import torch

        found = []
        for network, vectors in zip(self._networks, means, strict=True):
            penultimate = torch.from_numpy(np.ascontiguousarray(vectors, np.float32)).to(self.device)
            found.append(network.tags(penultimate).cpu().numpy())
        return merge_scores(found)

    def _run(self, windows: np.ndarray, patches: Sequence[Patch]) -> Iterator[tuple[slice, list[PatchStates]]]:
        """(rows of windows, each network's output for their patches, window by window), as many at once as fit."""
        import torch

        at_once = max(1, PATCHES_AT_ONCE.get(torch.device(self.device).type, MOST_PATCHES) // len(patches))
        needed = patches[-1].begin + PATCH if len(patches) > 1 else patches[-1].last
        for first in range(0, len(windows), at_once):
            rows = slice(first, min(first + at_once, len(windows)))
            batch = torch.from_numpy(np.ascontiguousarray(windows[rows], np.float32)).to(self.device)
            if batch.shape[1] < MIN_SAMPLES:
                batch = batch.repeat(1, -(-MIN_SAMPLES // batch.shape[1]))
            mel = log_mel(batch, needed)                             # (window, frame, band)
            if needed < PATCH:
                mel = mel[:, torch.arange(PATCH) % needed]
            cut = torch.stack([mel[:, patch.begin : patch.begin + PATCH] for patch in patches], dim=1).flatten(0, 1)
            yield rows, [network(cut) for network in self._networks]

    def _pool(self, outputs: Sequence[PatchStates], patches: Sequence[Patch], span: tuple[int, int]) -> Statistics:
        """Mean and maximum of each layer over a span of frames, the same of every window."""
        import torch

        parts = [
            (number, max(patch.first, span[0]) - patch.begin, min(patch.last, span[1]) - patch.begin)
            for number, patch in enumerate(patches)
        ]
        parts = [part for part in parts if part[2] > part[1]]
        weights = torch.tensor([float(last - first) for _, first, last in parts], device=self.device)
        weights = (weights / weights.sum())[:, None]
        chosen = [number for number, _, _ in parts]
        means, maxima, unit = [], [], []

        def add(vectors: Any, largest: Any | None = None) -> None:
            """Take (window, part, width) means over the frames of each part, and maxima if they differ."""
            means.append((vectors * weights).sum(dim=1))
            maxima.append((vectors if largest is None else largest).amax(dim=1))

        for network, output in zip(self._networks, outputs, strict=True):
            by_patch = [
                values.unflatten(0, (-1, len(patches)))[:, chosen] for values in (output.max, output.mean, output.penultimate)
            ]
            most, mean = by_patch[0].clone(), by_patch[1].clone()    # of the frames that count: all, for most patches
            live = output.live.unflatten(0, (-1, len(patches)))
            for part, (number, first, last) in enumerate(parts):
                if last - first < PATCH:
                    counted = live[:, number, first:last]
                    most[:, part], mean[:, part] = network.full(counted.amax(dim=1)), network.full(counted.mean(dim=1))
            for begin, end in SPANS.values():
                add(mean[:, :, begin:end], most[:, :, begin:end])
            for vectors in by_patch:
                add(vectors)
            unit.append(by_patch[2])
        add(join(unit))
        return Statistics(mean=means, max=maxima)

    def frames(self, outputs: Sequence[PatchStates] | Mapping[int, PatchStates], layer: int, patches: Sequence[Patch]) -> Any:
        """(window, frame, dim) float16 of one layer, on the CPU, of the frames that these patches answer for.

        `outputs`: of each network, at least of those that the layer needs.
        """
        import torch

        network, kind = divmod(layer, len(WIDTHS))
        name = JOINED if network == len(self._networks) else list(WIDTHS)[kind]
        if name in SPANS:
            values = self._networks[network].full(outputs[network].live)[..., slice(*SPANS[name])]
        else:
            both = range(len(self._networks))
            of_patch = join([outputs[i].penultimate for i in both]) if name == JOINED else getattr(outputs[network], name)
            values = of_patch[:, None].expand(-1, PATCH, -1)
        values = values.unflatten(0, (-1, len(patches)))             # (window, patch, frame, dim)
        parts = [
            values[:, number, patch.first - patch.begin : patch.last - patch.begin] for number, patch in enumerate(patches)
        ]
        return torch.cat(parts, dim=1).half().cpu()


def at_rows(output: PatchStates, rows: Sequence[int], patches: int) -> PatchStates:
    """The output for the patches of some windows."""
    if len(rows) * patches == len(output.max):
        return output
    chosen = [row * patches + patch for row in rows for patch in range(patches)]
    return PatchStates(**{name: getattr(output, name)[chosen] for name in ("live", "max", "mean", "penultimate")})


def join(penultimate: Sequence[Any]) -> Any:
    """Vectors of both networks, each scaled to the same length, side by side, of length 1 together."""
    import torch

    parts = [torch.nn.functional.normalize(vectors, dim=-1) for vectors in penultimate]
    return torch.cat(parts, dim=-1) / len(parts) ** 0.5
