"""Small files of a lake beside its tables, on a local disk or an object store.  A file appears whole or not at all.

Locally a file is written under a temporary name, fsynced, and linked to its own.  On an object store an upload is atomic by
itself (`store.object_blobs`), and a lease takes the place of a lock (`store.lease`).
"""

from __future__ import annotations

import contextlib
import os
import secrets
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from tonelake.store.errors import LakeError
from tonelake.store.lease import Lease, leased
from tonelake.store.locks import exclusive_lock
from tonelake.store.object_blobs import ObjectBlobs, upload

LOCK = ".lock"                           # in a folder that one run at a time may write; stays, empty


def is_local(uri: str) -> bool:
    """Whether `uri` is a path of this machine rather than an object store.

    >>> is_local("./lake"), is_local("s3://bucket/lake"), is_local("C:/lake")
    (True, False, True)
    """
    return "://" not in uri


def temporary_name(target: Path) -> Path:
    """The temporary name under which a file is written: unique to each writer, process or thread."""
    return target.with_name(f".{target.name}.{os.getpid()}-{secrets.token_hex(4)}.tmp")


def write_error(target: Path, error: OSError) -> LakeError:
    """The LakeError for a file that the operating system could not write."""
    return LakeError(f"{target}: cannot be written ({error.strerror or error}). Free some space and run it again")


class Blobs:
    """The files below one folder of a lake."""

    def __init__(self, uri: str) -> None:
        self.uri = uri
        self._lease: Lease | None = None         # held: writes check it first

    def names(self, suffix: str = ".json") -> list[str]:
        """Names of the files with this suffix, sorted; empty if the folder does not exist."""
        if is_local(self.uri):
            folder = Path(self.uri)
            return sorted(f.name for f in folder.iterdir() if f.suffix == suffix) if folder.is_dir() else []
        return sorted(name for name in ObjectBlobs(self.uri).names() if name.endswith(suffix))

    def folders(self) -> list[str]:
        """Names of the subfolders, sorted."""
        if is_local(self.uri):
            folder = Path(self.uri)
            return sorted(f.name for f in folder.iterdir() if f.is_dir()) if folder.is_dir() else []
        return sorted(ObjectBlobs(self.uri).folders())

    def remove(self, name: str) -> None:
        """Delete a file if it exists."""
        if is_local(self.uri):
            (Path(self.uri) / name).unlink(missing_ok=True)
        else:
            self._check_lease()
            ObjectBlobs(self.uri).remove(name)

    def stamp(self, name: str) -> str | None:
        """A text that changes when the file is rewritten, on an object store with other content; None if there is no such
        file."""
        if is_local(self.uri):
            try:
                found = (Path(self.uri) / name).stat()
            except FileNotFoundError:
                return None
            return f"{found.st_mtime_ns}-{found.st_size}-{found.st_ino}"
        return ObjectBlobs(self.uri).stamp(name)

    def read(self, name: str) -> str | None:
        """The text of a file, or None if it does not exist.  Raises LakeError if it is not valid UTF-8."""
        content: bytes | None
        if is_local(self.uri):
            path = Path(self.uri) / name
            try:
                content = path.read_bytes() if path.is_file() else None
            except FileNotFoundError:    # deleted in the meantime
                content = None
        else:
            content = ObjectBlobs(self.uri).read(name)
        try:
            return None if content is None else content.decode("utf-8").replace("\r\n", "\n").replace("\r", "\n")
        except UnicodeDecodeError as error:
            raise LakeError(
                f"{self.uri}/{name}: is damaged (not UTF-8 text from byte {error.start} on). Restore or delete it"
            ) from error

    def write_once(self, name: str, text: str) -> bool:
        """Create a file; if it exists already, write nothing and return False.  Raises LakeError if it cannot be written."""
        if not is_local(self.uri):
            self._check_lease()
            return ObjectBlobs(self.uri).write_once(name, text.encode("utf-8"))
        target = Path(self.uri) / name
        beside = temporary_name(target)
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            with beside.open("w", encoding="utf-8") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
            os.link(beside, target)            # unlike rename, link refuses to replace: of two writers, one wins
            return True
        except FileExistsError:
            return False
        except OSError as error:
            raise write_error(target, error) from error
        finally:
            with contextlib.suppress(OSError):
                beside.unlink()

    def put(self, name: str, write: Callable[[Path], None]) -> None:
        """Create or replace a file: `write` is called with a temporary path and writes the content there.

        Raises LakeError if it cannot be written; an older file is then left unchanged.
        """
        if not is_local(self.uri):
            def write_and_check(path: Path) -> None:
                write(path)              # which may take long
                self._check_lease()

            upload(ObjectBlobs(self.uri), name, write_and_check)
            return
        target = Path(self.uri) / name
        beside = temporary_name(target)
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            write(beside)
            with beside.open("rb") as file:
                os.fsync(file.fileno())
            beside.replace(target)
        except OSError as error:
            raise write_error(target, error) from error
        finally:
            with contextlib.suppress(OSError):
                beside.unlink()

    def put_text(self, name: str, text: str) -> None:
        """Create or replace a text file."""
        def write(path: Path) -> None:
            path.write_text(text, encoding="utf-8")

        self.put(name, write)

    @contextmanager
    def fetched(self, name: str) -> Iterator[Path | None]:
        """The file's path, or that of a temporary copy if it is on an object store; None if it does not exist."""
        if is_local(self.uri):
            path = Path(self.uri) / name
            yield path if path.is_file() else None
            return
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "file"
            yield path if ObjectBlobs(self.uri).fetch(name, path) else None

    @contextmanager
    def locked(self, problem: str) -> Iterator[None]:
        """Keep other runs out of the folder: those of this machine by a lock, on an object store all by a lease.

        Raises InputError with `problem` if another run holds it.  A process that ends, however it ends, releases a lock at
        once, and a lease within a minute.  Without conditional writes in the store, or locks in the file system, a no-op.

        Under a lease, writes and deletions through this object raise LakeError once another process has taken it over.
        """
        if not is_local(self.uri):
            with leased(ObjectBlobs(self.uri), LOCK, problem) as self._lease:
                try:
                    yield
                finally:
                    self._lease = None
            return
        target = Path(self.uri) / LOCK
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            target.touch()
        except OSError as error:
            raise write_error(target, error) from error
        with exclusive_lock(target, problem):
            yield

    def _check_lease(self) -> None:
        if self._lease is not None:
            self._lease.check()
