from .config import ProbeConfig
from .losses import balanced_weights
from .marble import differences_of
from .metric_learning import extend_metric, learn_metric
from .metric_runs import LearnedMetric
from .outputs import clip_losses, prediction_columns, readable_targets
from .plots import draw_confusion, draw_weights, save_plot
from .prediction import Predictions, count_saved, predict, save_predictions, write_predictions
from .probing import probe
from .protocols import PROTOCOLS, Stage, probe_all, stages_of
from .report import (
    METRIC_LABELS,
    format_interval,
    format_number,
    frame_table,
    leak_warning,
    leaks_table,
    markdown_image,
    markdown_table,
    mean_history,
)
from .review_clips import TRAINING_PREDICTIONS, TRAINING_SIDES, EvaluatedRun, review, sort_orders
from .runs import Run, compare_probes, read_tensors, write_table, write_tensors
from .training_clips import predictions_of_side

__all__ = [
    "METRIC_LABELS",
    "PROTOCOLS",
    "TRAINING_PREDICTIONS",
    "TRAINING_SIDES",
    "EvaluatedRun",
    "LearnedMetric",
    "Predictions",
    "ProbeConfig",
    "Run",
    "Stage",
    "balanced_weights",
    "clip_losses",
    "compare_probes",
    "count_saved",
    "differences_of",
    "draw_confusion",
    "draw_weights",
    "extend_metric",
    "format_interval",
    "format_number",
    "frame_table",
    "leak_warning",
    "leaks_table",
    "learn_metric",
    "markdown_image",
    "markdown_table",
    "mean_history",
    "predict",
    "prediction_columns",
    "predictions_of_side",
    "probe",
    "probe_all",
    "read_tensors",
    "readable_targets",
    "review",
    "save_plot",
    "save_predictions",
    "sort_orders",
    "stages_of",
    "write_predictions",
    "write_table",
    "write_tensors",
]
