"""What sounds like this, which groups are near, and at which layer: answers from stored vectors."""

from index.flat import METRICS
from index.groups import group_matrix, groups
from index.layers import LayerReport, layers
from index.similar import similar

__all__ = ["METRICS", "LayerReport", "group_matrix", "groups", "layers", "similar"]
