"""A GPU that is not there: tensors with a shape, a type and the device `cuda:0`, and no numbers.

torch's fake tensors refuse what a GPU refuses: operands on two devices, shapes or types that do not fit.  What remains to be
stood in for is what needs a driver even of them: indexing, pinned memory, the copy back to numbers (zeros), waiting.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.overrides import TorchFunctionMode

DEVICE = "cuda:0"


class StandIns(TorchFunctionMode):
    def __init__(self) -> None:
        super().__init__()
        self.copied: list[str] = []      # the devices that numbers were taken from

    def __torch_function__(self, func, types, args=(), kwargs=None):
        if func is torch.Tensor.__getitem__:
            return indexed(*args)
        if func is torch.Tensor.__setitem__:
            return torch.ops.aten.copy_(indexed(args[0], args[1]), args[2])
        if func is torch.Tensor.copy_:
            return torch.ops.aten.copy_(*args)
        if func in (torch.Tensor.__float__, torch.Tensor.item):
            return 0.0
        if func is torch.Tensor.pin_memory:
            return args[0]
        if func is torch.Tensor.numpy:
            self.copied.append(str(args[0].device))
            if args[0].device.type != "cpu":
                raise TypeError("can't convert a tensor on a GPU to numpy")
            return np.zeros(tuple(args[0].shape), str(args[0].dtype).removeprefix("torch."))
        return func(*args, **(kwargs or {}))


def indexed(tensor, index):
    """tensor[index] of slices, numbers, None and tensors of rows."""
    dim, index = 0, index if isinstance(index, tuple) else (index,)
    skipped = tensor.dim() - sum(one is not None and one is not Ellipsis for one in index)
    for one in index:
        if one is Ellipsis:
            dim += skipped
        elif one is None:
            tensor, dim = tensor.unsqueeze(dim), dim + 1
        elif isinstance(one, slice):
            tensor, dim = torch.ops.aten.slice(tensor, dim, one.start, one.stop, one.step or 1), dim + 1
        elif isinstance(one, int | np.integer):
            tensor = tensor.select(dim, int(one))
        else:
            rows = tensor.index_select(dim, one.flatten())           # which asks that both are on one device
            tensor = rows.view(*tensor.shape[:dim], *one.shape, *tensor.shape[dim + 1 :])
            dim += one.dim()
    return tensor


@contextmanager
def fake_cuda(monkeypatch: pytest.MonkeyPatch) -> Iterator[StandIns]:
    monkeypatch.setattr(torch.cuda, "synchronize", lambda device=None: None)
    monkeypatch.setattr(torch.cuda.amp.common, "amp_definitely_not_available", lambda: False)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True: True)
    monkeypatch.setattr(torch.Tensor, "contiguous", lambda self, memory_format=torch.contiguous_format: self.clone())
    with FakeTensorMode(allow_non_fake_inputs=True), StandIns() as ins:
        yield ins


def moved(module: torch.nn.Module) -> torch.nn.Module:
    """A copy of a module on the GPU that is not there, where nothing learns: a gradient would need its driver."""
    other = copy.deepcopy(module, {id(tensor): tensor for tensor in (*module.parameters(), *module.buffers())})
    for part in other.modules():
        for name, parameter in part._parameters.items():
            if parameter is not None:
                part._parameters[name] = torch.nn.Parameter(parameter.data.to(DEVICE), requires_grad=False)
        for name, buffer in part._buffers.items():
            if buffer is not None:
                part._buffers[name] = buffer.to(DEVICE)
    return other
