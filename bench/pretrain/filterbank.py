"""Initialise the convolution stack as a filter bank, which hours of training would otherwise have to find first.

GELU(x) - GELU(-x) = x.  A stack whose channels come in pairs of opposite sign can therefore pass its signal on linearly, layer
by layer, and the features of each layer can be chosen: one for each pair of channels, the principal components of a span of
audio as long as the layer's receptive field (for audio whose power falls as 1/f); in the last layer windowed sinusoids, a
cosine and a sine for each band.  The last GELU rectifies them, so the level of each band is a linear function of its output.
Each layer's weights follow from the features of the one below by least squares.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy.linalg import toeplitz

LOWEST_HZ, HIGHEST_HZ = 60.0, 6_000.0
NARROWEST_HZ = 60.0                      # resolution of a window of 400 samples
FLOOR = 1e-4                             # level of added white noise, which avoids division by zero


def covariance(samples: int, rate: int) -> np.ndarray:
    """Return the (sample, sample) covariance of unit-variance audio whose power falls as 1/f, LOWEST_HZ to HIGHEST_HZ."""
    frequencies = np.geomspace(LOWEST_HZ, HIGHEST_HZ, 2_000)             # evenly on a logarithmic scale: 1/f
    lags = np.cos(2 * np.pi / rate * np.outer(np.arange(samples), frequencies)).mean(axis=1)
    return toeplitz(lags) + FLOOR * np.eye(samples)


def centres(count: int) -> np.ndarray:
    """Return the centres of this many bands in Hz: as close as can be resolved, and geometrically spaced above some point."""
    low, high = 1e-4, 1.0                # the ratio, by bisection
    for _ in range(60):
        share = (low + high) / 2
        found = [LOWEST_HZ * 1.5]
        for _ in range(count - 1):
            found.append(found[-1] + max(NARROWEST_HZ, share * found[-1]))
        low, high = (share, high) if found[-1] < HIGHEST_HZ * 0.9 else (low, share)
    return np.array(found)


def windowed_sinusoids(bands: int, samples: int, rate: int) -> np.ndarray:
    """Return (2 · band, sample): a cosine and a sine for each band."""
    time = np.arange(samples) - (samples - 1) / 2
    turn = 2 * np.pi / rate * np.outer(centres(bands), time)
    return np.hanning(samples + 2)[1:-1] * np.stack([np.cos(turn), np.sin(turn)], axis=1).reshape(2 * bands, samples)


def principal(count: int, cov: np.ndarray) -> np.ndarray:
    """Return (count, sample): the directions of largest variance, or all samples if there are fewer."""
    if count >= len(cov):
        return np.eye(len(cov))
    return np.linalg.eigh(cov)[1][:, ::-1][:, :count].T


def start_as_filterbank(extractor: Any, rate: int) -> np.ndarray:
    """Set the weights of a HuBERT feature extractor; return (feature, sample), the filters of its last channel pairs."""
    import torch

    step, field = 1, 1
    below = np.ones((1, 1))              # features of the layer below, (feature, sample)
    paired = False
    for number, layer in enumerate(extractor.conv_layers):
        weight = layer.conv.weight
        kernel, stride = layer.conv.kernel_size[0], layer.conv.stride[0]
        field += (kernel - 1) * step
        cov = covariance(field, rate)
        pairs = weight.shape[0] // 2
        last = number == len(extractor.conv_layers) - 1
        wanted = windowed_sinusoids(pairs // 2, field, rate) if last else principal(pairs, cov)
        wanted /= np.sqrt(np.einsum("fs,st,ft->f", wanted, cov, wanted))[:, None]            # of unit variance
        seen = np.zeros((kernel, len(below), field))
        for tap in range(kernel):
            seen[tap, :, tap * step : tap * step + below.shape[1]] = below
        seen = seen.reshape(-1, field)
        gram = seen @ cov @ seen.T
        mixing = np.linalg.solve(gram + 1e-6 * np.trace(gram) / len(gram) * np.eye(len(gram)), seen @ cov @ wanted.T).T
        below = mixing @ seen
        taps = mixing.reshape(len(wanted), kernel, -1).transpose(0, 2, 1)                    # (out, in, tap)
        signs = np.array([1.0, -1.0])
        full = np.einsum("oit,p->opit", taps, signs)
        if paired:
            full = np.einsum("opit,q->opiqt", full, signs).reshape(2 * len(wanted), -1, kernel)
        else:
            full = full.reshape(2 * len(wanted), -1, kernel)
        with torch.no_grad():
            weight[: full.shape[0]].mul_(0.02)                       # unpaired channels contribute hardly anything
            weight[: full.shape[0], : full.shape[1]] = torch.from_numpy(full.astype(np.float32))
        paired, step = True, step * stride
    return below


SEMITONES = np.arange(40, 88)            # MIDI pitches, 82 to 1,245 Hz
NARROW = 25                              # periods covered by a semitone's filter
QUIETER = 0.5                            # weight of phase-dependent features beside loudness: not useful by themselves
OWN_BANDS = 3                            # bands combined by a group of the positional convolution


def start_as_semitones(model: Any, frames_a_second: float) -> None:
    """Set the projection and the positional convolution of a HuBERT model whose convolutions are this filter bank.

    Bands of 400 samples cannot separate low semitones; sums of a band over a few frames, in phase, can.  The positional
    convolution has 16 groups of 12 channels: each group receives three bands, cosine and sine, and returns three semitones as
    four quarter-waves, which its GELU rectifies.  The remaining projection outputs take the level of each band.
    """
    import torch

    conv, projection = model.encoder.pos_conv_embed.conv, model.feature_projection.projection
    width, groups = conv.out_channels, conv.groups
    a_group = width // groups
    bands = centres(projection.in_features // 4)
    per_group = len(SEMITONES) // groups
    if a_group < max(2 * OWN_BANDS, 4 * per_group):
        return                           # a model too narrow for it
    kernel = conv.kernel_size[0]
    reads = 0.05 * np.random.default_rng(0).standard_normal((width, projection.in_features)) / np.sqrt(projection.in_features)
    taps = 1e-3 * np.random.default_rng(1).standard_normal((width, a_group, kernel))
    loud = iter(range(len(bands)))
    time = np.arange(kernel) - kernel // 2                           # frames
    for group in range(groups):
        pitches = SEMITONES[group * per_group : (group + 1) * per_group]
        hertz = 440 * 2 ** ((pitches - 69) / 12)
        own = np.sort(np.argsort(np.abs(bands - hertz.mean()))[:OWN_BANDS])
        first = group * a_group
        for place, band in enumerate(own):
            for part in range(2):        # cosine and sine, each the difference of its pair
                reads[first + 2 * place + part, 4 * band + 2 * part : 4 * band + 2 * part + 2] = (QUIETER, -QUIETER)
        for place in range(2 * OWN_BANDS, a_group):
            band = next(loud, None)
            if band is not None:
                reads[first + place, 4 * band : 4 * band + 4] = 1.0
        for number, hz in enumerate(hertz):
            half = max(NARROW / hz * frames_a_second / 2, 1.5)
            window = np.where(np.abs(time) < half, 0.5 + 0.5 * np.cos(np.pi * time / half), 0)
            turn = 2 * np.pi * hz / frames_a_second * time
            near = np.maximum(1 - np.abs(bands[own] - hz) / (2 * NARROWEST_HZ), 0.05)
            window = window / window.sum() / near.sum() / QUIETER
            out = first + 4 * number
            for place, share in enumerate(near):
                cosine, sine = 2 * place, 2 * place + 1
                for phase, (on_cosine, on_sine) in enumerate(((np.cos(turn), -np.sin(turn)), (-np.sin(turn), -np.cos(turn)))):
                    for sign in range(2):
                        taps[out + 2 * phase + sign, cosine] += (1 - 2 * sign) * share * window * on_cosine
                        taps[out + 2 * phase + sign, sine] += (1 - 2 * sign) * share * window * on_sine
    with torch.no_grad():
        projection.weight.copy_(torch.from_numpy(reads.astype(np.float32)))
        projection.bias.zero_()
        conv.weight = torch.from_numpy(taps.astype(np.float32))      # through its weight norm
        conv.bias.zero_()
