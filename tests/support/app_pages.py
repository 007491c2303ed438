"""Run a page of the app without a browser."""

from __future__ import annotations

import functools
import sys

from streamlit.components.v2 import manifest_scanner
from streamlit.testing.v1 import AppTest

from tonelake.store import Lake
from tonelake.ui.serve import APP

# The harness looks through the metadata of all installed packages before each page, which takes most of its time: once will do.
manifest_scanner.scan_component_manifests = functools.cache(manifest_scanner.scan_component_manifests)

PAGES = ("library", "map", "listen", "artists", "layers", "probes", "frames")


def page(name: str, lake: Lake, monkeypatch, **state: str) -> AppTest:
    monkeypatch.setenv("TONELAKE_LAKE", lake.uri)
    # A page runs as `__main__`.  Left so, processes that later tests start would run it as well.
    monkeypatch.setitem(sys.modules, "__main__", sys.modules["__main__"])
    test = AppTest.from_file(str(APP.parent / f"pages/{name}.py"), default_timeout=60)
    for key, value in state.items():
        test.query_params[key] = value
    test.run()
    assert not test.exception, test.exception
    return test


def text_of(test: AppTest) -> str:
    """Return all text of a page."""
    parts = (*test.text, *test.info, *test.caption, *test.markdown, *test.code, *test.header, *test.subheader)
    return "\n".join(str(part.value) for part in parts)


def listed(monkeypatch) -> dict[str, dict]:
    """Record the data passed to lists of clips from here on, by key."""
    from tonelake.ui import components

    shown: dict[str, dict] = {}
    real = components.CLIPS

    def watched(*, key, data, **settings):
        shown[key] = data
        return real(key=key, data=data, **settings)

    monkeypatch.setattr(components, "CLIPS", watched)
    return shown
