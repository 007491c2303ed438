"""Run a page of the app without a browser."""

from __future__ import annotations

import functools

from streamlit.components.v2 import manifest_scanner
from streamlit.testing.v1 import AppTest

from tonelake.store import Lake
from tonelake.ui.serve import APP

# The harness looks through the metadata of all installed packages before each page, which takes most of its time: once will do.
manifest_scanner.scan_component_manifests = functools.cache(manifest_scanner.scan_component_manifests)

PAGES = ("library", "map", "similar", "groups", "layers", "runs", "notes")


def page(name: str, lake: Lake, monkeypatch, **state: str) -> AppTest:
    monkeypatch.setenv("TONELAKE_LAKE", lake.uri)
    test = AppTest.from_file(str(APP.parent / f"pages/{name}.py"), default_timeout=60)
    for key, value in state.items():
        test.query_params[key] = value
    test.run()
    assert not test.exception, test.exception
    return test
