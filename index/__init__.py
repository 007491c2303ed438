"""What sounds like this, which groups are near, and at which layer: answers from stored vectors."""

from index.alignment import Match, add_parts, align
from index.between_clips import path
from index.comparison import compare
from index.copies import duplicates
from index.facets import facet_report
from index.flat import METRICS
from index.grouping import group_matrix, groups, typical
from index.layer_report import LayerReport, effects, layers, retrieval_at
from index.layout import METHODS
from index.many import similar_many
from index.maps import Map, make_map, map_stamp, mapped_layers, read_map, read_points
from index.measures import DEFAULT_MEASURE, MEASURES
from index.mixture import Learned, learn_weights
from index.neighbours import similar
from index.query import Query, hear
from index.reference import Overlap, overlap_with
from index.saved import Saved, build_index, describe, drop_indexes, list_indexes

__all__ = [
    "DEFAULT_MEASURE", "MEASURES", "METHODS", "METRICS", "LayerReport", "Learned", "Map", "Match", "Overlap", "Query",
    "Saved", "add_parts", "align", "build_index", "compare", "describe", "drop_indexes", "duplicates", "effects",
    "facet_report", "group_matrix", "groups", "hear", "layers", "learn_weights", "list_indexes", "make_map", "map_stamp",
    "mapped_layers", "overlap_with", "path", "read_map", "read_points", "retrieval_at", "similar", "similar_many", "typical",
]
