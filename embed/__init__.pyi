from .encoders.adapter import (
    ADAPTER_CONFIG,
    ADAPTER_PREFIX,
    ADAPTER_WEIGHTS,
    LORA_PAIR,
    pairs_of,
    read_adapter,
    resolve_adapter,
    source_of,
)
from .encoders.base import Encoder, FrameSpan, Pooled, pool_states
from .encoders.default import default_encoder
from .encoders.fetching import fetch_weights
from .encoders.hubert import HubertEncoder, normalize
from .encoders.listing import list_encoders
from .encoders.live_pass import LivePass
from .encoders.projection import ProjectReport, project_space
from .encoders.registry import encoder_names, have_weights, load_encoder, lora_targets_of, tags_of
from .encoders.spectral_frames.constant_q import BINS_PER_SEMITONE, LOWEST_PITCH
from .encoders.table import BASELINE_ENCODER, DEFAULT_ENCODER, SECOND_ENCODER, SMALL_ENCODER
from .encoders.training import TrainingPass
from .engines import ENGINES, check_engine, embed_lake
from .errors import CheckpointError, EncoderError
from .hybrid import HybridReport, find_hybrid, hybrid_space
from .kernels.threads import single_threads
from .librosa_import import load_librosa
from .live import LIVE_DRIFT, LIVE_HOP_S, LIVE_WINDOW_S, FrameBatch, LiveFrames
from .live_spaces import LiveSpaces
from .memory import peak_memory
from .pipeline import EmbedReport, embed_clips
from .plan import Plan, make_plan, plan_embed, stored_bytes
from .precision import MIN_COSINE, choose_precision, compare, cpu_has_bfloat16, products_preserved
from .ray_cluster import Cluster
from .settings import (
    EmbedSettings,
    device_is_here,
    encoder_of,
    find_or_describe,
    open_space,
    refuse_derived,
    resolve_device,
    stored_space,
)
from .tagging import TagReport, list_clip_tags, read_tags, tag_clips
from .windows import MIN_TAIL_S, ClipVectors, encode_clips, place_windows
from .words import WordKind, check_prompt, spaces_with_words, word_encoder, word_kind
from .work import CLIP_COLUMNS, ReadClips, check_clips

__all__ = [
    "ADAPTER_CONFIG",
    "ADAPTER_PREFIX",
    "ADAPTER_WEIGHTS",
    "BASELINE_ENCODER",
    "BINS_PER_SEMITONE",
    "CLIP_COLUMNS",
    "DEFAULT_ENCODER",
    "ENGINES",
    "LIVE_DRIFT",
    "LIVE_HOP_S",
    "LIVE_WINDOW_S",
    "LORA_PAIR",
    "LOWEST_PITCH",
    "MIN_COSINE",
    "MIN_TAIL_S",
    "SECOND_ENCODER",
    "SMALL_ENCODER",
    "CheckpointError",
    "ClipVectors",
    "Cluster",
    "EmbedReport",
    "EmbedSettings",
    "Encoder",
    "EncoderError",
    "FrameBatch",
    "FrameSpan",
    "HubertEncoder",
    "HybridReport",
    "LiveFrames",
    "LivePass",
    "LiveSpaces",
    "Plan",
    "Pooled",
    "ProjectReport",
    "ReadClips",
    "TagReport",
    "TrainingPass",
    "WordKind",
    "check_clips",
    "check_engine",
    "check_prompt",
    "choose_precision",
    "compare",
    "cpu_has_bfloat16",
    "default_encoder",
    "device_is_here",
    "embed_clips",
    "embed_lake",
    "encode_clips",
    "encoder_names",
    "encoder_of",
    "fetch_weights",
    "find_hybrid",
    "find_or_describe",
    "have_weights",
    "hybrid_space",
    "list_clip_tags",
    "list_encoders",
    "load_encoder",
    "load_librosa",
    "lora_targets_of",
    "make_plan",
    "normalize",
    "open_space",
    "pairs_of",
    "peak_memory",
    "place_windows",
    "plan_embed",
    "pool_states",
    "products_preserved",
    "project_space",
    "read_adapter",
    "read_tags",
    "refuse_derived",
    "resolve_adapter",
    "resolve_device",
    "single_threads",
    "source_of",
    "spaces_with_words",
    "stored_bytes",
    "stored_space",
    "tag_clips",
    "tags_of",
    "word_encoder",
    "word_kind",
]
