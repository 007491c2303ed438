"""Settings of a whole process: Arrow's allocator, thread counts, deferred imports.

Importing tonelake changes none of them, since a library must not change its host program.  The command, the app, the worker
processes and the benchmarks call `prepare_process` first.
"""

from __future__ import annotations

import os
import sys
from importlib.util import find_spec
from types import ModuleType
from typing import Any

from tonelake.store.machine import share_cores

POOL_VARIABLE = "ARROW_DEFAULT_MEMORY_POOL"              # Arrow's own variable; an explicit choice is respected
CLIENT = "lance_namespace_urllib3_client"


def prepare_process(*, pandas: bool = True) -> None:
    """Choose Arrow's allocator, limit threads to the granted processors, and defer LanceDB's REST client.

    `pandas`: False in a short command that uses none of it, see `hide_pandas`.
    """
    defer_import(CLIENT)
    if not pandas:
        hide_pandas()
    choose_pool()
    share_cores()


def choose_pool() -> None:
    """Use jemalloc for Arrow's memory where Arrow was built with it, unless the environment names an allocator.

    Arrow's default, mimalloc, kept a kilobyte of every embedded clip, 100 MB in 100,000: probably memory that one thread
    allocates and one of Lance's frees.  jemalloc, like the system's allocator, keeps nothing, and reading is not slower.
    """
    import pyarrow as pa

    if POOL_VARIABLE not in os.environ and "jemalloc" in pa.supported_memory_backends():
        pa.set_memory_pool(pa.jemalloc_memory_pool())


def hide_pandas() -> None:
    """Keep Arrow from importing pandas with the first array that it makes of a list: a fifth of a short command's time.

    Arrow looks for pandas once, to recognize its missing values in lists.  Afterwards Arrow converts tables to pandas as ever,
    but does not know pandas' NA, so a process that makes data frames must not hide it.  An imported pandas is left as it is.
    """
    import pyarrow as pa

    if "pandas" in sys.modules:
        return
    finder: Any = HidingFinder()
    sys.meta_path.insert(0, finder)
    try:
        pa.array([None])
    finally:
        sys.meta_path.remove(finder)


class HidingFinder:
    """A finder of modules for which there is no pandas."""

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> None:
        if name == "pandas":
            raise ModuleNotFoundError("pandas is hidden while Arrow starts", name=name)


def defer_import(name: str) -> None:
    """Defer running a top-level package until one of its attributes is first used; an imported package is left as it is."""
    found = None if name in sys.modules else find_spec(name)
    if found is None or found.loader is None or found.submodule_search_locations is None:
        return
    package, run = ModuleType(name), found.loader.exec_module
    package.__spec__, package.__file__, package.__path__ = found, found.origin, found.submodule_search_locations

    def load_and_get(attribute: str) -> Any:
        if attribute.startswith("__") or "__getattr__" not in vars(package):
            raise AttributeError(f"module {name!r} has no attribute {attribute!r}")
        del package.__getattr__
        run(package)
        return getattr(package, attribute)

    package.__getattr__ = load_and_get            # type: ignore[method-assign]
    sys.modules[name] = package
