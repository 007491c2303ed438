"""Answers of the lake that take a while, kept until clips or vectors change.  Only pages import this module."""

from __future__ import annotations

from typing import Any

import streamlit as st

from tonelake import Lake
from tonelake.store import Space
from tonelake.ui import opened
from tonelake.ui.shared import answer_or_stop


def cached_answer(lake: Lake, spaces: tuple[Space | str, ...], method: str, *arguments: Any, **settings: Any) -> Any:
    """Return the result of a method of the lake, such as "groups".  On a TonelakeError, show its message and end the page.

    `spaces`: those whose vectors the answer depends on.  Arguments and settings are plain values, or tuples of them.
    """
    versions = (lake.identity, lake.clips.table.version, *(lake.vectors(space).table.version for space in spaces))
    return answer_or_stop(_answer, lake.uri, versions, method, arguments, tuple(sorted(settings.items())))


@st.cache_data(max_entries=64, show_spinner=False)
def _answer(uri: str, versions: tuple, method: str, arguments: tuple, settings: tuple) -> Any:
    return getattr(opened.opened_lake(), method)(*arguments, **dict(settings))
