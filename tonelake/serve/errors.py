"""Errors of the lake as an HTTP status and a sentence for a client, which never names a path of this machine."""

from __future__ import annotations

import re

from tonelake.ingest import AudioError
from tonelake.store import ClipNotFound, InputError, LakeError, SpaceNotFound, TonelakeError

RETRY_AFTER_S = 5                        # until a lake that is being written or replaced is worth another request
PATH = re.compile(r"(?:(?<![\w.:/])|(?<=file:))(?:~|[A-Za-z]:)?[/\\]{1,3}(?:[^\s'\"`:,;()]*[/\\])*[^\s'\"`:,;()]*")


def status_of(error: TonelakeError) -> int:
    """Return the HTTP status of an error: 400 for a wrong request, 404 for something that is not there, else 503."""
    if isinstance(error, ClipNotFound | SpaceNotFound | AudioError):
        return 404
    return 400 if isinstance(error, InputError) else 503


def sentence_of(error: TonelakeError) -> str:
    """Return the sentence of an error for a client.

    >>> sentence_of(InputError("song: /home/ada/one.flac is gone. Ask for another"))
    'song: … is gone. Ask for another'
    >>> sentence_of(InputError("where.artist='AC/DC': unknown"))
    "where.artist='AC/DC': unknown"
    """
    if isinstance(error, LakeError):
        return "lake: cannot be read at the moment; it is being written or replaced, or is damaged. Try again in a few seconds"
    return PATH.sub("…", str(error))
