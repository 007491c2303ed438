"""Peak memory of this process, on its device."""

from __future__ import annotations

import sys
from pathlib import Path

STATUS = Path("/proc/self/status")       # its peak begins with the process; getrusage's includes that of the parent


def peak_memory(device: str) -> int:
    """Return the peak memory in bytes: what PyTorch held on a GPU, or what this process held in main memory.

    Processes that decode audio are not included.
    """
    if device.startswith("cuda"):
        import torch

        return int(torch.cuda.max_memory_allocated())
    try:
        line = next(line for line in STATUS.read_text().splitlines() if line.startswith("VmHWM:"))
        return int(line.split()[1]) * 1024
    except (OSError, StopIteration):     # not Linux
        import resource

        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak if sys.platform == "darwin" else peak * 1024
