"""Map page: playable points of one layer, coloured by any label; a selection can be listed or saved."""

import streamlit as st

from tonelake.index import METHODS, map_stamp, mapped_layers
from tonelake.store import group_columns
from tonelake.ui.components import clip_list, clip_map
from tonelake.ui.points import load_points
from tonelake.ui.shared import (
    MAX_LISTED,
    answer_or_stop,
    choose_layer,
    choose_space,
    count_note,
    count_phrase,
    csv_button,
    drop_invalid_choice,
    follow_action,
    one_row_a_song,
    open_similar,
    page_lake,
    playlist_button,
    read_lasso,
    remember_lasso,
    rows_for_list,
    selected_ids,
    with_joined_lists,
)

ANYTHING = "anything"
METHOD_NAMES = {"umap": "UMAP", "tsne": "t-SNE, for up to 200,000 clips", "pca": "principal components"}
HEIGHT = 640

lake = page_lake()
left, middle, right, fourth, fifth = st.columns([2, 3, 2, 2, 2], vertical_alignment="bottom")
space = choose_space(lake, left)
layers = [space.layers[number] for number in sorted(mapped_layers(lake, space)) if number < len(space.layers)]
if not layers:
    st.info(f"Space {space.name!r} has no map yet. The command or the button lays out one layer; this may take minutes.")
    method = st.selectbox("Method", METHODS, format_func=METHOD_NAMES.__getitem__)
    st.code(f"tonelake map --space {space.name} --method {method}", language="bash")
    if st.button(f"Make the map of layer {space.layers[space.default_layer]}"):
        with st.spinner("Laying out the map, which is then stored in the lake"):
            answer_or_stop(lake.map, space=space.name, method=method)
        st.rerun()
    st.stop()
layer = choose_layer(space, middle, layers)
colours = ["cluster", *group_columns(lake.clips.columns())]
drop_invalid_choice("colour", colours)
colour = right.selectbox("Colour by", colours, key="colour", bind="query-params")
beside = ["none", *(name for name in layers if name != layer)]
drop_invalid_choice("beside", beside)
other = fourth.selectbox("Second layer", beside, key="beside", bind="query-params", disabled=len(beside) == 1,
                         help="Shows a second, linked map: clips hovered over or picked in one are marked in both.")
must_differ = [ANYTHING, "track", "artist", "album"]
differ = fifth.selectbox("Neighbours must differ in", must_differ, key="not_same", bind="query-params")

number = space.layer_index(layer)
points = answer_or_stop(load_points, lake, space, number)
embedded = lake.vectors(space).count()
if embedded > len(points.ids):
    st.caption(f"{count_phrase(embedded - len(points.ids), 'clip')} embedded since the map was made. "
               f"`tonelake map --space {space.name} --layer {layer}` adds them.")

kept = read_lasso()
lasso = kept[2] if kept is not None and kept[:2] == (space.name, layer) else None
pick = st.query_params.get("pick")
# The last value from the browser takes precedence; the address counts only until there is one.
for key in ("map", "map beside"):
    sent = st.session_state.get(key)
    if sent is not None and "pick" in sent and sent["pick"] != st.session_state.get(f"{key} picked"):
        pick = st.session_state[f"{key} picked"] = sent["pick"]
    if sent is not None and "lasso" in sent and sent["lasso"] != st.session_state.get(f"{key} drew"):
        st.session_state[f"{key} drew"] = lasso = sent["lasso"]
        remember_lasso(space, layer if key == "map" else other, lasso)
if pick:
    st.query_params["pick"] = pick
else:
    st.query_params.pop("pick", None)

settings = {"colour": colour, "not_same": None if differ == ANYTHING else differ, "pick": pick, "height": HEIGHT}
if other == "none":
    clip_map(space, layer, key="map", stamp=str(map_stamp(lake, space, number)), lasso=lasso, **settings)
else:
    for place, name, key in zip(st.columns(2), (layer, other), ("map", "map beside"), strict=True):
        with place:
            st.caption(f"Layer {name}")
            stamp = str(map_stamp(lake, space, space.layer_index(name)))
            clip_map(space, name, key=key, stamp=stamp, lasso=lasso if name == layer else None, keys=key == "map", **settings)

if pick and st.button("Find similar clips with filters and mixtures"):
    open_similar(pick, space, layer)

chosen = selected_ids(lake)
if kept is None and not len(chosen):
    st.caption(
        "Drag to move, scroll to zoom, click to play a clip and list its neighbours, Shift-drag around clips to select them."
    )
if len(chosen):
    clips = lake.clips.take(chosen.to_list())
    songs = one_row_a_song(lake, clips)
    st.subheader(f"Selected: {count_phrase(len(clips), 'clip')} of {count_phrase(len(songs), 'song')}")
    plain = with_joined_lists(clips)
    manifest = plain.rename({"source": "path", "start_s": "start", "duration_s": "seconds"}).select(
        "path", "start", "seconds", *(name for name in ("title", "artist", "album", *lake.clips.label_columns()))
    )
    first, second, third, fourth, _ = st.columns([1, 1, 1, 1, 3])
    csv_button(plain, "clips.csv", first, help="All columns")
    csv_button(manifest, "manifest.csv", second, help="Input for `tonelake ingest manifest`")
    playlist_button(lake, songs, "selection.m3u8", third, help="A playlist of the songs' files")
    if fourth.button("Clear the selection"):
        remember_lasso(space, layer, None)
        for key in ("map", "map beside"):
            st.session_state.pop(key, None)
            st.session_state.pop(f"{key} drew", None)
        st.rerun()
    st.caption("The other pages offer this selection as a filter.")
    rows = rows_for_list(songs.head(MAX_LISTED), note=count_note())
    follow_action(clip_list(rows, key="selection", keys=False), space, layer)
    if len(songs) > MAX_LISTED:
        st.text(f"The first {MAX_LISTED} of {len(songs):,}; the downloads contain all.")
