"""Clips in, every layer's vectors out.  Importing this loads no torch."""

from embed.encoder import Encoder, Pooled
from embed.engines import ENGINES, embed_lake
from embed.errors import CheckpointError, EncoderError
from embed.live import Frames, LiveFrames
from embed.pipeline import EmbedReport, embed_clips
from embed.plan import Plan, make_plan
from embed.precision import MIN_COSINE, choose_precision, compare, cpu_has_bfloat16
from embed.registry import DEFAULT_ENCODER, encoder_names, have_weights, load_encoder
from embed.settings import (
    EmbedSettings,
    check_settings,
    device_is_here,
    encoder_of,
    find_or_describe,
    open_space,
    settle_device,
)
from embed.windows import ClipVectors, encode_clips
from embed.work import check_clips

__all__ = [
    "DEFAULT_ENCODER", "ENGINES", "MIN_COSINE", "CheckpointError", "ClipVectors", "EmbedReport", "EmbedSettings", "Encoder",
    "EncoderError", "Frames", "LiveFrames", "Plan", "Pooled", "check_clips", "check_settings", "choose_precision", "compare",
    "cpu_has_bfloat16", "device_is_here", "embed_clips", "embed_lake", "encode_clips", "encoder_names", "encoder_of",
    "find_or_describe", "have_weights", "load_encoder", "make_plan", "open_space", "settle_device",
]
