"""Map page: songs (or clips) of one layer as points to play, coloured by any label; a selection can be queued or saved."""

import streamlit as st

from tonelake.index import METHODS, map_stamp, mapped_layers
from tonelake.store import group_columns
from tonelake.ui.components import clip_map
from tonelake.ui.points import load_points
from tonelake.ui.shared import (
    answer_or_stop,
    choose_layer,
    choose_space,
    count_phrase,
    drop_invalid_choice,
    open_listen,
    page_lake,
    read_lasso,
    remember_lasso,
)

ANYTHING = "anything"
MUST_DIFFER = [ANYTHING, "track", "artist", "album"]
METHOD_NAMES = {"umap": "UMAP", "tsne": "t-SNE, for up to 200,000 clips", "pca": "principal components"}
POINTS = ["songs", "clips"]
# The map reaches down to the player, so nothing is below it.  A constant, as all markup that the app writes unescaped.
STYLE = """<style>
.stMainBlockContainer, .tonelake-playing .stMainBlockContainer { padding: 2.2rem 1rem 0; }
.stMainBlockContainer h1 { padding: 0; }
@media (max-width: 640px) {
  .stMainBlockContainer [data-testid=stElementContainer]:has(h1) { position: absolute; clip-path: inset(50%); }
}
</style>"""
# On a phone two maps are below each other, and the player must not cover the second one's foot.
STACKED = """<style>
@media (max-width: 640px) { .tonelake-playing .stMainBlockContainer { padding-bottom: 9rem; } }
</style>"""

st.html(STYLE)
lake = page_lake()
row = st.container(horizontal=True, vertical_alignment="center", gap="small")
row.title("Map", width="content", anchor=False)
drawer = row.popover("Layer", width="content", help="Space, layer, a second layer beside it, songs or clips")
space = choose_space(lake, drawer)
layers = [space.layers[number] for number in sorted(mapped_layers(lake, space)) if number < len(space.layers)]
layer = choose_layer(space, drawer, layers) if layers else ""
beside = ["none", *(name for name in layers if name != layer)]
drop_invalid_choice("beside", beside)
other = drawer.selectbox(
    "Second layer", beside, key="beside", bind="query-params", disabled=len(beside) < 2,
    help="Shows a second, linked map: songs hovered over or picked in one are marked in both.",
)
drop_invalid_choice("points", POINTS)
shown = drawer.radio(
    "Points are", POINTS, key="points", bind="query-params", horizontal=True,
    help="A song is drawn at its clip nearest to the mean of its clips' points.",
)
drop_invalid_choice("not_same", MUST_DIFFER)
differ = drawer.selectbox("Neighbours must differ in", MUST_DIFFER, key="not_same", bind="query-params")
if not layers:
    st.info(f"Space {space.name!r} has no map yet. The button or the command lays out one layer; this may take minutes.")
    method = st.selectbox("Method", METHODS, format_func=METHOD_NAMES.__getitem__)
    if st.button(f"Make the map of layer {space.layers[space.default_layer]}", type="primary"):
        with st.spinner("Laying out the map, which is then stored in the lake"):
            answer_or_stop(lake.map, space=space.name, method=method)
        st.rerun()
    st.code(f"tonelake map --space {space.name} --method {method}", language=None, wrap_lines=True)
    st.stop()
colours = ["cluster", *group_columns(lake.clips.columns())]
drop_invalid_choice("colour", colours)
row.text("Colour by", width="content")
colour = row.selectbox("Colour by", colours, key="colour", bind="query-params", width=160, label_visibility="collapsed")

songs, number = shown == "songs", space.layer_index(layer)
points = answer_or_stop(load_points, lake, space, number, songs=songs)
embedded, drawn = lake.vectors(space).count(), len(points.clips)
if embedded > drawn:
    row.caption(f"{count_phrase(embedded - drawn, 'clip')} embedded since the map was made. "
                f"`tonelake map --space {space.name} --layer {layer}` adds them.")

kept = read_lasso()
here = kept is not None and (kept.space, kept.songs) == (space.name, songs)
lassos = {kept.layer: kept.corners} if kept is not None and here else {}
pick = st.query_params.get("pick")
shown_layers = {"map": layer} if other == "none" else {"map": layer, "map beside": other}
# The last value from the browser takes precedence; the address counts only until there is one.
for key, name in shown_layers.items():
    sent = st.session_state.get(key)
    if sent is not None and "pick" in sent and sent["pick"] != st.session_state.get(f"{key} picked"):
        pick = st.session_state[f"{key} picked"] = sent["pick"]
    if sent is not None and "lasso" in sent and sent["lasso"] != st.session_state.get(f"{key} drew"):
        st.session_state[f"{key} drew"] = drew = sent["lasso"]
        lassos = {name: drew}
        remember_lasso(space, name, drew, songs=songs)
if pick:
    st.query_params["pick"] = pick
else:
    st.query_params.pop("pick", None)

if len(shown_layers) > 1:
    st.html(STACKED)
places = st.columns(2) if len(shown_layers) > 1 else [st.container()]
for place, (key, name) in zip(places, shown_layers.items(), strict=True):
    with place:
        if len(shown_layers) > 1:
            st.caption(f"Layer {name}")
        result = clip_map(
            space, name, key=key, stamp=str(map_stamp(lake, space, space.layer_index(name))), songs=songs, colour=colour,
            not_same=None if differ == ANYTHING else differ, pick=pick, lasso=lassos.get(name), keys=key == "map",
        )
    if getattr(result, "open", None):
        open_listen(result.open, space, name)
