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
from tonelake.probes.epochs import Bounds, Order
from tonelake.probes.grid import GridData
from tonelake.probes.inputs import Inputs, InputSpec, Preparation

STRETCH_BYTES = 256 << 20                # vectors read at once; two stretches are in memory


class StreamedGridData(GridData):
    """Training data of one spec whose vectors stay in the store."""

    streamed = True

    def __init__(
        self, inputs: Inputs, spec: InputSpec, preparation: Preparation, split: Split, train_targets: torch.Tensor,
        valid_targets: torch.Tensor, device: torch.device, dtype: torch.dtype, stretch_bytes: int = STRETCH_BYTES,
    ) -> None:
        self.inputs, self.spec, self.preparation, self.split = inputs, spec, preparation, split
        self.train_targets, self.valid_targets = train_targets.to(device), valid_targets.to(device)
        self.specs, self.device, self.dtype = 1, device, dtype
        self.stretch_bytes = stretch_bytes

    def batches(
        self, order: Order, spec: torch.Tensor, seed: torch.Tensor
    ) -> Iterator[tuple[torch.Tensor, torch.Tensor, torch.Tensor | None]]:
        used = torch.unique(seed)                        # stopped seeds are not read
        own = torch.searchsorted(used, seed)
        rows = order.rows[used.cpu().numpy()]
        stretches = self._stretches(order, len(rows))
        with ThreadPoolExecutor(1) as reader:            # reads the next stretch during training
            ahead: Future[torch.Tensor] | None = None
            for number, bounds in enumerate(stretches):
                now = ahead or reader.submit(self._read, rows[:, bounds[0][0] : bounds[-1][1]])
                after = stretches[number + 1] if number + 1 < len(stretches) else None
                ahead = reader.submit(self._read, rows[:, after[0][0] : after[-1][1]]) if after else None
                vectors = now.result().to(self.device)   # (seed, clip, …)
                for first, stop in bounds:
                    where = torch.from_numpy(rows[:, first:stop]).to(self.device)[own]
                    present = (where >= 0).float() if order.padded else None
                    offset = bounds[0][0]
                    yield vectors[:, first - offset : stop - offset][own], self.train_targets[where.clamp_min(0)], present

    def _stretches(self, order: Order, seeds: int) -> list[Bounds]:
        """Join batches into stretches of at most `stretch_bytes`, at least a batch each."""
        found: list[Bounds] = []
        for start, stop in order.bounds:
            if found and self.inputs.byte_size(self.spec, seeds * (stop - found[-1][0][0])) <= self.stretch_bytes:
                found[-1].append((start, stop))
            else:
                found.append([(start, stop)])
        return found

    def train_rows(self, spec: int, rows: slice) -> torch.Tensor:
        return self._vectors(self.split.train[rows]).to(self.device)

    def valid_block(self, spec: torch.Tensor, start: int, stop: int) -> torch.Tensor:
        block = self._vectors(self.split.valid[start:stop]).to(self.device)
        return block.expand(len(spec), *block.shape)

    def _read(self, rows: np.ndarray) -> torch.Tensor:
        return self._vectors(self.split.train[np.maximum(rows, 0).ravel()]).view(*rows.shape, *self._tail())

    def _tail(self) -> tuple[int, ...]:
        return (self.spec.parts, self.spec.width) if self.spec.parts else (self.spec.width,)

    def _vectors(self, clips: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(self.preparation.apply(self.inputs.read_rows(self.spec, clips))).to(self.dtype)
