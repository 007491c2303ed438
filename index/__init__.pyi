from .gestures.clips import compute_gestures, gestures_of_clip
from .gestures.live import LiveGestures
from .hubness import DEFAULT_HUBS, HUBS
from .maps.layout import METHODS
from .maps.make import Map, make_map, map_stamp, mapped_layers, read_map, read_points
from .maps.umap import load_umap
from .names.find import find_songs
from .names.rank import Song
from .search.alignment import Match, add_parts, align
from .search.duplicates import duplicates
from .search.facets import facet_report
from .search.mixture import LearnedWeights, learn_weights
from .search.names import SeveralSongs, find_clip, find_named
from .search.path import path
from .search.query import Query, QueryPart, is_file, read_query
from .search.similar import similar
from .search.similar_many import similar_many
from .search.stored_index import StoredIndex, build_index, build_indexes, drop_indexes, index_folder, list_indexes, read_indexes
from .search.two_sounds import cosine
from .search.words import answers_words
from .search.zero_shot import label_by_words
from .separation.compare_spaces import compare
from .separation.group_pairs import group_pairs
from .separation.group_similarity import DEFAULT_MEASURE, MEASURES
from .separation.groups import MIN_TRACKS, group_matrix, groups
from .separation.layer_report import LayerReport, effects, layers, retrieval_at
from .separation.mixture_report import MixtureReport, report_mixture
from .separation.overlap import Overlap, overlap_with
from .separation.pairs import PAIR_FIGURES
from .separation.preparations import PREPARATIONS
from .separation.typical import typical
from .tokens.live import LiveEncoder, LiveStep
from .tokens.passages import continuation, repeats
from .tokens.sequences import apply_vocabulary, runs_of_clip, similar_by_tokens, typical_tokens
from .tokens.vocabulary import Vocabulary, fit_vocabulary, list_vocabularies, read_vocabulary
from .vectors import METRICS

__all__ = [
    "DEFAULT_HUBS",
    "DEFAULT_MEASURE",
    "HUBS",
    "MEASURES",
    "METHODS",
    "METRICS",
    "MIN_TRACKS",
    "PAIR_FIGURES",
    "PREPARATIONS",
    "LayerReport",
    "LearnedWeights",
    "LiveEncoder",
    "LiveGestures",
    "LiveStep",
    "Map",
    "Match",
    "MixtureReport",
    "Overlap",
    "Query",
    "QueryPart",
    "SeveralSongs",
    "Song",
    "StoredIndex",
    "Vocabulary",
    "add_parts",
    "align",
    "answers_words",
    "apply_vocabulary",
    "build_index",
    "build_indexes",
    "compare",
    "compute_gestures",
    "continuation",
    "cosine",
    "drop_indexes",
    "duplicates",
    "effects",
    "facet_report",
    "find_clip",
    "find_named",
    "find_songs",
    "fit_vocabulary",
    "gestures_of_clip",
    "group_matrix",
    "group_pairs",
    "groups",
    "index_folder",
    "is_file",
    "label_by_words",
    "layers",
    "learn_weights",
    "list_indexes",
    "list_vocabularies",
    "load_umap",
    "make_map",
    "map_stamp",
    "mapped_layers",
    "overlap_with",
    "path",
    "read_indexes",
    "read_map",
    "read_points",
    "read_query",
    "read_vocabulary",
    "repeats",
    "report_mixture",
    "retrieval_at",
    "runs_of_clip",
    "similar",
    "similar_by_tokens",
    "similar_many",
    "typical",
    "typical_tokens",
]
