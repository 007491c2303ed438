"""Import librosa so that only one process at a time compiles its functions.

librosa has numba compile some of itself when it is first imported, half a minute of work that numba keeps on disk.  If two
processes compile at once, they can leave files that do not fit each other, and every later process that calls the
functions in them dies (numba issue 10128).  So the first process compiles all functions of that kind, and others wait.
"""

from __future__ import annotations

import importlib
from functools import cache
from pathlib import Path
from typing import Any

from tonelake.store import compiler_lock, explain_unwritable_cache

GENERALIZED = ("util.utils", "core.audio", "core.pitch")     # librosa's modules with functions compiled at import


@cache
def load_librosa() -> Any:
    """Import librosa.  The first call on a machine takes half a minute.

    Raises TonelakeError if there is no place to keep the compiled functions.
    """
    import librosa

    with compiler_lock(Path(librosa.__file__)), explain_unwritable_cache():
        for name in GENERALIZED:
            importlib.import_module(f"librosa.{name}")
    return librosa
