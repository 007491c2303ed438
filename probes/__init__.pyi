from .config import ProbeConfig
from .confusions import rank_confusions
from .frames.basic_pitch import BasicPitch
from .frames.config import FrameProbeConfig
from .frames.decode_settings import DecodeSettings
from .frames.decoding import choose_decoding, decode
from .frames.event_prediction import EventPredictions, predict_events
from .frames.experiment import digest_events
from .frames.frame_losses import positive_weights, start_of_bias
from .frames.heads import make_head
from .frames.probabilities import Posteriors
from .frames.report import SCORE_LABELS, frame_history
from .frames.run import FrameRun, named_run
from .frames.targets import frame_targets
from .frames.tasks import FRAME_TASKS, PIANO, FrameTask, frame_task
from .frames.training import probe_frames
from .frames.writers import event_file_name, write_event_csv, write_jams, write_midi
from .losses import balanced_weights
from .marble import differences_of
from .metric_learning import extend_metric, learn_metric
from .metric_runs import LearnedMetric
from .outputs import clip_losses, prediction_columns, readable_targets
from .plots import draw_confusion, draw_weights, save_plot
from .precision import describe_precision, wider_split
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
from .run_comparison import compare_probes
from .runs import Run, read_tensors, write_table, write_tensors
from .training_clips import predictions_of_side

__all__ = [
    "FRAME_TASKS",
    "METRIC_LABELS",
    "PIANO",
    "PROTOCOLS",
    "SCORE_LABELS",
    "TRAINING_PREDICTIONS",
    "TRAINING_SIDES",
    "BasicPitch",
    "DecodeSettings",
    "EvaluatedRun",
    "EventPredictions",
    "FrameProbeConfig",
    "FrameRun",
    "FrameTask",
    "LearnedMetric",
    "Posteriors",
    "Predictions",
    "ProbeConfig",
    "Run",
    "Stage",
    "balanced_weights",
    "choose_decoding",
    "clip_losses",
    "compare_probes",
    "count_saved",
    "decode",
    "describe_precision",
    "differences_of",
    "digest_events",
    "draw_confusion",
    "draw_weights",
    "event_file_name",
    "extend_metric",
    "format_interval",
    "format_number",
    "frame_history",
    "frame_table",
    "frame_targets",
    "frame_task",
    "leak_warning",
    "leaks_table",
    "learn_metric",
    "make_head",
    "markdown_image",
    "markdown_table",
    "mean_history",
    "named_run",
    "positive_weights",
    "predict",
    "predict_events",
    "prediction_columns",
    "predictions_of_side",
    "probe",
    "probe_all",
    "probe_frames",
    "rank_confusions",
    "read_tensors",
    "readable_targets",
    "review",
    "save_plot",
    "save_predictions",
    "sort_orders",
    "stages_of",
    "start_of_bias",
    "wider_split",
    "write_event_csv",
    "write_jams",
    "write_midi",
    "write_predictions",
    "write_table",
    "write_tensors",
]
