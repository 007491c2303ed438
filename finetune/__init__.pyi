from .angles import Angles, orthogonality
from .comparison import compare_finetunes
from .config import FinetuneConfig
from .estimate import FinetunePlan, plan_finetune
from .initial_weights import WEIGHT_SUFFIXES
from .runs import FinetuneRun, list_finetunes
from .tuning import finetune

__all__ = [
    "WEIGHT_SUFFIXES",
    "Angles",
    "FinetuneConfig",
    "FinetunePlan",
    "FinetuneRun",
    "compare_finetunes",
    "finetune",
    "list_finetunes",
    "orthogonality",
    "plan_finetune",
]
