"""The tables of a lake on disk: read through Lance alone, written through LanceDB.

    connection = Connection("/music/lake")
    connection.dataset("clips")          # a lance.LanceDataset at its newest version; None without such a table
    connection.database.open_table("clips")

Importing LanceDB takes a third of the time of a short command, and a command that only reads needs none of it: LanceDB is
imported by the first write.  Lance alone also opens a table in a third of the time, since LanceDB opens it twice.
"""

from __future__ import annotations

from datetime import timedelta
from functools import cached_property
from typing import Any

from tonelake.store.blobs import is_local
from tonelake.store.errors import LakeError
from tonelake.store.machine import memory_bytes

INDEX_CACHE_SHARE = 1 / 8                # of the machine's memory: lists of the indexes inside tables, of all versions
METADATA_CACHE_BYTES = 256 << 20         # manifests, and what is known of each file
# On a disk, where they are read again in milliseconds: each commit of vectors leaves 80 kB of a version that is not read again,
# and LanceDB's own limits are 1 and 6 GB.  A file's metadata take 14 kB.
LOCAL_CACHE_BYTES = 2 << 20


class Connection:
    """The tables at a folder or URI.  Raises LakeError if an object store cannot be reached."""

    def __init__(self, uri: str) -> None:
        self.uri = uri
        if not is_local(uri):
            _ = self.database            # checks the address, before anything is read from it

    @cached_property
    def database(self) -> Any:
        """The LanceDB connection, for writing.  Raises LakeError if it cannot be opened."""
        import lancedb

        caches = lancedb.Session(*2 * [LOCAL_CACHE_BYTES if is_local(self.uri) else METADATA_CACHE_BYTES])
        try:
            return lancedb.connect(self.uri, read_consistency_interval=timedelta(0), session=caches)
        except (OSError, ValueError, RuntimeError) as error:
            raise LakeError(f"lake at {self.uri}: cannot be opened ({error}). Check the URI and its credentials") from error

    @cached_property
    def session(self) -> Any:
        """Lance's caches, shared by all versions of the tables on an object store; None for a lake on a disk.

        Without it each new version of a table would have its indexes and metadata read again.
        """
        import lance

        if is_local(self.uri):
            return None
        return lance.Session(
            index_cache_size_bytes=int(INDEX_CACHE_SHARE * memory_bytes()), metadata_cache_size_bytes=METADATA_CACHE_BYTES
        )

    def dataset(self, name: str, *, small_cache: bool = False) -> Any:
        """A table as a Lance dataset at its newest version; None if it does not exist.  Raises LakeError if it is damaged.

        `small_cache`: on a disk, keep few metadata, in a dataset that follows a table through all its versions.
        """
        import lance

        limit = {"metadata_cache_size_bytes": LOCAL_CACHE_BYTES} if small_cache and self.session is None else {}
        try:
            return lance.dataset(f"{self.uri.rstrip('/')}/{name}.lance", session=self.session, **limit)
        except (ValueError, OSError) as error:
            if "not found" not in str(error):
                reason = str(error).split(", /")[0]
                raise LakeError(f"table {name!r}: cannot be opened ({reason}). Restore it from a copy") from error
        return None
