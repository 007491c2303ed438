"""What sounds like this, which groups are near, and at which layer: answers from stored vectors."""

from index.flat import METRICS
from index.grouping import group_matrix, groups
from index.layer_report import LayerReport, layers
from index.mixture import Learned, learn_weights
from index.neighbours import similar
from index.saved import Saved, build_index, describe, drop_indexes, list_indexes

__all__ = [
    "METRICS", "LayerReport", "Learned", "Saved", "build_index", "describe", "drop_indexes", "group_matrix", "groups", "layers",
    "learn_weights", "list_indexes", "similar",
]
