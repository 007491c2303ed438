"""Errors of encoders: weights that cannot be had, and checkpoints that are not what they claim."""

from tonelake.store import TonelakeError


class EncoderError(TonelakeError):
    """An encoder cannot be loaded or cannot run here."""


class CheckpointError(EncoderError):
    """A checkpoint folder is refused: a tensor missing, unexpected or mis-shaped, or a setting we do not implement."""
