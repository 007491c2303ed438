"""Fetch the weights of a built-in encoder before they are needed."""

from __future__ import annotations

from pathlib import Path

from tonelake.embed.encoders.registry import full_name
from tonelake.embed.encoders.table import BY_NAME
from tonelake.store import InputError


def fetch_weights(name: str, file: Path | str | None = None, *, again: bool = False) -> Path:
    """Put the weights of a built-in encoder on this machine, and return their folder; does nothing if they are here.

    `file`: take them from a file that was fetched elsewhere, such as a wheel; `again`: replace the files that are here.  Raises
    InputError for an encoder without weights, EncoderError if they cannot be had, CheckpointError if they are other ones.
    """
    entry = BY_NAME.get(full_name(name))
    if entry is None:
        raise InputError(f"encoder {name!r}: not a built-in one. Choose one that `tonelake encoders` lists")
    if entry.weights is None:
        raise InputError(f"encoder {name!r}: computed, so it needs no weights. Run `tonelake embed --encoder {name}`")
    if file is not None or again or not entry.weights.present():
        return entry.weights.fetch(None if file is None else Path(file))
    return entry.weights.folder(download=False)
