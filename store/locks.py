"""Exclusive locks on files, which the system releases when a process ends, however it ends."""

from __future__ import annotations

import contextlib
import hashlib
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tonelake.store.cache import cache_folder
from tonelake.store.errors import InputError


@contextmanager
def exclusive_lock(file: Path, problem: str | None = None) -> Iterator[None]:
    """Hold an exclusive lock on `file`, which is made if absent and stays; its folder has to exist.

    Waits while another process or thread holds it or, with `problem`, raises InputError with that message at once.
    A no-op where the file system has no locks.
    """
    from filelock import FileLock, Timeout

    lock = FileLock(file)
    try:
        lock.acquire(timeout=-1 if problem is None else 0)
    except Timeout as error:
        raise InputError(problem or str(error)) from None
    except (OSError, NotImplementedError):           # such as ENOLCK of a network disk
        pass
    try:
        yield
    finally:
        lock.release()


def lock_of_module(module_file: Path) -> Path:
    """The lock file for an installed module, which itself is often read-only and is never written to.

    It is in the cache folder or, where that cannot be written, in the folder for temporary files.
    """
    name = f"{module_file.stem}-{hashlib.blake2b(str(module_file.resolve()).encode(), digest_size=8).hexdigest()}.lock"
    folder = cache_folder() / "locks"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    except OSError:
        user = getattr(os, "getuid", lambda: 0)()
        folder = Path(tempfile.gettempdir()) / f"tonelake-locks-{user}"
        with contextlib.suppress(OSError):
            folder.mkdir(mode=0o700, exist_ok=True)
    return folder / name
