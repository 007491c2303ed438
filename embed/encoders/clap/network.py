"""The audio side of CLAP as one module: (part, samples) -> mean and maximum of every layer.

HTSAT (arXiv 2202.00874) folds the spectrogram of a part into a square and runs four stages of a windowed transformer over its
patches, the patches of each stage four times as large as those of the one before.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from transformers.audio_utils import mel_filter_bank, window_function

from tonelake.embed.encoders.clap.checkpoint import FrontEnd


class LogMel(nn.Module):
    """(part, samples) -> (part, 1, frame, band): the decibels of a mel spectrogram, always in float32.

    As `ClapFeatureExtractor` computes it for unfused checkpoints: Slaney's bands, no reference level.
    """

    window: torch.Tensor
    filters: torch.Tensor

    def __init__(self, front: FrontEnd) -> None:
        super().__init__()
        self._front = front
        filters = mel_filter_bank(
            front.fft_window_size // 2 + 1, front.feature_size, front.frequency_min, front.frequency_max, front.sampling_rate,
            norm="slaney", mel_scale="slaney",
        )
        window = torch.from_numpy(window_function(front.fft_window_size, "hann"))
        self.register_buffer("window", window.float(), persistent=False)
        self.register_buffer("filters", torch.from_numpy(filters).float(), persistent=False)

    def forward(self, parts: torch.Tensor) -> torch.Tensor:
        with torch.autocast(parts.device.type, enabled=False):
            spectrum = torch.stft(
                parts.float(), self._front.fft_window_size, self._front.hop_length, window=self.window, return_complex=True,
            )
            power = spectrum.real.square() + spectrum.imag.square()
            mel = power.transpose(1, 2) @ self.filters               # (part, frame, band)
            return 10 * mel.clamp(min=1e-10).log10()[:, None]


class ClapAudio(nn.Module):
    """Front end, HTSAT and projection."""

    def __init__(self, front: FrontEnd, model: Any) -> None:
        super().__init__()
        self.log_mel = LogMel(front)
        self.audio_model = model.audio_model
        self.audio_projection = model.audio_projection

    def forward(self, parts: torch.Tensor) -> list[tuple[torch.Tensor, torch.Tensor]]:
        """(part, samples) -> mean and maximum over the patches of each stage, the last one after the final norm, and twice the
        part's vector of unit length in the joint space.
        """
        found = self.audio_model(
            input_features=self.log_mel(parts), output_hidden_states=True, output_hidden_states_before_downsampling=True,
        )
        stages = [*found.hidden_states[1:-1], found.last_hidden_state]           # (part, dim, height, width)
        joint = nn.functional.normalize(self.audio_projection(found.pooler_output).float(), dim=-1)
        return [(stage.float().mean(dim=(2, 3)), stage.float().amax(dim=(2, 3))) for stage in stages] + [(joint, joint)]

    def run_block(self, states: torch.Tensor) -> torch.Tensor:
        """(part, patch, dim) -> the states that leave the first block of the deepest stage if these enter it."""
        stage = self.deepest
        found: torch.Tensor = self.audio_model.audio_encoder.layers[stage].blocks[0](states, self.grid(stage))[0]
        return found

    @property
    def deepest(self) -> int:
        """Number of the stage of most blocks, from 0."""
        depths = [len(stage.blocks) for stage in self.audio_model.audio_encoder.layers]
        return depths.index(max(depths))

    def grid(self, stage: int) -> tuple[int, int]:
        """Rows and columns of a stage's patches."""
        height, width = self.audio_model.audio_encoder.input_resolutions[stage]
        return int(height), int(width)
