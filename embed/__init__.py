"""Clips in, every layer's vectors out.  Importing this loads no torch."""

from embed.encoder import Encoder, Pooled
from embed.errors import CheckpointError, EncoderError
from embed.pipeline import EmbedReport, check_clips, embed_clips
from embed.registry import DEFAULT_ENCODER, encoder_names, have_weights, load_encoder
from embed.settings import EmbedSettings, encoder_of, open_space
from embed.windows import ClipVectors, encode_clips

__all__ = [
    "DEFAULT_ENCODER", "CheckpointError", "ClipVectors", "EmbedReport", "EmbedSettings", "Encoder", "EncoderError",
    "Pooled", "check_clips", "embed_clips", "encode_clips", "encoder_names", "encoder_of", "have_weights",
    "load_encoder", "open_space",
]
