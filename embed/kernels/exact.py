"""Find the parts of a model that a lower precision computes wrongly on this device, and keep these in float32.

Libraries choose a kernel by shape, and some kernels are wrong: oneDNN's grouped convolution in bfloat16 returns other values
at 4 to 14 channels a group on processors with AMX.  So every linear layer and convolution of a model is run on the states
that really reach it, in float32 and in the lower precision, and the results are compared.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

# Relative to the float32 result.  bfloat16 rounds inputs and weights to 2 ** -9, some 0.004 in a layer's result; the seven
# convolutions of the front end, counted as one part, come to 0.02.
MAX_ERROR, MAX_STACK_ERROR = 0.03, 0.06
STACK = "feature_extractor"


def inexact_modules(model: Any, batch: Any, dtype: Any) -> dict[str, float]:
    """Names of the modules that fall short in `dtype`, with their relative errors, for a model in float32.

    `batch`: (batch, samples) as the model takes it.  One forward pass in float32, each module then repeated by autocast.
    """
    import torch

    found: dict[str, float] = {}

    def compare(name: str, limit: float) -> Any:
        def hook(module: Any, inputs: tuple[Any, ...], output: Any) -> None:
            with torch.autocast(batch.device.type, dtype):
                lower = module.forward(*inputs)
            error = float((lower.float() - output).norm() / output.norm().clamp(min=1e-30))
            if not error <= limit:       # also if it is not a number
                found[name] = max(error, found.get(name, 0.0))
        return hook

    hooks = [
        module.register_forward_hook(compare(name, MAX_STACK_ERROR if name == STACK else MAX_ERROR))
        for name, module in parts_of(model)
    ]
    try:
        with torch.inference_mode(), torch.autocast(batch.device.type, enabled=False):
            model(batch)
    finally:
        for hook in hooks:
            hook.remove()
    return found


def parts_of(model: Any) -> list[tuple[str, Any]]:
    """The front end as one part, and every linear layer and convolution after it, by qualified name."""
    import torch

    kinds = torch.nn.Linear | torch.nn.Conv1d | torch.nn.Conv2d
    return [
        (name, module) for name, module in model.named_modules()
        if name == STACK or (isinstance(module, kinds) and not name.startswith(f"{STACK}."))
    ]


class InFloat32:
    """Replaces a module's forward: computes in float32 whatever precision autocast asks for."""

    def __init__(self, module: Any) -> None:
        self.plain = module.forward

    def __call__(self, inputs: Any, *others: Any) -> Any:
        import torch

        with torch.autocast(inputs.device.type, enabled=False):
            return self.plain(inputs.float(), *others)


def keep_float32(model: Any, names: Iterable[str]) -> None:
    """Make these modules, which hold float32 weights, compute in float32 under autocast."""
    for name in names:
        module = model.get_submodule(name)
        if not isinstance(module.forward, InFloat32):
            module.forward = InFloat32(module)


def plain_forward(module: Any) -> Any:
    """The forward of a module as it was before `keep_float32`."""
    return module.forward.plain if isinstance(module.forward, InFloat32) else module.forward
