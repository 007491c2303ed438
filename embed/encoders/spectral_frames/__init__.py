"""Spectra with frames, as encoders without weights: `logmel`, `vqt` and `cqt`."""
