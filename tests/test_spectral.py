"""The encoder without weights: what each family of features hears."""

from __future__ import annotations

import numpy as np
from sounds import melody

from embed import load_encoder
from embed.spectral import FAMILIES, describe


def test_spectral_families_tell_what_they_are_for():
    """Chroma follows the pitch class, rhythm the beat, and loudness changes no family that leaves it out."""
    rate = 24_000
    time_s = np.arange(rate * 6) / rate

    def tone(midi):
        return (0.3 * np.sin(2 * np.pi * 440 * 2 ** ((midi - 69) / 12) * time_s)).astype(np.float32)

    families = list(FAMILIES)
    chroma = families.index("chroma")
    for midi in (60, 64, 71):
        assert describe(tone(midi))[chroma].mean(axis=1).argmax() == midi % 12
    clicks = np.zeros(rate * 6, np.float32)
    clicks[:: rate // 2] = 0.9           # 120 beats a minute: every 23.4 frames
    rhythm = describe(clicks)[families.index("rhythm")].mean(axis=1)
    assert 10 + rhythm[10:35].argmax() in (23, 24)
    loud, quiet = describe(tone(60)), describe(tone(60) * 0.25)
    for name in ("chroma", "mfcc", "shape"):
        a, b = loud[families.index(name)].mean(axis=1), quiet[families.index(name)].mean(axis=1)
        assert (a @ b) / np.linalg.norm(a) / np.linalg.norm(b) > 0.99


def test_spectral_vectors_have_their_widths_and_are_finite():
    encoder = load_encoder("spectral")
    for wave in (melody(2, rate=24_000)[:, 0], np.zeros(24_000, np.float32), melody(1, rate=24_000)[:, 0] * 1e-4):
        pooled = encoder.encode(wave[None])
        assert [m.shape for m in pooled.mean] == [(1, dim) for dim in FAMILIES.values()]
        assert all(np.isfinite(v).all() for v in (*pooled.mean, *pooled.max))
