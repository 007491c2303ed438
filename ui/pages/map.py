"""The map of a space's layer: points to be heard, coloured by any label, and what is selected on it as a list or a file."""

import streamlit as st

from tonelake.index import map_stamp, mapped_layers
from tonelake.ui.components import clip_list, clip_map
from tonelake.ui.points import load_points
from tonelake.ui.shared import (
    MOST_LISTED,
    asked,
    choose_layer,
    choose_space,
    counted,
    csv_button,
    follow,
    joined_lists,
    keep_valid,
    open_similar,
    read_lasso,
    remember_lasso,
    rows_for_list,
    selected_ids,
    the_lake,
)

ANYTHING = "anything"
HEIGHT = 640

lake = the_lake()
left, middle, right, fourth, fifth = st.columns([2, 3, 2, 2, 2], vertical_alignment="bottom")
space = choose_space(lake, left)
layers = [space.layers[number] for number in sorted(mapped_layers(lake.lake, space)) if number < len(space.layers)]
if not layers:
    st.info(f"Space {space.name!r} has no map yet. The command lays out one layer; so does the button, which may take minutes.")
    st.code(f"tonelake map --space {space.name}", language="bash")
    if st.button(f"Make the map of layer {space.layers[space.default_layer]}"):
        with st.spinner("Laying out; this is kept with the lake"):
            asked(lake.map, space=space.name)
        st.rerun()
    st.stop()
layer = choose_layer(space, middle, layers)
colours = ["cluster", "artist", "album", "track", "dataset", "stem", "split", *lake.lake.clips.label_columns()]
keep_valid("colour", colours)
colour = right.selectbox("Colour by", colours, key="colour", bind="query-params")
beside = ["none", *(name for name in layers if name != layer)]
keep_valid("beside", beside)
other = fourth.selectbox("Layer beside", beside, key="beside", bind="query-params", disabled=len(beside) == 1,
                         help="A second layer, linked: what is pointed at or picked in one shows in both.")
differ = fifth.selectbox("Neighbours of another", [ANYTHING, "track", "artist", "album"], key="not_same", bind="query-params")

number = space.layer_index(layer)
points = asked(load_points, lake.lake, space, number)
embedded = lake.lake.vectors(space).count()
if embedded > len(points.ids):
    st.caption(f"{counted(embedded - len(points.ids), 'clip', 'clips')} came since: `tonelake map --space {space.name} "
               f"--layer {layer}` places them.")

kept = read_lasso()
lasso = kept[2] if kept is not None and kept[:2] == (space.name, layer) else None
pick = st.query_params.get("pick")
# What the browser said last counts; the address only where it has said nothing yet.
for key in ("map", "map beside"):
    said = st.session_state.get(key)
    if said is not None and "pick" in said and said["pick"] != st.session_state.get(f"{key} said"):
        pick = st.session_state[f"{key} said"] = said["pick"]
    if said is not None and "lasso" in said and said["lasso"] != st.session_state.get(f"{key} drew"):
        st.session_state[f"{key} drew"] = lasso = said["lasso"]
        remember_lasso(space, layer if key == "map" else other, lasso)
if pick:
    st.query_params["pick"] = pick
else:
    st.query_params.pop("pick", None)

settings = {"colour": colour, "not_same": None if differ == ANYTHING else differ, "pick": pick, "height": HEIGHT}
if other == "none":
    clip_map(space, layer, key="map", stamp=str(map_stamp(lake.lake, space, number)), lasso=lasso, **settings)
else:
    for place, name, key in zip(st.columns(2), (layer, other), ("map", "map beside"), strict=True):
        with place:
            st.caption(f"Layer {name}")
            stamp = str(map_stamp(lake.lake, space, space.layer_index(name)))
            clip_map(space, name, key=key, stamp=stamp, lasso=lasso if name == layer else None, keys=key == "map", **settings)

if pick and st.button("What sounds like the picked clip, with filters and mixtures"):
    open_similar(pick, space, layer)

chosen = selected_ids(lake)
if kept is None and not len(chosen):
    st.caption(
        "Drag to move, scroll to zoom, click to hear a clip and its neighbours; Shift and drag around clips to select them."
    )
if len(chosen):
    st.subheader(f"Selected: {counted(len(chosen), 'clip')}")
    clips = lake.lake.clips.take(chosen.to_list())
    plain = joined_lists(clips)
    manifest = plain.rename({"source": "path", "start_s": "start", "duration_s": "seconds"}).select(
        "path", "start", "seconds", *(name for name in ("title", "artist", "album", *lake.lake.clips.label_columns()))
    )
    first, second, third, _ = st.columns([1, 1, 1, 4])
    csv_button(plain, "clips.csv", first, help="Every column")
    csv_button(manifest, "manifest.csv", second, help="As `tonelake ingest manifest` takes it")
    if third.button("Clear the selection"):
        remember_lasso(space, layer, None)
        for key in ("map", "map beside"):
            st.session_state.pop(key, None)
            st.session_state.pop(f"{key} drew", None)
        st.rerun()
    st.caption("The other pages offer this selection as a filter.")
    shown = clips.head(MOST_LISTED)
    follow(clip_list(rows_for_list(shown), key="selection", keys=False), space, layer)
    if len(clips) > MOST_LISTED:
        st.text(f"The first {MOST_LISTED} of {len(clips):,}; the files hold all.")
