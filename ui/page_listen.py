"""A clip and what sounds like it, at a layer of one's choice, to be heard."""

import polars as pl
import streamlit as st

from store import TonelakeError
from ui.shared import place_of, player, stop_with, the_lake, title_of

MOST_CLIPS = 2_000                       # in the list of clips; a search narrows a larger lake
NEIGHBOURS = 10

lake = the_lake()
st.title("Listen")
spaces = lake.lake.spaces.all()
if not spaces:
    st.info("Nothing is embedded yet. Run `tonelake embed`, then come back.")
    st.stop()

left, right = st.columns([1, 2], gap="large")
with left:
    space = st.selectbox("Space", spaces, format_func=lambda s: s.name, key="space")
    layer = st.select_slider("Layer", space.layers, value=space.layers[space.default_layer], key=f"layer of {space.name}")
    search = st.text_input("Search title, artist or track", key="search").strip().lower()
    clips = lake.lake.clips.read(["clip_id", "artist", "title", "track", "start_s"])
    if search:                           # compared here, not in SQL: what is typed is text, never a part of a filter
        named = (pl.col(name).str.to_lowercase().str.contains(search, literal=True) for name in ("title", "artist", "track"))
        clips = clips.filter(pl.any_horizontal(named).fill_null(False))
    if not len(clips):
        st.info("No clip matches.")
        st.stop()
    if len(clips) > MOST_CLIPS:
        st.caption(f"The first {MOST_CLIPS:,} of {len(clips):,} clips; search to see others.")
    names = {clip["clip_id"]: f"{title_of(clip)} · {place_of(clip)}" for clip in clips.head(MOST_CLIPS).iter_rows(named=True)}
    clip_id = st.selectbox("Clip", list(names), format_func=names.get, key="clip")
    other_tracks = st.toggle("Other tracks only", value=True, key="other")
    player(lake, clip_id)

with right:
    try:
        hits = lake.similar(
            clip_id, space=space.name, layer=layer, k=NEIGHBOURS, not_same="track" if other_tracks else None
        )
    except TonelakeError as error:
        stop_with(error)
    st.subheader(f"Nearest at layer {layer}, by cosine")
    if not len(hits):
        st.info("No other clip to compare with.")
    for hit in hits.iter_rows(named=True):
        text, score, sound = st.columns([7, 1, 5], vertical_alignment="center")
        text.text(f"{hit['rank']}.  {title_of(hit)}\n{place_of(hit)}")
        score.text(f"{hit['score']:.3f}")
        with sound:
            player(lake, hit["clip_id"])
