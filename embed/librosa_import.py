"""librosa, loaded so that what it compiles is compiled by one process at a time.

librosa has numba compile some of itself when it is first imported, half a minute of work that numba keeps on disk.  Where
two processes do that at once, files can be left there that do not fit each other, and from then on every process that
calls what they hold dies (numba issue 10128).  So whoever is first compiles all of that kind, and others wait.
"""

from __future__ import annotations

import importlib
from functools import cache
from pathlib import Path
from typing import Any

from tonelake.store import explain_unwritable_cache, one_compiler

GENERALIZED = ("util.utils", "core.audio", "core.pitch")     # librosa's modules that are compiled so at their import


@cache
def load_librosa() -> Any:
    """The module librosa.  The first call on a machine takes half a minute.

    Raises TonelakeError where what is compiled can be kept nowhere.
    """
    import librosa

    with one_compiler(Path(librosa.__file__)), explain_unwritable_cache():
        for name in GENERALIZED:
            importlib.import_module(f"librosa.{name}")
    return librosa
