"""Errors of audio: what a file is, what is wrong with it."""

from tonelake.store import TonelakeError


class AudioError(TonelakeError):
    """A source cannot be decoded, or what it decodes to is not music worth a clip."""
