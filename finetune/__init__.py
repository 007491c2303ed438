"""LoRA fine-tunes of an encoder, from the lake and back into it.  Importing this loads no torch."""

from finetune.config import FinetuneConfig, settle
from finetune.plan import TuningPlan, plan_finetune
from finetune.runs import Tuning, list_tunings
from finetune.tuning import Watch, finetune

__all__ = [
    "FinetuneConfig", "Tuning", "TuningPlan", "Watch", "finetune", "list_tunings", "plan_finetune", "settle",
]
