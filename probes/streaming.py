"""Training data that does not fit into memory: read from the store in the order of training.

Each epoch's order, the one used in memory, is cut into stretches; a stretch's rows are read at once, sorted by row number,
and yielded in order.  Results equal those in memory.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
import torch

from tonelake.evaluate import Split
from tonelake.probes.grid import GridData
from tonelake.probes.inputs import Inputs, InputSpec, Preparation

STRETCH_BYTES = 256 << 20                # vectors read at once; two stretches are in memory


class StreamedGridData(GridData):
    """Training data of one spec whose vectors stay in the store."""

    def __init__(
        self, inputs: Inputs, spec: InputSpec, preparation: Preparation, split: Split, train_targets: torch.Tensor,
        valid_targets: torch.Tensor, device: torch.device, dtype: torch.dtype, stretch_bytes: int = STRETCH_BYTES,
    ) -> None:
        self.inputs, self.spec, self.preparation, self.split = inputs, spec, preparation, split
        self.train_targets, self.valid_targets = train_targets.to(device), valid_targets.to(device)
        self.specs, self.device, self.dtype = 1, device, dtype
        self.stretch_bytes = stretch_bytes

    def batches(
        self, orders: torch.Tensor, spec: torch.Tensor, seed: torch.Tensor, size: int
    ) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        used = torch.unique(seed)                        # stopped seeds are not read
        own = torch.searchsorted(used, seed)
        rows = orders[used].cpu().numpy()
        batches = max(self.stretch_bytes // max(self.inputs.byte_size(self.spec, len(rows) * size), 1), 1)
        starts = range(0, rows.shape[1], batches * size)
        with ThreadPoolExecutor(1) as reader:            # reads the next stretch during training
            ahead: Future[torch.Tensor] | None = None
            for start in starts:
                now = ahead or reader.submit(self._read, rows[:, start : start + batches * size])
                after = start + batches * size
                ahead = reader.submit(self._read, rows[:, after : after + batches * size]) if after < rows.shape[1] else None
                stretch = now.result().to(self.device)   # (seed, clip, …)
                for first in range(0, stretch.shape[1], size):
                    where = torch.from_numpy(rows[:, start + first : start + first + size]).to(self.device)
                    yield stretch[:, first : first + size][own], self.train_targets[where[own]]

    def valid_block(self, spec: torch.Tensor, start: int, stop: int) -> torch.Tensor:
        block = self._vectors(self.split.valid[start:stop]).to(self.device)
        return block.expand(len(spec), *block.shape)

    def _read(self, rows: np.ndarray) -> torch.Tensor:
        return self._vectors(self.split.train[rows.ravel()]).view(*rows.shape, *self._tail())

    def _tail(self) -> tuple[int, ...]:
        return (self.spec.parts, self.spec.width) if self.spec.parts else (self.spec.width,)

    def _vectors(self, clips: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(self.preparation.apply(self.inputs.read_rows(self.spec, clips))).to(self.dtype)
