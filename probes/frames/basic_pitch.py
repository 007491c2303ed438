"""The model that basic-pitch publishes (Bittner et al., ICASSP 2022), as a baseline: samples to probabilities of notes.

The ONNX file of an installed `basic-pitch` is run by onnxruntime; nothing of the package is imported and nothing is unpickled.
Its own requirements (TensorFlow) are not needed, so it is installed without them.  Therefore it cannot be an extra of tonelake,
which would ask for them as well.

Probabilities have the outputs of `frame_task("notes")`, so that `decode` and `choose_decoding` apply to them.  The model has no
offsets, so these are zero.  The further steps of basic-pitch's own decoder (onsets inferred from frames, and a search for notes
without onsets, called melodia trick) are left out.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from tonelake.probes.frames.tasks import frame_task
from tonelake.store import InputError

RELEASE = "basic-pitch==0.4.0"
MODEL = Path("saved_models", "icassp_2022", "nmp.onnx")              # in the package's folder
SAMPLE_RATE, HOP = 22_050, 256
WINDOW = 2 * SAMPLE_RATE - HOP           # samples that the model takes
CONTEXT = 15                             # frames at either end of a window that are left out
FRAMES = 172                             # of a window
STEP = WINDOW - 2 * CONTEXT * HOP        # samples from one window to the next
INPUT = "serving_default_input_2:0"
FRAME_OUTPUT, ONSET_OUTPUT = "StatefulPartitionedCall:1", "StatefulPartitionedCall:2"


class Session(Protocol):
    """The methods of onnxruntime.InferenceSession that are used."""

    def run(self, outputs: Sequence[str], feeds: dict[str, np.ndarray]) -> Sequence[Any]: ...


class BasicPitch:
    """The published model."""

    def __init__(self, session: Session | None = None) -> None:
        """Load the installed model.  Raises InputError if basic-pitch or onnxruntime is not installed."""
        self.task = frame_task("notes")
        self._session = load_session() if session is None else session

    def posteriors(self, samples: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return (frame,) centres in seconds and (frame, output) float32 probabilities of (samples,) at 22,050 Hz."""
        padded = np.pad(np.asarray(samples, np.float32), (CONTEXT * HOP, 0))
        times, found = [], []
        for start in range(0, max(len(samples), 1), STEP):
            window = padded[start : start + WINDOW]
            window = np.pad(window, (0, WINDOW - len(window)))
            frames, onsets = self._session.run([FRAME_OUTPUT, ONSET_OUTPUT], {INPUT: window[None, :, None]})
            kept = slice(CONTEXT, FRAMES - CONTEXT)
            blank = np.zeros_like(frames[0][kept])
            found.append(np.concatenate([onsets[0][kept], frames[0][kept], blank], axis=1))
            times.append((start + HOP * np.arange(len(blank))) / SAMPLE_RATE)
        frame_s, probabilities = np.concatenate(times), np.concatenate(found).astype(np.float32)
        inside = frame_s < max(len(samples), 1) / SAMPLE_RATE
        return frame_s[inside], probabilities[inside]


def load_session() -> Session:
    """Load the installed model.  Raises InputError if basic-pitch or onnxruntime is not installed."""
    package = find_spec("basic_pitch")
    folders = [Path(folder) for folder in (package.submodule_search_locations or [])] if package else []
    model = next((folder / MODEL for folder in folders if (folder / MODEL).is_file()), None)
    if model is None or find_spec("onnxruntime") is None:
        missing = RELEASE.partition("=")[0] if model is None else "onnxruntime"
        pip = f"{sys.executable or 'python'} -m pip install"
        raise InputError(
            f"{missing}: not installed, and the baseline basic-pitch needs it. "
            f"Install with: {pip} onnxruntime && {pip} --no-deps {RELEASE}"
        )
    runtime: Any = import_module("onnxruntime")
    return runtime.InferenceSession(str(model), providers=["CPUExecutionProvider"])
