"""Log mel bands as the networks were trained on: (batch, samples) at 16 kHz -> (batch, frame, 96) float32.

Power spectrogram (periodic Hann window of 512 samples every 256, centred, reflected at the ends), 96 Slaney mel bands of equal
area from 0 to 8 kHz, log10(10,000 x + 1).  Frame i is centred at sample 256 i.
"""

from __future__ import annotations

from functools import cache
from typing import Any

from tonelake.embed.encoders.mel_bands import mel_bands

SAMPLE_RATE = 16_000
FFT = 512
HOP = 256                                # 62.5 frames a second
BANDS = 96
MIN_SAMPLES = FFT                        # fewer cannot be reflected


def log_mel(samples: Any, frames: int) -> Any:
    """The first `frames` frames of a batch of at least `MIN_SAMPLES` samples each."""
    import torch

    length = HOP * (frames - 1) + FFT    # of the padded signal, on which these frames depend
    padded = torch.nn.functional.pad(samples[:, None], (FFT // 2, FFT // 2), mode="reflect")[:, 0, :length]
    window, bands = constants(str(samples.device))
    power = torch.fft.rfft(padded.unfold(1, FFT, HOP) * window).abs().square_()
    return (power @ bands).mul_(10_000).add_(1).log10_()


@cache
def constants(device: str) -> tuple[Any, Any]:
    """The (512,) window and the (257, 96) triangles of the mel bands, on a device."""
    import torch

    bands = mel_bands(FFT // 2 + 1, BANDS, 0.0, SAMPLE_RATE / 2, SAMPLE_RATE, scale="slaney", equal_area=True)
    return torch.hann_window(FFT, device=device), torch.from_numpy(bands).float().to(device)
