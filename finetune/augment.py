"""What is done to the audio of a clip in training, and never where it is judged: (samples,) float32 -> (samples,) float32.

In torch, on the device that the encoder runs on: a phase vocoder over 30 s takes a CPU as long as decoding them.  What happens
to a clip follows from the seed, the epoch and the clip alone, so a run that was stopped goes on alike.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from tonelake.finetune.config import FinetuneConfig

FFT, HOP = 2048, 512                     # of the phase vocoder, samples
LEAST_SEMITONES = 0.05                   # below it a shift is not heard


def augment(
    waves: Sequence[torch.Tensor], rows: Sequence[int], tracks: np.ndarray, config: FinetuneConfig, rate: int, epoch: int
) -> list[torch.Tensor]:
    """A batch of clips, changed each in its own way.  `rows`: of the task; `tracks`: (row,) int, of the whole task.

    Where stems are mixed, a clip gains another one of the batch, of another track, and keeps its own label.
    """
    changed = []
    for place, (wave, row) in enumerate(zip(waves, rows, strict=True)):
        rng = np.random.default_rng((config.seed, 2, epoch, int(row)))
        others = [i for i, other in enumerate(rows) if tracks[other] != tracks[row]]
        mixes, partner, quieter = rng.random() < config.mix, rng.random(), rng.uniform(0.3, 1.0)
        if mixes and others:
            wave = mixed(wave, waves[others[int(partner * len(others))]], quieter)
        semitones = rng.uniform(-config.pitch, config.pitch)
        if abs(semitones) > LEAST_SEMITONES:
            wave = pitch_shifted(wave, semitones)
        shift = round(rng.uniform(-config.shift_s, config.shift_s) * rate)
        if shift:
            wave = torch.roll(wave, shift)
        wave = wave * (1 + rng.uniform(-config.gain, config.gain))
        if config.noise:
            noise = torch.Generator(wave.device).manual_seed(int(rng.integers(2**62)))
            wave = wave + config.noise * torch.randn(wave.shape, generator=noise, device=wave.device)
        changed.append(wave)
        assert len(wave) == len(waves[place])
    return changed


def mixed(wave: torch.Tensor, other: torch.Tensor, level: float) -> torch.Tensor:
    """Two sounds at once, the other one at `level` of this one's loudness; it is repeated where it is shorter."""
    loudness = wave.square().mean().sqrt() / (other.square().mean().sqrt() + 1e-6)
    repeats = -(-len(wave) // max(len(other), 1))
    return wave + level * loudness * other.repeat(repeats)[: len(wave)]


def pitch_shifted(wave: torch.Tensor, semitones: float) -> torch.Tensor:
    """Higher or lower by so many semitones, as long as before: stretched by a phase vocoder, then played faster or slower.

    Flanagan and Golden 1966; as librosa's `pitch_shift`, but resampled as one spectrum.
    """
    if len(wave) < FFT:
        return wave
    ratio = 2 ** (semitones / 12)
    window = torch.hann_window(FFT, device=wave.device)
    # Silence before the start: a reflection's phases would set neighbouring bins against each other from there on.
    spectrum = torch.stft(wave, FFT, HOP, window=window, pad_mode="constant", return_complex=True)       # (bin, frame)
    length = round(len(wave) * ratio)
    slower = torch.istft(stretched(spectrum, 1 / ratio), FFT, HOP, window=window, length=length)
    bins = torch.fft.rfft(slower)
    kept = min(len(bins), len(wave) // 2 + 1)
    target = torch.zeros(len(wave) // 2 + 1, dtype=bins.dtype, device=wave.device)
    target[:kept] = bins[:kept]
    return torch.fft.irfft(target, n=len(wave)) * (len(wave) / length)


def stretched(spectrum: torch.Tensor, speed: float) -> torch.Tensor:
    """(bin, frame) complex at another speed: magnitudes between frames, phases that advance as they do there."""
    bins, frames = spectrum.shape
    expected = torch.linspace(0, np.pi * HOP, bins, device=spectrum.device)[:, None]         # per hop, of each bin's centre
    places = torch.arange(0, frames, speed, device=spectrum.device, dtype=torch.float64)
    first = places.long().clamp(max=frames - 1)
    after = (first + 1).clamp(max=frames - 1)
    share = (places - first).float()
    magnitude = (1 - share) * spectrum[:, first].abs() + share * spectrum[:, after].abs()
    turned = spectrum[:, after].angle() - spectrum[:, first].angle() - expected
    turned = turned - 2 * np.pi * torch.round(turned / (2 * np.pi)) + expected
    phase = spectrum[:, :1].angle() + torch.cumsum(turned.double(), dim=1).roll(1, dims=1).index_fill(
        1, torch.zeros(1, dtype=torch.long, device=spectrum.device), 0.0
    )
    return torch.polar(magnitude, phase.float())
