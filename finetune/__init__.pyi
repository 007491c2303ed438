from .comparison import compare_finetunes
from .config import FinetuneConfig, settle
from .estimate import FinetunePlan, plan_finetune
from .initial_weights import WEIGHT_SUFFIXES
from .orthogonality import Angles, orthogonality
from .runs import FinetuneRun, list_finetunes
from .tuning import Watch, finetune

__all__ = [
    "Angles",
    "FinetuneConfig",
    "FinetunePlan",
    "FinetuneRun",
    "WEIGHT_SUFFIXES",
    "Watch",
    "compare_finetunes",
    "finetune",
    "list_finetunes",
    "orthogonality",
    "plan_finetune",
    "settle",
]
