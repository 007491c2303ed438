"""Packages that run later: when something of their own is asked for, rather than when one of their modules is imported.

Two gain by it.  LanceDB imports the data types of its REST service's client, whose package imports the whole client beside
them.  Each of the client's functions builds what checks its arguments: two fifths of the time that `import lancedb` takes,
for nothing.  And a decoding process (`ingest.worker_main`) needs no tables, only modules beside those that have them.

This file imports nothing of ours, and can be run by itself.
"""

from __future__ import annotations

import sys
from importlib.util import find_spec
from types import ModuleType
from typing import Any

CLIENT = "lance_namespace_urllib3_client"


def put_off(name: str) -> None:
    """Let a top-level package run when something of its own is first asked for.  One that has been imported stays as it is."""
    found = None if name in sys.modules else find_spec(name)
    if found is None or found.loader is None or found.submodule_search_locations is None:
        return
    package, run = ModuleType(name), found.loader.exec_module
    package.__spec__, package.__file__, package.__path__ = found, found.origin, found.submodule_search_locations

    def ask(attribute: str) -> Any:
        if attribute.startswith("__") or "__getattr__" not in vars(package):
            raise AttributeError(f"module {name!r} has no attribute {attribute!r}")
        del package.__getattr__
        run(package)
        return getattr(package, attribute)

    package.__getattr__ = ask            # type: ignore[method-assign]
    sys.modules[name] = package
