"""The mel front end of conformer encoders: (batch, samples) -> (batch, mel frame, band) float32, standardised decibels.

Power spectrogram (centred, reflected at the ends), HTK mel bands without area normalisation, decibels, the last frame dropped,
each band standardised.  Always in float32, also under autocast.  Window, bands, means and standard deviations are buffers, with
the names of MERT-v2's checkpoints.
"""

from __future__ import annotations

import torch
from torch import nn

from tonelake.embed.encoders.mel_bands import mel_bands

STD_FLOOR, POWER_FLOOR = 1e-5, 1e-10


class Buffers(nn.Module):
    """A module that only holds buffers."""

    def __init__(self, **shapes: tuple[int, ...]) -> None:
        super().__init__()
        for name, shape in shapes.items():
            self.register_buffer(name, torch.empty(shape))


class Spectrogram(Buffers):
    window: torch.Tensor


class MelScale(Buffers):
    fb: torch.Tensor                     # (bin, band)


class FrontEnd(Buffers):
    """(batch, samples) -> (batch, mel frame, band) float32."""

    mel_mean: torch.Tensor
    mel_std: torch.Tensor

    def __init__(self, *, bands: int, fft: int, window: int, hop: int) -> None:
        super().__init__(mel_mean=(bands,), mel_std=(bands,))
        self.spectrogram = Spectrogram(window=(window,))
        self.mel_scale = MelScale(fb=(fft // 2 + 1, bands))
        self.fft, self.window, self.hop = fft, window, hop

    def forward(self, samples: torch.Tensor) -> torch.Tensor:
        with torch.autocast(samples.device.type, enabled=False):
            spectrum = torch.stft(
                samples.float(), self.fft, self.hop, self.window, self.spectrogram.window, center=True, pad_mode="reflect",
                onesided=True, return_complex=True,
            )                                                        # (batch, bin, frame)
            power = spectrum.real.square() + spectrum.imag.square()
            mel = power[..., :-1].transpose(1, 2) @ self.mel_scale.fb
            decibels = 10 * torch.log10(mel.clamp(min=POWER_FLOOR))
            return (decibels - self.mel_mean) / self.mel_std.clamp(min=STD_FLOOR)


def htk_bands(bands: int, fft: int, sample_rate: int) -> torch.Tensor:
    """(bin, band) float32: HTK mel bands from 0 Hz to half the sample rate, without area normalisation."""
    return torch.from_numpy(mel_bands(fft // 2 + 1, bands, 0.0, sample_rate / 2, sample_rate, scale="htk")).float()
