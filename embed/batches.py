"""Choose the number of windows per batch, and reduce it if memory runs out.

On a CPU half a minute of audio fills the cores, and more only costs memory.  On an accelerator the number is measured:
the memory of one more window, compared with the free memory.  If memory still runs out, because another program took it,
the batch is halved and tried again.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np

from tonelake.embed.errors import EncoderError

CPU_SECONDS = 30.0                       # of audio per batch: 6 windows of 5 s are 7 % faster together than one by one
FREE_SHARE = 0.7                         # of the free memory of an accelerator that batches may take
MOST_WINDOWS = 64                        # enough to keep the largest accelerators busy

Result = TypeVar("Result")


class Batches:
    """Batch sizes on one device, as measured so far."""

    def __init__(self, device: str, sample_rate: int) -> None:
        self._kind = device.partition(":")[0]
        self._device = device
        self._cpu_samples = round(CPU_SECONDS * sample_rate)
        self._sizes: dict[int, int] = {}                             # by window length, if measured

    def size(self, samples: int) -> int:
        """Number of windows of this length per batch; one, on an accelerator, for a length that was not measured."""
        if self._kind == "cpu":
            return max(1, self._cpu_samples // samples)
        return self._sizes.get(samples, 1)

    def measure(self, samples: int, forward: Callable[[np.ndarray], Any]) -> int:
        """Measure the batch size for a length on CUDA by the memory of one and of two windows; does nothing on other devices.

        Raises EncoderError if not even one window fits.
        """
        if self._kind != "cuda" or samples in self._sizes:
            return self.size(samples)
        import torch

        def peak(count: int) -> int:
            torch.cuda.reset_peak_memory_stats(self._device)
            forward(np.zeros((count, samples), np.float32))
            return torch.cuda.max_memory_allocated(self._device)

        try:
            peak(1)                                                  # libraries allocate their workspaces
            one = peak(1)
        except torch.OutOfMemoryError as error:
            raise self._no_room(samples) from error
        try:
            two = peak(2)
        except torch.OutOfMemoryError:
            torch.cuda.empty_cache()
            self._sizes[samples] = 1
            return 1
        free, _ = torch.cuda.mem_get_info(self._device)
        free += torch.cuda.memory_reserved(self._device) - torch.cuda.memory_allocated(self._device)
        fitting = int(FREE_SHARE * free / max(two - one, 1))
        self._sizes[samples] = 1 << (min(max(fitting, 1), MOST_WINDOWS).bit_length() - 1)        # a power of two
        return self._sizes[samples]

    def run(self, windows: np.ndarray, forward: Callable[[np.ndarray, slice], Result]) -> list[Result]:
        """Apply `forward` to windows in batches of `size`, halved if memory runs out; it gets the batch and the rows in it.

        On an accelerator an incomplete batch is filled up with copies of its first window, whose results are ignored:
        kernels are chosen by shape, so otherwise a window's vector would depend on the number of windows in its batch.
        Raises EncoderError if not even one window fits.
        """
        import torch

        samples = windows.shape[1]
        results, begin = [], 0
        while begin < len(windows):
            size = self.size(samples)
            rows = slice(begin, min(begin + size, len(windows)))
            part = windows[rows]
            if self._kind != "cpu" and len(part) < size:
                part = np.concatenate([part, np.repeat(part[:1], size - len(part), axis=0)])
            try:
                results.append(forward(part, rows))
            except torch.OutOfMemoryError as error:
                if size == 1:
                    raise self._no_room(samples) from error
                self._sizes[samples] = size // 2
                if self._kind == "cuda":
                    torch.cuda.empty_cache()
                continue
            begin += size
        return results

    def _no_room(self, samples: int) -> EncoderError:
        return EncoderError(
            f"one window of {samples:,} samples does not fit into the memory of {self._device}. Choose a shorter --window, a "
            "lower --precision, or end other programs that use it"
        )
