"""Files inside a lake that are no tables, on a local disk or an object store.  They appear whole or not at all.

Locally a file is written beside its place, fsynced, and linked in; on an object store an upload is atomic by itself
and goes through Lance's own client, so that tables and files always use the same credentials.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from tonelake.store.errors import InputError, LakeError

LOCK = ".lock"                           # of a folder that one run at a time writes; stays, empty


def is_local(uri: str) -> bool:
    """Whether `uri` is a path of this machine rather than an object store.

    >>> is_local("./lake"), is_local("s3://bucket/lake"), is_local("C:/lake")
    (True, False, True)
    """
    return "://" not in uri


def half_written(target: Path) -> Path:
    """Where a file is written before it appears: a name of its own for each writer, be it a process or a thread."""
    return target.with_name(f".{target.name}.{os.getpid()}-{secrets.token_hex(4)}.tmp")


def unwritten(target: Path, error: OSError) -> LakeError:
    return LakeError(f"{target} cannot be written ({error.strerror or error}): free some space and run it again")


class Blobs:
    """The files below one folder of a lake."""

    def __init__(self, uri: str) -> None:
        self.uri = uri

    def names(self, suffix: str = ".json") -> list[str]:
        """Names of the files that end so, sorted; an absent folder is an empty one."""
        if is_local(self.uri):
            folder = Path(self.uri)
            return sorted(f.name for f in folder.iterdir() if f.suffix == suffix) if folder.is_dir() else []
        return sorted(name for name in self._session().list() if name.endswith(suffix) and "/" not in name)

    def folders(self) -> list[str]:
        """Names of the folders below, sorted."""
        if is_local(self.uri):
            folder = Path(self.uri)
            return sorted(f.name for f in folder.iterdir() if f.is_dir()) if folder.is_dir() else []
        return sorted({name.split("/")[0] for name in self._session().list() if "/" in name})

    def remove(self, name: str) -> None:
        """Delete a file, if it is there."""
        if is_local(self.uri):
            (Path(self.uri) / name).unlink(missing_ok=True)
        elif self._session().contains(name):
            self._session().delete_file(name)

    def stamp(self, name: str) -> str | None:
        """What changes when a file is written anew; None where there is none.

        An object store is not asked for a file's age: there it changes every ten minutes.
        """
        if is_local(self.uri):
            try:
                found = (Path(self.uri) / name).stat()
            except FileNotFoundError:
                return None
            return f"{found.st_mtime_ns}-{found.st_size}-{found.st_ino}"
        return f"{time.time() // 600:.0f}" if self._session().contains(name) else None

    def read(self, name: str) -> str | None:
        """The text of a file, or None where there is none.  Raises LakeError for one that is no text."""
        with self.fetched(name) as path:
            if path is None:
                return None
            try:
                return path.read_text(encoding="utf-8")
            except FileNotFoundError:    # gone since
                return None
            except UnicodeDecodeError as error:
                text = f"{self.uri}/{name} is damaged, it is no text from byte {error.start} on: restore or delete it"
                raise LakeError(text) from error

    def write_once(self, name: str, text: str) -> bool:
        """Create a file; False, and nothing written, where it exists already.  Raises LakeError where it cannot be written."""
        if not is_local(self.uri):
            session = self._session()
            if session.contains(name):
                return False
            with tempfile.TemporaryDirectory() as folder:
                copy = Path(folder) / "file"
                copy.write_text(text, encoding="utf-8")
                session.upload_file(str(copy), name)
            return True
        target = Path(self.uri) / name
        beside = half_written(target)
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            with beside.open("w", encoding="utf-8") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
            os.link(beside, target)            # unlike rename, link refuses to replace: two writers, one winner
            return True
        except FileExistsError:
            return False
        except OSError as error:
            raise unwritten(target, error) from error
        finally:
            with contextlib.suppress(OSError):
                beside.unlink()

    def put(self, name: str, write: Callable[[Path], None]) -> None:
        """Create or replace a file with what `write` writes to the path it is given.  Raises LakeError, and leaves an
        older file as it was, where it cannot be written."""
        if not is_local(self.uri):
            with tempfile.TemporaryDirectory() as folder:
                write(Path(folder) / "file")
                self._session().upload_file(str(Path(folder) / "file"), name)
            return
        target = Path(self.uri) / name
        beside = half_written(target)
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            write(beside)
            with beside.open("rb") as file:
                os.fsync(file.fileno())
            beside.replace(target)
        except OSError as error:
            raise unwritten(target, error) from error
        finally:
            with contextlib.suppress(OSError):
                beside.unlink()

    def put_text(self, name: str, text: str) -> None:
        """The same for a text."""
        def write(path: Path) -> None:
            path.write_text(text, encoding="utf-8")

        self.put(name, write)

    @contextmanager
    def fetched(self, name: str) -> Iterator[Path | None]:
        """A file's path, of a copy where it is on an object store; None where there is none."""
        if is_local(self.uri):
            path = Path(self.uri) / name
            yield path if path.is_file() else None
            return
        session = self._session()
        with tempfile.TemporaryDirectory() as folder:
            found = session.contains(name)
            if found:
                session.download_file(name, str(Path(folder) / "file"))
            yield Path(folder) / "file" if found else None

    @contextmanager
    def held(self, problem: str) -> Iterator[None]:
        """Keep other runs on this machine out of the folder; over when the process is, however that ends.

        Raises InputError with `problem` where another one is in.  Nobody is kept out on an object store, nor where the
        system or the disk knows no locks.
        """
        try:
            import fcntl
        except ImportError:              # not on Windows
            yield
            return
        if not is_local(self.uri):
            yield
            return
        target = Path(self.uri) / LOCK
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            file = target.open("w")
        except OSError as error:
            raise unwritten(target, error) from error
        with file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise InputError(problem) from error
            except OSError:
                pass
            yield

    def _session(self):
        from lance.file import LanceFileSession

        return LanceFileSession(self.uri)
