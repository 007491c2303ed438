"""What sounds like this: from clips or an uploaded file, at a layer or a mixture of them, through facets and filters."""

import tempfile
from pathlib import Path

import streamlit as st

from tonelake.index import Query
from tonelake.ui.components import clip_list
from tonelake.ui.points import NAMES, holding, spelled
from tonelake.ui.shared import (
    asked,
    choose_layer,
    choose_space,
    csv_button,
    filter_box,
    group_columns,
    keep_valid,
    open_map,
    rows_for_list,
    the_lake,
)

LARGEST_UPLOAD_MB = 200
MOST_MATCHES = 20
FEW_ENOUGH = 20_000                      # clips whose every layer is read for the profiles without being asked
ANYTHING, NONE = "anything", "none"

lake = the_lake()
st.title("Similar")


def ids_of(name: str) -> list[str]:
    """Clips that the address names."""
    return [part for part in st.query_params.get(name, "").split(",") if part]


def set_ids(name: str, ids: list[str]) -> None:
    if ids:
        st.query_params[name] = ",".join(dict.fromkeys(ids))
    else:
        st.query_params.pop(name, None)


def act(result: object) -> None:
    """What was pressed in a list of clips changes what is asked for."""
    clip, minus = ids_of("clip"), ids_of("minus")
    if opened := getattr(result, "open", None):
        clip, minus = [opened], []
    elif more := getattr(result, "more", None):
        clip, minus = [*clip, more], [one for one in minus if one != more]
    elif less := getattr(result, "less", None):
        clip, minus = [one for one in clip if one != less], [*minus, less]
    elif found := getattr(result, "map", None):
        open_map(found, space, layer)
    else:
        return
    set_ids("clip", clip)
    set_ids("minus", minus)
    st.session_state["upload number"] = st.session_state.get("upload number", 0) + 1       # an upload gives way to a clip
    st.rerun()


with st.sidebar:
    space = choose_space(lake)
    layer = choose_layer(space)
    mixture = st.text_input(
        "Mixture of layers", key="layers", bind="query-params", placeholder="3:0.5,11:0.5 or all or auto:artist",
        help="Layers by weight instead of one: their weighted cosines; auto:COLUMN learns the weights by which clips of one "
        "value are near.",
    ).strip()
    facets = [NONE, *group_columns(lake)]
    for key in ("like", "unlike"):
        keep_valid(key, facets)
    like = st.selectbox("Look only at what differs by", facets, key="like", bind="query-params")
    unlike = st.selectbox("Leave out what differs by", facets, key="unlike", bind="query-params")
    others = [ANYTHING, *dict.fromkeys(["track", "artist", *facets[1:]])]
    keep_valid("differ", others)
    differ = st.selectbox("Hits of another", others, index=1, key="differ", bind="query-params")
    count = st.slider("How many", 5, 100, 12, key="k", bind="query-params")
    where = filter_box(lake)
    profiles = len(space.layers) > 1 and st.toggle(
        "Layer profiles", value=lake.lake.vectors(space).count() <= FEW_ENOUGH, key="profiles",
        help="How near each hit is at every layer; of a large lake this reads every layer.",
    )

text, file = st.columns([3, 2])
search = text.text_input("Search title, artist, album or track", key="q", bind="query-params").strip()
upload = file.file_uploader(
    "Or a file of your own", max_upload_size=LARGEST_UPLOAD_MB, key=f"upload {st.session_state.get('upload number', 0)}",
    help="It is listened to and forgotten; nothing of it is stored.",
)
if search:
    matches = lake.lake.clips.read(["clip_id", *NAMES, "start_s", "duration_s"]).filter(holding(spelled(), search))
    if not len(matches):
        st.info("No clip matches.")
    else:
        st.caption(f"{min(len(matches), MOST_MATCHES):,} of {len(matches):,} clips that match; “similar” asks with one.")
        act(clip_list(rows_for_list(matches.head(MOST_MATCHES)), key="matches", actions=("open",), keys=False))


def heard() -> Query:
    """The uploaded file, listened to once for each space; it lies in a private folder only while that lasts."""
    key = f"heard {upload.file_id} {space.fingerprint}"
    if key not in st.session_state:
        with st.spinner("Listening"), tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / f"upload{Path(upload.name).suffix[:8]}"
            path.write_bytes(upload.getvalue())
            st.session_state[key] = asked(lake.hear, path, space=space.name)
    return st.session_state[key]


wanted, minus = ids_of("clip"), ids_of("minus")
query: list[str] | Query
if upload is not None:
    query, minus = heard(), []
    st.subheader("Like your file")
    st.text(upload.name)
    st.audio(upload)
elif wanted:
    query = [asked(lake.lake.clips.find, clip)["clip_id"] for clip in wanted]
    minus = [asked(lake.lake.clips.find, clip)["clip_id"] for clip in minus]
    st.subheader("Like")
    asked_for = [row | {"score": "", "rank": ""} for row in rows_for_list(lake.lake.clips.take(query))]
    result = clip_list(asked_for, key="query", actions=("map",) if len(query) == 1 else ("open", "less", "map"), keys=False)
    act(result)
    if minus:
        st.subheader("Less like")
        act(clip_list(rows_for_list(lake.lake.clips.take(minus)), key="minus", actions=("more",), keys=False))
else:
    if not search:
        st.info("Search for a clip, bring a file of your own, or pick a point on the map.")
    st.stop()

mixed = mixture or None
hits = asked(
    lake.similar, query, minus=minus, space=space.name, layer=None if mixed else layer, layers=mixed, k=count, where=where,
    not_same=None if differ == ANYTHING else differ, like=None if like == NONE else like,
    unlike=None if unlike == NONE else unlike, explain=bool(profiles),
)
seen = f"in the mixture {mixture}" if mixed else f"in layer {layer}"
through = "".join(f", {words} {column}" for words, column in (("by", like), ("without", unlike)) if column != NONE)
st.subheader("What sounds like it")
st.caption(f"Cosine {seen}{through}, highest first.")
if not len(hits):
    st.info("No other clip is left to compare with: widen the filter, or let hits be of anything.")
    st.stop()
rows = rows_for_list(hits, score="score")
usual: list[float] = []
if profiles:
    usual = list(hits["usual"][0].values())
    for row, profile in zip(rows, hits["by_layer"], strict=True):
        row["profile"] = list(profile.values())
act(clip_list(
    rows, key="hits", layer="" if mixed else layer, layers=space.layers if profiles else (), usual=usual,
    actions=("open", "more", "less", "map"),
))
csv_button(hits.drop("by_layer", "usual", strict=False), "hits.csv")
