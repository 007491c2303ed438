"""How many windows go through a model at once, and what happens where their memory does not suffice.

On a CPU half a minute of audio fills the cores, and more only costs memory.  On an accelerator the number is measured:
what one more window takes, against what is free.  Where memory runs out all the same, because another program took it,
the batch is halved and tried again.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np

from tonelake.embed.errors import EncoderError

CPU_SECONDS = 30.0                       # of audio in a batch: 6 windows of 5 s are 7 % faster together than one by one
FREE_SHARE = 0.7                         # of the free memory of an accelerator that batches may take
MOST_WINDOWS = 64                        # by then the largest of accelerators is busy

Result = TypeVar("Result")


class Batches:
    """The size of batches on one device, and what was learned about it."""

    def __init__(self, device: str, sample_rate: int) -> None:
        self._kind = device.partition(":")[0]
        self._device = device
        self._cpu_samples = round(CPU_SECONDS * sample_rate)
        self._sizes: dict[int, int] = {}                             # by length of a window, where measured

    def size(self, samples: int) -> int:
        """How many windows of this length make a batch; one, on an accelerator, for a length that was not measured."""
        if self._kind == "cpu":
            return max(1, self._cpu_samples // samples)
        return self._sizes.get(samples, 1)

    def measure(self, samples: int, forward: Callable[[np.ndarray], Any]) -> int:
        """Find the size for a length on CUDA, by the memory that one and two windows take; nothing to do elsewhere.

        Raises EncoderError where not even one window fits.
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
        """`forward` over windows in batches of `size`, halved where memory runs out; it is told which windows they are.

        On an accelerator a batch that is not full is filled up with copies of its first window, which count for nothing:
        kernels are chosen by shape, so a window's vector would else depend on how many came with it.
        Raises EncoderError where not even one window fits.
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
            f"one window of {samples:,} samples does not fit into the memory of {self._device}: choose a shorter --window, a "
            "lower --precision, or end what else uses it"
        )
