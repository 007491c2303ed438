"""Results of short measurements of this machine, kept in the cache folder so that each is taken once.

A result is found again only by the same key: processor, number of threads, versions of torch and tonelake, and whatever the
measurement depends on.  A file that cannot be read or holds another key counts as absent; one that cannot be written is not
kept.
"""

from __future__ import annotations

import hashlib
import json
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from tonelake.store import Blobs, LakeError, cache_folder, processor_name

FOLDER = "measured"


def machine_key() -> dict[str, Any]:
    """The parts of a key that describe this machine and the installed versions."""
    import torch

    return {
        "processor": processor_name(), "threads": torch.get_num_threads(), "torch": torch.__version__,
        "tonelake": installed_version(),
    }


def recall(key: dict[str, Any]) -> dict[str, Any] | None:
    """The result kept for this key; None if there is none, or if the file is damaged."""
    try:
        text = folder().read(file_name(key))
        found = json.loads(text) if text is not None else None
    except (OSError, ValueError, LakeError):
        return None
    if not isinstance(found, dict) or found.get("key") != key or not isinstance(found.get("result"), dict):
        return None
    return found["result"]


def remember(key: dict[str, Any], result: dict[str, Any]) -> None:
    """Keep a result; does nothing where the cache folder cannot be written."""
    try:
        cache_folder().mkdir(parents=True, exist_ok=True)
        folder().put_text(file_name(key), json.dumps({"key": key, "result": result}, indent=2) + "\n")
    except (OSError, LakeError):
        pass


def folder() -> Blobs:
    """The folder of results."""
    return Blobs(str(cache_folder() / FOLDER))


def file_name(key: dict[str, Any]) -> str:
    """The name of a result's file: a digest of its key."""
    return hashlib.blake2b(json.dumps(key, sort_keys=True).encode(), digest_size=12).hexdigest() + ".json"


def installed_version() -> str:
    """The version of tonelake, or `unknown` where it runs without being installed."""
    try:
        return version("tonelake")
    except PackageNotFoundError:
        return "unknown"
