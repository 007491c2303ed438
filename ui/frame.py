"""The frame around all pages: their addresses and those of earlier releases, the style sheet, and the theme.

Colours keep a contrast of 4.5:1 between text and ground in both themes (WCAG 2.2 AA); tests/ui/test_axe.py checks every page.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import streamlit as st

from tonelake.store import TonelakeError
from tonelake.ui.opened import opened_lake
from tonelake.ui.shared import error_box

log = logging.getLogger("tonelake")

# Room at the foot of the page and of the sidebar for the player, which covers it while it holds a song.  Grey text has more
# contrast than Streamlit's; `!important` because its own rules, which come later, are as specific.
STYLE = """
.stMainBlockContainer { padding-top: 2.4rem; padding-bottom: 3rem; }
.stMainBlockContainer h1 { font-size: 1.35rem; padding: 0 0 0.5rem; }
.tonelake-playing .stMainBlockContainer, .tonelake-playing [data-testid=stSidebarContent] { padding-bottom: 9rem; }
[data-testid=stTopNavLink], [data-testid=stSidebarNavLink] { min-height: 2.75rem; display: flex; align-items: center; }
[data-testid=stCaptionContainer] { opacity: 1; }
[data-testid=stCaptionContainer], [data-testid=stCaptionContainer] p { color: light-dark(#5c5a58, #b9b6b2) !important; }
[data-testid=stWidgetLabel] [data-testid=stMarkdownContainer] { color: light-dark(#2f2d2b, #edebe8) !important; }
[data-testid=stBaseButton-primary] { color: light-dark(#ffffff, #08222a) !important; }
:is(a, button, summary, [role=tab]):focus-visible { outline: 2px solid currentColor; outline-offset: 2px; }
[data-testid=stHeading] h2 { font-size: 1.15rem; padding: 0.75rem 0 0.25rem; }
[data-testid=stHeading] h3 { font-size: 1.05rem; padding: 0.5rem 0 0.25rem; }
[data-testid=stExpandSidebarButton] { min-height: 2.75rem; min-width: 2.75rem; width: auto; }
@media (max-width: 640px) {
  .stMainBlockContainer { padding: 2.4rem 0.9rem 3rem; }
  [data-testid=stExpandSidebarButton]::after { content: "Menu"; }
}
@media (prefers-reduced-motion: reduce) {
  *, *::before, *::after { animation-duration: 0.01ms !important; transition-duration: 0.01ms !important; }
}
"""
PAGES = {                                # address: title in the navigation; the file is pages/ADDRESS.py
    "listen": "Listen", "map": "Map", "artists": "Artists", "layers": "Layers", "probes": "Probes", "frames": "Frames",
    "library": "Library",
}
MOVED: dict[str, tuple[str, dict[str, str]]] = {        # address of an earlier release: page, and parameters that were renamed
    "similar": ("listen", {"clip": "song"}),
    "groups": ("artists", {}),
    "notes": ("frames", {}),
}
THEME = {                                # one accent, in the two themes that Streamlit has
    "theme.light.primaryColor": "#17697f",
    "theme.dark.primaryColor": "#5fb6cf",
    "theme.showWidgetBorder": True,
}


def forward(page: st.Page, renamed: Mapping[str, str]) -> None:
    """Open a page with the parameters of this address, some of them under another name."""
    given = st.query_params.to_dict()
    st.switch_page(page, query_params={renamed.get(name, name): value for name, value in given.items()})


@contextmanager
def errors_as_sentences() -> Iterator[None]:
    """Show an error that a page did not expect as a sentence with the next step; its traceback goes to the terminal.

    The likeliest cause is a lake that was replaced or removed while the page was being made.
    """
    try:
        before = opened_lake()
    except TonelakeError:                # the page says so itself
        before = None
    try:
        yield
    except TonelakeError as error:
        error_box(error)
    except Exception as error:           # not Streamlit's own, which end a page: they are BaseExceptions
        log.exception("a page of the app failed")
        with st.container(key="page_failed"):
            error_box(failure(error, before))
            st.button("Try again")


def failure(error: Exception, before: object) -> str:
    """Return the sentence for an unexpected error on a page that was opened with the lake `before`."""
    try:
        replaced = opened_lake() is not before
    except TonelakeError as gone:
        return str(gone)
    if replaced:
        return "The lake was replaced while this page was being made. Try again."
    return f"This page failed with {type(error).__name__}. Try again; the terminal of `tonelake ui` has the details."
