from .config import ProbeConfig, data_digest
from .losses import balanced_weights
from .metric_learning import LearnedMetric, learn_metric
from .outputs import losses, prediction_columns, readable_targets
from .plots import draw_confusion, draw_weights, save_plot
from .prediction import Predictions, predict, save_predictions, write_predictions
from .probing import probe
from .protocols import PROTOCOLS, Stage, probe_all, stages_of
from .report import METRIC_LABELS, format_interval, format_number, frame_table, leaks_table, markdown_picture, markdown_table
from .review import Judged, orders_of, review
from .runs import Run, compare_runs, read_tensors, write_table, write_tensors

__all__ = [
    "Judged",
    "LearnedMetric",
    "METRIC_LABELS",
    "PROTOCOLS",
    "Predictions",
    "ProbeConfig",
    "Run",
    "Stage",
    "balanced_weights",
    "compare_runs",
    "data_digest",
    "draw_confusion",
    "draw_weights",
    "format_interval",
    "format_number",
    "frame_table",
    "leaks_table",
    "learn_metric",
    "losses",
    "markdown_picture",
    "markdown_table",
    "orders_of",
    "predict",
    "prediction_columns",
    "probe",
    "probe_all",
    "read_tensors",
    "readable_targets",
    "review",
    "save_plot",
    "save_predictions",
    "stages_of",
    "write_predictions",
    "write_table",
    "write_tensors",
]
