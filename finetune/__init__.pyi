from .angles import Angles, orthogonality
from .checkpoint_file import WEIGHT_SUFFIXES
from .comparison import compare_finetunes
from .config import FinetuneConfig
from .estimate import FinetunePlan, plan_finetune, plan_finetunes
from .kept_epochs import evaluate_epoch
from .runs import FinetuneRun, list_finetunes
from .tuning import finetune

__all__ = [
    "WEIGHT_SUFFIXES",
    "Angles",
    "FinetuneConfig",
    "FinetunePlan",
    "FinetuneRun",
    "compare_finetunes",
    "evaluate_epoch",
    "finetune",
    "list_finetunes",
    "orthogonality",
    "plan_finetune",
    "plan_finetunes",
]
