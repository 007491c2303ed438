"""What sounds like this, which groups are near, and at which layer: answers from stored vectors."""

from index.flat import METRICS
from index.grouping import group_matrix, groups
from index.layer_report import LayerReport, layers
from index.mixture import Learned, learn_weights
from index.neighbours import similar

__all__ = ["METRICS", "LayerReport", "Learned", "group_matrix", "groups", "layers", "learn_weights", "similar"]
