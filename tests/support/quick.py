"""Settings of a quick fine-tuning, and its untrained model."""

from __future__ import annotations

from types import SimpleNamespace

import accelerate.utils.memory

from tonelake.finetune import FinetuneConfig
from tonelake.finetune.model import LoraModel

# Trainer collects garbage several times a run, a tenth of a second each in a process that has imported everything.
accelerate.utils.memory.gc = SimpleNamespace(collect=lambda: 0)

QUICK = FinetuneConfig(
    "kind", epochs=2, rank=2, alpha=4.0, hidden=16, window_s=2.0, crop_s=4.0, together=4, batch=2, lora_rate=1e-2,
    head_rate=1e-2, split="random", shares=(0.5, 0.25, 0.25), device="cpu", precision="float32",
)


def tuned(lake, config, outputs=2):
    """Return the model and setup of a run before training."""
    from tonelake.finetune.setup import make_setup

    setup = make_setup(lake, config)
    return LoraModel(setup.load_encoder(), setup.config, outputs), setup
