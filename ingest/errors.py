"""Errors of audio files and of the processes that decode them."""

from tonelake.store import TonelakeError


class AudioError(TonelakeError):
    """A source cannot be decoded, or decodes to something that cannot be a clip."""


class DecoderStartError(TonelakeError):
    """The installation cannot decode: a decoder process does not start, or a decoding library cannot be imported."""
