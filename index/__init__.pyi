from .gestures.clips import compute_gestures, gestures_of_clip
from .gestures.live import LiveGestures
from .hubness import DEFAULT_HUBS, HUBS
from .maps.layout import METHODS
from .maps.make import Map, make_map, map_stamp, mapped_layers, read_clusters, read_map, read_points
from .maps.songs import song_rows, value_places
from .maps.umap import load_umap
from .names.find import find_songs, match_songs
from .names.folded import FoldedSong, fold_song
from .names.rank import Song, is_version
from .names.songs import file_names, file_titles, song_of_clip
from .search.agreement import layer_agreement
from .search.alignment import Match, add_parts, align
from .search.described_index import StoredIndex, read_indexes
from .search.duplicates import duplicates
from .search.facets import facet_report
from .search.faiss_files import index_folder
from .search.mixture import LearnedWeights, learn_weights
from .search.moments import best_moments
from .search.names import SeveralSongs, find_clip, find_named
from .search.path import path
from .search.query import Query, QueryPart, is_file, read_query
from .search.similar import similar
from .search.similar_many import similar_many
from .search.stored_index import build_index, build_indexes, drop_indexes, list_indexes
from .search.two_sounds import cosine
from .search.words import answers_words
from .search.zero_shot import label_by_words
from .separation.compare_spaces import compare
from .separation.entry_songs import entry_songs
from .separation.group_pairs import group_pairs
from .separation.group_similarity import DEFAULT_MEASURE, MEASURES
from .separation.group_sizes import group_sizes
from .separation.groups import MIN_TRACKS, group_matrix, groups
from .separation.layer_report import LayerReport, effects, layers, retrieval_at
from .separation.mixture_report import MixtureReport, report_mixture
from .separation.overlap import Overlap, overlap_with
from .separation.pairs import PAIR_FIGURES
from .separation.preparations import PREPARATIONS
from .separation.stored_report import BestLayer, best_layer
from .separation.typical import typical
from .tokens.continuer import Continuer
from .tokens.live import LiveEncoder, LiveStep
from .tokens.live_session import LiveSession
from .tokens.passages import continuation, repeats
from .tokens.sequences import apply_vocabulary, runs_of_clip, similar_by_tokens, typical_tokens
from .tokens.vocabulary import (
    MOST_TOKENS,
    Vocabulary,
    default_vocabulary_name,
    find_vocabulary,
    fit_vocabulary,
    list_vocabularies,
    read_vocabulary,
    vocabulary_names,
)
from .vectors import METRICS

__all__ = [
    "DEFAULT_HUBS",
    "DEFAULT_MEASURE",
    "HUBS",
    "MEASURES",
    "METHODS",
    "METRICS",
    "MIN_TRACKS",
    "MOST_TOKENS",
    "PAIR_FIGURES",
    "PREPARATIONS",
    "BestLayer",
    "Continuer",
    "FoldedSong",
    "LayerReport",
    "LearnedWeights",
    "LiveEncoder",
    "LiveGestures",
    "LiveSession",
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
    "best_layer",
    "best_moments",
    "build_index",
    "build_indexes",
    "compare",
    "compute_gestures",
    "continuation",
    "cosine",
    "default_vocabulary_name",
    "drop_indexes",
    "duplicates",
    "effects",
    "entry_songs",
    "facet_report",
    "file_names",
    "file_titles",
    "find_clip",
    "find_named",
    "find_songs",
    "find_vocabulary",
    "fit_vocabulary",
    "fold_song",
    "gestures_of_clip",
    "group_matrix",
    "group_pairs",
    "group_sizes",
    "groups",
    "index_folder",
    "is_file",
    "is_version",
    "label_by_words",
    "layer_agreement",
    "layers",
    "learn_weights",
    "list_indexes",
    "list_vocabularies",
    "load_umap",
    "make_map",
    "map_stamp",
    "mapped_layers",
    "match_songs",
    "overlap_with",
    "path",
    "read_clusters",
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
    "song_of_clip",
    "song_rows",
    "typical",
    "typical_tokens",
    "value_places",
    "vocabulary_names",
]
