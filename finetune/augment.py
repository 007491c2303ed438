"""Augmentation of a clip's audio, in training only: (samples,) float32 -> (samples,) float32.

In torch, on the encoder's device: on a CPU, a phase vocoder over 30 s takes as long as decoding them.  The changes to a clip
depend only on seed, epoch and clip, so that a resumed run gives the same result.  librosa and audiomentations are not used:
they run on the CPU only.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from tonelake.finetune.config import FinetuneConfig

FFT, HOP = 2048, 512                     # phase vocoder, in samples
LEAST_SEMITONES = 0.05                   # smaller shifts are inaudible


def augment(
    batch: Sequence[torch.Tensor], rows: Sequence[int], tracks: np.ndarray, config: FinetuneConfig, rate: int, epoch: int
) -> list[torch.Tensor]:
    """Augment a batch of clips, each in its own way.  `rows`: of the task; `tracks`: (row,) int, of the whole task.

    If stems are mixed without `mix_stems`, a clip is mixed with another clip of the batch, of another track, and keeps its own
    label.
    """
    changed = []
    for original, row in zip(batch, rows, strict=True):
        audio = original
        rng = np.random.default_rng((config.seed, 2, epoch, int(row)))
        others = [i for i, other in enumerate(rows) if tracks[other] != tracks[row]]
        mixes, partner, quieter = rng.random() < config.mix, rng.random(), rng.uniform(0.3, 1.0)
        if mixes and others and config.mix_stems is None:             # else the source mixes (`stem_mixing`)
            audio = mix_in(audio, batch[others[int(partner * len(others))]], quieter)
        semitones = rng.uniform(-config.pitch, config.pitch)
        if abs(semitones) > LEAST_SEMITONES:
            audio = shift_pitch(audio, semitones)
        shift = round(rng.uniform(-config.shift_s, config.shift_s) * rate)
        if shift:
            audio = torch.roll(audio, shift)
        audio = audio * (1 + rng.uniform(-config.gain, config.gain))
        if config.noise:
            noise = torch.Generator(audio.device).manual_seed(int(rng.integers(2**62)))
            audio = audio + config.noise * torch.randn(audio.shape, generator=noise, device=audio.device)
        changed.append(audio)
        assert len(audio) == len(original)
    return changed


def mix_in(audio: torch.Tensor, other: torch.Tensor, level: float) -> torch.Tensor:
    """Mix in another sound at `level` of this one's loudness; a shorter one is repeated."""
    loudness = audio.square().mean().sqrt() / (other.square().mean().sqrt() + 1e-6)
    repeats = -(-len(audio) // max(len(other), 1))
    return audio + level * loudness * other.repeat(repeats)[: len(audio)]


def shift_pitch(audio: torch.Tensor, semitones: float) -> torch.Tensor:
    """Shift the pitch by `semitones` at constant length: stretch by a phase vocoder, then resample.

    Flanagan and Golden 1966; like librosa's `pitch_shift`, but resampled as a single spectrum.
    """
    if len(audio) < FFT:
        return audio
    ratio = 2 ** (semitones / 12)
    window = torch.hann_window(FFT, device=audio.device)
    # Zero padding: with reflection, the phases of neighbouring bins would cancel from the first frame on.
    spectrum = torch.stft(audio, FFT, HOP, window=window, pad_mode="constant", return_complex=True)       # (bin, frame)
    length = round(len(audio) * ratio)
    slower = torch.istft(stretch_spectrum(spectrum, 1 / ratio), FFT, HOP, window=window, length=length)
    bins = torch.fft.rfft(slower)
    kept = min(len(bins), len(audio) // 2 + 1)
    target = torch.zeros(len(audio) // 2 + 1, dtype=bins.dtype, device=audio.device)
    target[:kept] = bins[:kept]
    return torch.fft.irfft(target, n=len(audio)) * (len(audio) / length)


def stretch_spectrum(spectrum: torch.Tensor, speed: float) -> torch.Tensor:
    """Return a (bin, frame) complex spectrum at another speed: interpolated magnitudes and consistent phases."""
    bins, frames = spectrum.shape
    expected = torch.linspace(0, np.pi * HOP, bins, device=spectrum.device)[:, None]         # phase advance per hop
    positions = torch.arange(0, frames, speed, device=spectrum.device, dtype=torch.float64)
    first = positions.long().clamp(max=frames - 1)
    after = (first + 1).clamp(max=frames - 1)
    share = (positions - first).float()
    magnitude = (1 - share) * spectrum[:, first].abs() + share * spectrum[:, after].abs()
    turned = spectrum[:, after].angle() - spectrum[:, first].angle() - expected
    turned = turned - 2 * np.pi * torch.round(turned / (2 * np.pi)) + expected
    phase = spectrum[:, :1].angle() + torch.cumsum(turned.double(), dim=1).roll(1, dims=1).index_fill(
        1, torch.zeros(1, dtype=torch.long, device=spectrum.device), 0.0
    )
    return torch.polar(magnitude, phase.float())
