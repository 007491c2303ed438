"""Functions that numba compiles on first use and keeps on disk: one process at a time compiles, in a writable folder."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tonelake.store.errors import TonelakeError
from tonelake.store.locks import exclusive_lock, lock_of_module


@contextmanager
def compiler_lock(module_file: Path) -> Iterator[None]:
    """Let one process of this user at a time compile the functions of a module; others wait."""
    with exclusive_lock(lock_of_module(module_file)):
        yield


@contextmanager
def explain_unwritable_cache() -> Iterator[None]:
    """Raise TonelakeError with the remedy if numba finds no folder: a read-only installation, a user without a home."""
    try:
        yield
    except RuntimeError as error:
        if "no locator available" not in str(error):
            raise
        raise TonelakeError(
            "numba: no folder for compiled functions is writable, neither beside the installed packages nor in the home "
            "folder. Set NUMBA_CACHE_DIR to a folder that only you can write to"
        ) from error
