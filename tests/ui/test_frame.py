"""The frame around the pages: unexpected errors become sentences, a replaced lake is named, scripts fit together."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

from fakes import clip_rows
from streamlit.testing.v1 import AppTest

from tonelake.store import Lake

STATIC = Path(__file__).resolve().parents[2] / "ui" / "static"

def failing_page():
    from tonelake.ui.frame import errors_as_sentences

    with errors_as_sentences():
        import streamlit as st

        st.session_state["before"]()


def shown(before, monkeypatch, lake) -> str:
    monkeypatch.setenv("TONELAKE_LAKE", lake.uri)
    test = AppTest.from_function(failing_page, default_timeout=60)
    test.session_state["before"] = before
    test.run()
    assert not test.exception
    return "\n".join(part.value for part in test.text)


def test_an_unexpected_error_is_a_sentence_with_the_next_step(lake, monkeypatch):
    lake.clips.add(clip_rows(1, 1))
    text = shown(lambda: 1 / 0, monkeypatch, lake)
    assert text == "This page failed with ZeroDivisionError. Try again; the terminal of `tonelake ui` has the details."


def test_a_lake_replaced_or_removed_while_a_page_is_made_is_named(lake, monkeypatch):
    lake.clips.add(clip_rows(1, 1))

    def replace():
        shutil.rmtree(lake.uri)
        Lake(lake.uri).clips.add(clip_rows(2, 1))
        raise OSError("a file of the table is gone")

    def remove():
        shutil.rmtree(lake.uri)
        raise OSError("a file of the table is gone")

    assert shown(replace, monkeypatch, lake) == "The lake was replaced while this page was being made. Try again."
    assert "is not a lake" in shown(remove, monkeypatch, lake)


def exported(script: str) -> set[str]:
    """Return the names that a script exports."""
    names = set(re.findall(r"^export (?:async )?(?:function|class) (\w+)", script, re.M))
    for declared in re.findall(r"^export const (.*)", script, re.M):
        plain = re.findall(r"(\w+) =", declared)
        names |= set(re.findall(r"\w+", declared.split("}")[0]) if declared.startswith("{") else plain)
    return names


def test_names_of_files_lose_the_same_suffixes_in_the_browser():
    from tonelake.index.names.normalise import AUDIO_SUFFIX

    assert f"AUDIO_SUFFIX = /{AUDIO_SUFFIX.pattern}/i;" in (STATIC / "parts.js").read_text(encoding="utf-8")


def test_scripts_import_only_what_others_export():
    """The browser refuses the whole component otherwise."""
    scripts = {file.name: file.read_text(encoding="utf-8") for file in STATIC.glob("*.js")}
    exports = {name: exported(script) for name, script in scripts.items()}
    for name, script in scripts.items():
        for other in re.findall(r'^export \* from "\./([\w.]+)"', script, re.M):
            exports[name] = exports[name] | exports[other]
    for name, script in scripts.items():
        for imported, other in re.findall(r'^import \{([^}]*)\} from "\./([\w.]+)"', script, re.M):
            wanted = {part.split(" as ")[0].strip() for part in imported.split(",")} - {""}
            assert wanted <= exports[other], (name, wanted - exports[other])
