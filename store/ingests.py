"""The record of ingests: each folder, list or server that was ingested, with the options that decide its clips.

    lake.ingests.record("folder", "/music", {"seconds": 30.0})      # by the ingest itself, once its arguments are checked
    lake.ingests.all()                                              # [Ingest(kind="folder", root="/music", options=...)]

One small JSON file a kind and root in `ingests/`; the newest ingest of a root replaces the record.  It lets a program repeat an
ingest exactly.  Options say nothing about the machine (number of processes) and hold no credentials.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from tonelake.store.blobs import Blobs
from tonelake.store.errors import LakeError


@dataclass(frozen=True, kw_only=True)
class Ingest:
    """One recorded ingest."""

    kind: str                            # folder, manifest, …: the name of the command
    root: str                            # absolute path of the folder or file, or URL of the server
    options: dict[str, Any] = field(default_factory=dict)        # arguments of the ingest, as JSON


class Ingests:
    """The recorded ingests of a lake."""

    def __init__(self, files: Blobs) -> None:
        self._files = files

    def record(self, kind: str, root: str, options: Mapping[str, Any]) -> None:
        """Record an ingest; it replaces an earlier one of this kind and root.

        `root`: an absolute path or a URL; bytes that are not UTF-8 are kept as surrogates.  `options`: values of JSON.
        Raises LakeError if the record cannot be written.
        """
        ingest = Ingest(kind=kind, root=root, options=dict(options))
        text = json.dumps(asdict(ingest), indent=1, sort_keys=True)              # ASCII: surrogates survive
        name = file_name(kind, root)
        if self._files.read(name) != text:
            self._files.put_text(name, text)

    def all(self) -> list[Ingest]:
        """Recorded ingests, sorted by kind and root.  Raises LakeError if a record is damaged."""
        found = (self._read(name) for name in self._files.names())
        return sorted((ingest for ingest in found if ingest is not None), key=lambda ingest: (ingest.kind, ingest.root))

    def find(self, kind: str, root: str) -> Ingest | None:
        """The recorded ingest of this kind and root; None without one."""
        return self._read(file_name(kind, root))

    def remove(self, kind: str, root: str) -> None:
        """Delete a record if it exists; clips stay."""
        self._files.remove(file_name(kind, root))

    def _read(self, name: str) -> Ingest | None:
        text = self._files.read(name)
        if text is None:                 # deleted in the meantime
            return None
        try:
            found = json.loads(text)
            kind, root, options = found["kind"], found["root"], found["options"]
            if not (isinstance(kind, str) and isinstance(root, str) and isinstance(options, dict)):
                raise TypeError("kind and root have to be texts, and options an object")
        except (ValueError, KeyError, TypeError) as error:
            raise LakeError(
                f"{self._files.uri}/{name}: is not a record of an ingest ({error}). Delete it and run the ingest again"
            ) from error
        return Ingest(kind=kind, root=root, options=options)


def file_name(kind: str, root: str) -> str:
    """Name of the file of a record.

    >>> file_name("folder", "/music")
    'folder-00eed8a086337fe1.json'
    """
    return f"{kind}-{hashlib.blake2b(root.encode('utf-8', 'backslashreplace'), digest_size=8).hexdigest()}.json"
