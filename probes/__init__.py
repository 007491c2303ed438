"""Classifiers and regressors on stored vectors: every layer and setting at once.  Importing this loads no torch."""

from probes.config import ProbeConfig
from probes.metric import Learned, learn_metric
from probes.prediction import Predictions, predict, save_predictions, write_predictions
from probes.probing import probe
from probes.protocols import PROTOCOLS, Stage, probe_all, stages_of
from probes.review import Judged, orders_of, review
from probes.runs import Run, compare_runs

__all__ = [
    "PROTOCOLS", "Judged", "Learned", "Predictions", "ProbeConfig", "Run", "Stage", "compare_runs",
    "learn_metric", "orders_of", "predict", "probe", "probe_all", "review", "save_predictions",
    "stages_of", "write_predictions",
]
