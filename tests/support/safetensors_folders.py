"""Checkpoint folders in the hub's form with one safetensors file: the sounds their states are known for, and damage to them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import soundfile as sf
from safetensors.torch import load_file, save_file

WAVES = ("b_3.7s", "d_1.02s")
# Relative to the largest state.  The mel front ends compute in float32, and these sounds have bands with 1e-10 of their
# frame's energy, whose decibels depend on how a processor's FFT rounds: with the FFT in float64, states differ from the
# published ones by 2e-5, with float32 on AMD by 6e-5.
STATE_TOLERANCE = 1e-4


def wave(checkpoints: Path, name: str) -> np.ndarray:
    """(samples,) float32 of one of `WAVES`."""
    return sf.read(checkpoints / f"{name}.wav", dtype="float32")[0]


def edit_state(folder: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    """Change the tensors of a folder in place."""
    path = folder / "model.safetensors"
    state = load_file(path)
    change(state)
    save_file(state, path)
