"""Live passes of musicnn on a CPU: mel bands and timbral filters of new audio alone.

    window  ->  mel bands of its new frames  ->  timbral filters of rows not seen before  ->  the rest of the patches wanted

Most of a network's work are the timbral filters, which see seven frames.  Away from the edges of a patch their outputs do not
depend on where the patch lies, so each frame's are computed once, when the third frame after it is there.  Computed for each
window are its first frame, whose spectrum is reflected; the frames that see it or the zeros around a patch; and, where a window
shorter than a patch is repeated, those that see its end and its beginning.  Temporal filters see up to 128 of the patch's 187
frames, and are computed for each window.  Patches that answer for none of the wanted frames are left out.

Frames equal those of `MusicnnEncoder.states`: the same products in another order.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from tonelake.embed.encoders.live_pass import LivePass
from tonelake.embed.encoders.musicnn.mel import BANDS, HOP, MIN_SAMPLES, log_mel
from tonelake.embed.encoders.musicnn.network import PATCH, TIMBRAL_FRAMES, Network, PatchStates, timbral_rows
from tonelake.embed.encoders.musicnn.patches import Patch, place_patches

if TYPE_CHECKING:
    from tonelake.embed.encoders.musicnn.encoder import MusicnnEncoder

HALF = TIMBRAL_FRAMES // 2


class MusicnnLivePass(LivePass):
    """Memory is constant: for each frame of the window, mel bands and the outputs of timbral filters."""

    encoder: MusicnnEncoder

    def __init__(self, encoder: MusicnnEncoder, layers: Sequence[int]) -> None:
        import torch

        super().__init__(encoder, layers)
        self._networks = encoder.networks_of(layers)
        self._mel = torch.empty((0, BANDS))
        self._timbral = {number: torch.empty((0, network.timbral_width)) for number, network in self._networks.items()}
        self._known = np.zeros(0, bool)  # frames whose timbral outputs are there
        self._end = 0                    # frames of the stream up to the end of the window before

    def states(self, window: np.ndarray, begin: int, wanted: slice) -> list[np.ndarray]:
        import torch

        if len(window) < MIN_SAMPLES:
            return super().states(window, begin, wanted)
        patches = [
            patch for patch in place_patches(len(window), least_rest=1)
            if patch.first < wanted.stop and patch.last > wanted.start
        ]
        shown = slice(wanted.start - patches[0].first, wanted.stop - patches[0].first)
        with torch.inference_mode():
            self._advance(torch.from_numpy(np.ascontiguousarray(window, np.float32)), begin)
            outputs = self._run(patches)
            return [self.encoder.frames(outputs, layer, patches)[0, shown].float().numpy() for layer in self.layers]

    def _advance(self, samples: Any, begin: int) -> None:
        """Move to the window that begins with frame `begin`: drop the frames before it, add the mel bands of new ones."""
        import torch

        count = len(samples) // HOP
        old = max(0, self._end - begin)
        first = max(0, old - 1)          # so that the spectrum of no new frame is reflected
        new = log_mel(samples[None, first * HOP :], count - first)[0, old - first :]
        kept = slice(len(self._mel) - old, None)
        self._mel = torch.cat([self._mel[kept], new])
        self._timbral = {
            number: torch.cat([values[kept], values.new_empty(count - old, values.shape[1])])
            for number, values in self._timbral.items()
        }
        self._known = np.concatenate([self._known[kept], np.zeros(count - old, bool)])
        if old:                          # the window's first frame is reflected: the cached one is used no more
            self._mel[0] = log_mel(samples[None, :MIN_SAMPLES], 1)[0, 0]
        self._end = begin + count

    def _run(self, patches: Sequence[Patch]) -> dict[int, PatchStates]:
        """The states of each network for these patches of the window."""
        import torch

        count = len(self._mel)
        frames = np.stack([(patch.begin + np.arange(PATCH)) % count for patch in patches])       # of the window
        at = np.arange(PATCH)
        # Rows that see seven frames of the window in their order, and not its first one.
        usual = (frames > HALF) & (frames < count - HALF) & (at >= HALF) & (at < PATCH - HALF)
        known = usual & self._known[frames]
        _, firsts = np.unique(np.where(usual & ~known, frames, -1), return_index=True)
        to_compute = ~usual
        to_compute.flat[firsts] |= ~known.flat[firsts]
        mel = self._mel[torch.from_numpy(frames)]
        outputs = {}
        for number, network in self._networks.items():
            outputs[number] = self._states(number, network, mel, frames, usual, to_compute)
        self._known[frames[usual]] = True
        return outputs

    def _states(
        self, number: int, network: Network, mel: Any, frames: np.ndarray, usual: np.ndarray, to_compute: np.ndarray
    ) -> PatchStates:
        """One network's output for (patch, 187, band) mel bands of these frames."""
        import torch

        normalized, timbral = network.normalize(mel), self._timbral[number]
        rows = torch.from_numpy(np.flatnonzero(to_compute))
        found = network.timbral_of(timbral_rows(normalized)[rows])
        stored = torch.from_numpy(usual[to_compute])
        timbral[torch.from_numpy(frames[usual & to_compute])] = found[stored]
        states = torch.empty(*mel.shape[:2], len(network.live))
        flat = states.flatten(0, 1)
        flat[:, : network.timbral_width] = timbral[torch.from_numpy(frames.ravel())]
        flat[rows, : network.timbral_width] = found
        network.fill_rest(normalized, states)
        return network.pool(states)
