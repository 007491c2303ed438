"""What tests of fine-tuning share: settings of a quick run, and a model as a run begins with it."""

from __future__ import annotations

from tonelake.finetune import FinetuneConfig
from tonelake.finetune.model import Tuned

QUICK = FinetuneConfig(
    "kind", epochs=2, rank=2, alpha=4.0, hidden=16, window_s=2.0, crop_s=4.0, together=4, batch=2, lora_rate=1e-2,
    head_rate=1e-2, split="random", shares=(0.5, 0.25, 0.25), device="cpu", precision="float32",
)


def tuned(lake, config, outputs=2):
    """A model as a run begins with it."""
    from tonelake.finetune.setup import make_setup

    setup = make_setup(lake.lake, config)
    return Tuned(setup.load_encoder(), setup.config, outputs), setup
