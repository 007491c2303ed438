"""What importing LanceDB may leave for later.

LanceDB imports the data types of its REST service's client, whose package imports the whole client beside them.  Each of the
client's functions builds what checks its arguments: two fifths of the time that `import lancedb` takes, for nothing.
"""

from __future__ import annotations

import sys
from importlib.util import find_spec
from types import ModuleType
from typing import Any

CLIENT = "lance_namespace_urllib3_client"


def put_off_rest_client() -> None:
    """Let the client's package run when something of its own is asked for, rather than when one of its modules is imported."""
    found = None if CLIENT in sys.modules else find_spec(CLIENT)
    if found is None or found.loader is None or found.submodule_search_locations is None:
        return
    package, run = ModuleType(CLIENT), found.loader.exec_module
    package.__spec__, package.__file__, package.__path__ = found, found.origin, found.submodule_search_locations

    def ask(name: str) -> Any:
        if name.startswith("__") or "__getattr__" not in vars(package):
            raise AttributeError(f"module {CLIENT!r} has no attribute {name!r}")
        del package.__getattr__
        run(package)
        return getattr(package, name)

    package.__getattr__ = ask            # type: ignore[method-assign]
    sys.modules[CLIENT] = package
