"""What every page needs: the lake, opened once, and one way to show an error."""

import os

import numpy as np
import streamlit as st

import tonelake
from store import TonelakeError
from tonelake.api import Tonelake

RATE = 24_000                            # Hz, of what is played


@st.cache_resource
def _open(path: str) -> Tonelake:
    return tonelake.open(path, create=False, progress=False)


def the_lake() -> Tonelake:
    """The lake that the app was started for; the page ends with the reason where it cannot be opened."""
    path = os.environ.get("TONELAKE_LAKE", "lake")
    try:
        return _open(path)
    except TonelakeError as error:
        stop_with(error)
        raise


def stop_with(error: TonelakeError) -> None:
    """Show an error as text, not as markup: it may quote a file name or tag."""
    st.error("This did not work", icon=":material/error:")
    st.text(str(error))
    st.stop()


@st.cache_data(max_entries=64, show_spinner=False)
def samples(lake_uri: str, clip_id: str) -> np.ndarray | str:
    """A clip's samples, or why there are none."""
    try:
        return _open(lake_uri).audio(clip_id, RATE)
    except TonelakeError as error:
        return str(error)


def player(lake: Tonelake, clip_id: str) -> None:
    """A player for one clip, or the reason why it cannot be heard."""
    sound = samples(lake.lake.uri, clip_id)
    if isinstance(sound, str):
        st.text(f"cannot be played: {sound}")
    else:
        st.audio(sound, sample_rate=RATE)


def title_of(clip: dict) -> str:
    """What a person calls a clip's track."""
    return clip["title"] or clip["track"]


def place_of(clip: dict) -> str:
    """Whose it is, and where in its track it begins."""
    minutes, seconds = divmod(clip["start_s"], 60)
    return f"{clip['artist'] + ' · ' if clip['artist'] else ''}{minutes:.0f}:{seconds:04.1f}"
