"""Errors of encoders: weights that cannot be loaded, and checkpoints that are not what they claim to be."""

from tonelake.store import TonelakeError


class EncoderError(TonelakeError):
    """An encoder cannot be loaded or cannot run here."""


class CheckpointError(EncoderError):
    """A checkpoint folder is refused: a tensor is missing, unexpected or mis-shaped, or a setting is not implemented."""
