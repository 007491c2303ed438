"""Files below one folder of an object store, through obstore.  An upload is atomic: a file appears whole or not at all.

Conditional writes (`create`, `replace`) succeed for one of several writers: S3 and its like compare e-tags, Google's store
compares generations.  Where a store refuses conditions, `write_once` looks before it writes, and a warning is logged once.
"""

from __future__ import annotations

import logging
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import IO, Any, TypeVar
from urllib.parse import quote, unquote

from tonelake.store.errors import LakeError
from tonelake.store.object_stores import Bucket, bucket_of, explained, split_uri

Answer = TypeVar("Answer")
Version = dict[str, str]                 # e_tag, and version where the store has one: what a conditional write compares

PART_BYTES = 8 * 2**20                   # of a file that is read or written in parts
PARTS_AT_ONCE = 4                        # so an upload holds 32 MiB in memory
CONFLICT_TRIES, CONFLICT_WAIT_S = 4, 0.1 # a store may answer 409 while another conditional write is under way

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Stored:
    """A file's content with what a conditional write needs."""

    content: bytes
    version: Version
    modified: datetime                   # by the store's clock, in whole seconds


class UnconditionalStore(Exception):
    """The store has no conditional writes."""


class ObjectBlobs:
    """The files directly below `uri`."""

    def __init__(self, uri: str) -> None:
        self.uri = uri
        self._scheme, self._bucket_name, self._folder = split_uri(uri)

    def names(self) -> list[str]:
        """Names of the files directly in the folder."""
        return [unquote(found["path"].rpartition("/")[2]) for found in self._listed()["objects"]]

    def folders(self) -> list[str]:
        """Names of the folders directly in the folder."""
        return [prefix.rstrip("/").rpartition("/")[2] for prefix in self._listed()["common_prefixes"]]

    def remove(self, name: str) -> None:
        """Delete a file; one that does not exist is no error."""
        import obstore

        self._found(name, lambda store, key: obstore.delete(store, key))

    def stamp(self, name: str) -> str | None:
        """A text that changes with the content of a file; None without the file."""
        import obstore

        found = self._found(name, lambda store, key: obstore.head(store, key))
        return None if found is None else f"{found['e_tag'] or found['last_modified']}-{found['size']}"

    def read(self, name: str) -> bytes | None:
        """The content of a file; None without the file."""
        found = self.read_stored(name)
        return None if found is None else found.content

    def read_stored(self, name: str) -> Stored | None:
        """The content of a file with its version; None without the file."""
        import obstore

        def get(store: Any, key: str) -> Stored:
            found = obstore.get(store, key)
            return Stored(content=bytes(found.bytes()), version=version_of(found.meta), modified=found.meta["last_modified"])

        return self._found(name, get)

    def fetch(self, name: str, to: Path) -> bool:
        """Write the content of a file to a local path, part by part; False without the file."""
        import obstore

        def get(store: Any, key: str) -> bool:
            found = obstore.get(store, key)
            with to.open("wb") as file:
                for part in found.stream(min_chunk_size=PART_BYTES):
                    write_part(file, part, to)
            return True

        return bool(self._found(name, get))

    def put(self, name: str, content: Path | bytes) -> None:
        """Create or replace a file by that at a local path, in parts if it is large, or by these bytes."""
        import obstore

        def send(store: Any, key: str) -> None:
            obstore.put(store, key, content, chunk_size=PART_BYTES, max_concurrency=PARTS_AT_ONCE)

        try:
            self._run(name, send)
        except FileNotFoundError as error:
            raise explained(error, self._scheme, self._bucket_name, self._key(name)) from error

    def create(self, name: str, content: bytes) -> Version | None:
        """Create a file and return its version; None, and nothing is written, if there is one already.

        Raises UnconditionalStore if the store cannot make that certain.
        """
        from obstore.exceptions import AlreadyExistsError

        for attempt in range(CONFLICT_TRIES):
            try:
                return self._put_if(name, content, "create")
            except AlreadyExistsError as error:
                if "409 Conflict" not in str(error):
                    return None
                time.sleep(CONFLICT_WAIT_S * (attempt + 1))
        return None

    def replace(self, name: str, content: bytes, version: Version) -> Version | None:
        """Replace a file of this version and return the new one; None, and nothing is written, if it has another or is gone.

        Raises UnconditionalStore if the store cannot make that certain.
        """
        from obstore.exceptions import AlreadyExistsError, PreconditionError

        try:
            return self._put_if(name, content, version)
        except (AlreadyExistsError, PreconditionError, FileNotFoundError):
            return None

    def write_once(self, name: str, content: bytes) -> bool:
        """Create a file; if it exists already, write nothing and return False."""
        try:
            return self.create(name, content) is not None
        except UnconditionalStore:
            self.note_unconditional("processes that make one lake, space or run at once may overwrite each other's file")
        if self.stamp(name) is not None:
            return False
        self.put(name, content)
        return True

    def clock(self, name: str) -> datetime:
        """The time by the store's clock, to a second: that of a file which is written for it and deleted."""
        import obstore

        self.put(name, b"")
        found = self._run(name, lambda store, key: obstore.head(store, key)["last_modified"])
        self.remove(name)
        return found

    def note_unconditional(self, consequence: str) -> None:
        """Log, once a process, that the store has no conditional writes, and what follows from it."""
        bucket = self._bucket()
        if bucket.is_conditional:
            bucket.is_conditional = False
            log.warning(
                "%s://%s: has no conditional writes, so %s. Let one process write at a time", bucket.scheme, bucket.name,
                consequence,
            )

    def _put_if(self, name: str, content: bytes, mode: Any) -> Version:
        import obstore

        if not self._bucket().is_conditional:
            raise UnconditionalStore
        try:
            # Impatient, since 501 (not implemented) would be retried as any other error of a server.
            return version_of(self._run(name, lambda store, key: obstore.put(store, key, content, mode=mode), patient=False))
        except NotImplementedError as error:
            raise UnconditionalStore from error
        except LakeError as error:
            if "501 Not Implemented" in str(error.__cause__) or "<Code>NotImplemented<" in str(error.__cause__):
                raise UnconditionalStore from error
            raise

    def _listed(self) -> Any:
        import obstore

        folder = self._folder
        return self._bucket().run(folder, lambda store: obstore.list_with_delimiter(store, folder or None))

    def _found(self, name: str, action: Callable[[Any, str], Answer]) -> Answer | None:
        try:
            return self._run(name, action)
        except FileNotFoundError:
            return None

    def _run(self, name: str, action: Callable[[Any, str], Answer], *, patient: bool = True) -> Answer:
        key = self._key(name)
        return self._bucket().run(key, lambda store: action(store, key), patient=patient)

    def _key(self, name: str) -> str:
        return "/".join(part for part in (self._folder, quoted(name)) if part)

    def _bucket(self) -> Bucket:
        return bucket_of(self._scheme, self._bucket_name)


def version_of(found: Any) -> Version:
    """Return the part of a store's answer that a conditional write compares."""
    return {name: found[name] for name in ("e_tag", "version") if found[name] is not None}


def quoted(name: str) -> str:
    """The end of the key of a file, with the characters escaped that stores advise against.

    Lance's client, through which earlier releases wrote these files, escaped the same ones.

    >>> quoted("a b~é.json"), quoted("runs/a[0].json")
    ('a b%7E%C3%A9.json', 'runs/a%5B0%5D.json')
    """
    return quote(name, safe=" !$&'()+,/:;=@").replace("~", "%7E")


def write_part(file: IO[bytes], part: bytes, path: Path) -> None:
    """Append to a temporary file.  Raises LakeError if that fails."""
    try:
        file.write(part)
    except OSError as error:
        raise temporary_error(path, error) from error


def temporary_error(path: Path, error: OSError) -> LakeError:
    """The LakeError for a temporary file that cannot be written."""
    return LakeError(
        f"{path}: cannot be written ({error.strerror or error}). Free some space there, or set TMPDIR, and run it again"
    )


def upload(files: ObjectBlobs, name: str, write: Callable[[Path], None]) -> None:
    """Create or replace a file by what `write` writes to a temporary path."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "file"
        try:
            write(path)
        except OSError as error:
            raise temporary_error(path, error) from error
        files.put(name, path)
