"""The decoding libraries, imported when they are needed, with one clear error if the installation lacks one."""

from __future__ import annotations

import importlib
from typing import Any

from tonelake.ingest.errors import DecoderStartError

LIBRARIES = ("soundfile", "av", "soxr")


def import_library(name: str) -> Any:
    """Import a decoding library.  Raises DecoderStartError if the installation lacks it or if it is broken."""
    try:
        return importlib.import_module(name)
    except (ImportError, OSError) as error:      # OSError: the package is installed, libsndfile is not
        raise DecoderStartError(
            f"{name}: cannot be imported ({error}). Check the installation with `tonelake doctor`"
        ) from error


def library_versions() -> dict[str, str]:
    """Versions of the decoding libraries by name.  Raises DecoderStartError if one cannot be imported."""
    return {name: str(import_library(name).__version__) for name in LIBRARIES}
