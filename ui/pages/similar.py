"""Similar page: search by clips, words or an uploaded file, at one layer or a mixture of layers, with facets and filters."""

import tempfile
from pathlib import Path

import polars as pl
import streamlit as st

from tonelake.index import Query, answers_words
from tonelake.ui.components import clip_list
from tonelake.ui.shared import (
    answer_or_stop,
    choose_layer,
    choose_space,
    count_note,
    csv_button,
    drop_invalid_choice,
    filter_box,
    open_map,
    page_lake,
    playlist_button,
    rows_for_list,
)

LARGEST_UPLOAD_MB = 200
MAX_MATCHES = 20
MAX_AUTO_PROFILES = 20_000               # layer profiles are on by default in lakes of up to this many clips
ANYTHING, NONE = "anything", "none"

lake = page_lake()
st.title("Similar")


def ids_of(name: str) -> list[str]:
    """Return the clip ids in a parameter of the address."""
    return [part for part in st.query_params.get(name, "").split(",") if part]


def set_ids(name: str, ids: list[str]) -> None:
    if ids:
        st.query_params[name] = ",".join(dict.fromkeys(ids))
    else:
        st.query_params.pop(name, None)


def act(result: object) -> None:
    """Change the query according to the button pressed in a list of clips."""
    clip, minus = ids_of("clip"), ids_of("minus")
    if opened := getattr(result, "open", None):
        clip, minus = [opened], []
    elif more := getattr(result, "more", None):
        clip, minus = [*clip, more], [one for one in minus if one != more]
    elif less := getattr(result, "less", None):
        clip, minus = [one for one in clip if one != less], [*minus, less]
    elif shown := getattr(result, "map", None):
        open_map(shown, space, layer)
    else:
        return
    set_ids("clip", clip)
    set_ids("minus", minus)
    st.session_state["upload number"] = st.session_state.get("upload number", 0) + 1       # a chosen clip replaces an upload
    st.rerun()


with st.sidebar:
    space = choose_space(lake)
    layer = choose_layer(space)
    mixture = st.text_input(
        "Mixture of layers", key="layers", bind="query-params", placeholder="3:0.5,11:0.5 or all or auto:artist",
        help="Layers with weights, instead of one layer: cosines are averaged by weight; auto:COLUMN learns weights that bring "
        "clips with the same value together.",
    ).strip()
    facets = [NONE, *lake.clips.group_columns()]
    for key in ("like", "unlike"):
        drop_invalid_choice(key, facets)
    like = st.selectbox("Compare only by", facets, key="like", bind="query-params")
    unlike = st.selectbox("Ignore differences by", facets, key="unlike", bind="query-params")
    others = [ANYTHING, *dict.fromkeys(["track", "artist", *facets[1:]])]
    drop_invalid_choice("differ", others)
    differ = st.selectbox("Hits must differ in", others, index=1, key="differ", bind="query-params")
    songs = st.toggle("One row a song", value=True, key="songs", bind="query-params",
                      help="A song is shown by its clip nearest to the query. Off: every clip is a hit of its own.")
    count = st.slider("Number of hits", 5, 100, 12, key="k", bind="query-params")
    capped = [NONE, *dict.fromkeys(["artist", *facets[1:]])]
    drop_invalid_choice("per", capped)
    cap = st.selectbox("Limit hits by", capped, key="per", bind="query-params", help="Hits may share a value a few times.")
    most = st.number_input("Hits per value", 1, 100, 2, key="most", bind="query-params", disabled=cap == NONE)
    corrected = st.toggle("Correct hubs", key="hubs", bind="query-params",
                          help="Lower the score of clips that are near very many others. Hits become more varied; on real "
                          "music the share of relevant ones stays the same.")
    walk = st.toggle("As a walk", key="walk", bind="query-params", help="Each hit is near the one before it.")
    where = filter_box(lake)
    profiles = len(space.layers) > 1 and st.toggle(
        "Layer profiles", value=lake.vectors(space).count() <= MAX_AUTO_PROFILES, key="profiles",
        help="Cosine of each hit at every layer. This reads every layer, which is slow in a large lake.",
    )

text, file = st.columns([3, 2])
search = text.text_input(
    "Search title, artist, album or file name", key="q", bind="query-params",
    help="In a space whose encoder understands words, such as CLAP's, also songs that sound like what you type.",
).strip()
upload = file.file_uploader(
    "Or upload an audio file", max_upload_size=LARGEST_UPLOAD_MB, key=f"upload {st.session_state.get('upload number', 0)}",
    help="The file is embedded and then deleted; nothing is stored.",
)
if search:
    matches = answer_or_stop(lake.find, search, k=MAX_MATCHES + 1)
    if not len(matches):
        st.info("No song matches.")
    else:
        st.caption(f"{'The first ' if len(matches) > MAX_MATCHES else ''}{min(len(matches), MAX_MATCHES)} matching songs. "
                   "“similar” searches with one.")
        first = lake.clips.take(matches["clip_id"].to_list()[:MAX_MATCHES]).drop("state")
        found = first.join(matches.select("clip_id", "clips", "state"), on="clip_id", maintain_order="left")
        counted = pl.concat_str(count_note(), "state", separator=", ", ignore_nulls=True)
        act(clip_list(rows_for_list(found, note=counted), key="matches", actions=("open",), keys=False))


def uploaded_query() -> Query:
    """Return the uploaded file as a query, embedded once per space.  The file is in a private folder only meanwhile."""
    key = f"query {upload.file_id} {space.fingerprint}"
    if key not in st.session_state:
        with st.spinner("Embedding the file"), tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / f"upload{Path(upload.name).suffix[:8]}"
            path.write_bytes(upload.getvalue())
            st.session_state[key] = answer_or_stop(lake.read_query, path, space=space.name)
    return st.session_state[key]


wanted, minus = ids_of("clip"), ids_of("minus")
query: list[str] | Query
words = ""                               # that are searched for as a sound
if upload is not None:
    query, minus = uploaded_query(), []
    st.subheader("Similar to your file")
    st.text(upload.name)
    for note in query.notes:
        st.text(note)
    st.audio(upload)
elif wanted:
    query = [answer_or_stop(lake.clips.find, clip)["clip_id"] for clip in wanted]
    minus = [answer_or_stop(lake.clips.find, clip)["clip_id"] for clip in minus]
    st.subheader("Similar to")
    queried = [row | {"score": "", "rank": ""} for row in rows_for_list(lake.clips.take(query))]
    result = clip_list(queried, key="query", actions=("map",) if len(query) == 1 else ("open", "less", "map"), keys=False)
    act(result)
    if minus:
        st.subheader("But not like")
        act(clip_list(rows_for_list(lake.clips.take(minus)), key="minus", actions=("more",), keys=False))
elif search and answers_words(space, search):
    words, query, minus = search, [], []
    st.subheader("Sounds like")
    st.text(search)
else:
    if not search:
        st.info("Search for a clip, upload an audio file, or pick a point on the map.")
    st.stop()

mixed, profiles = mixture or None, bool(profiles) and not words
compared = {"text": words} if words else {
    "minus": minus, "layer": None if mixed else layer, "layers": mixed, "not_same": None if differ == ANYTHING else differ,
    "like": None if like == NONE else like, "unlike": None if unlike == NONE else unlike, "explain": profiles,
    "hubs": "corrected" if corrected else "kept",
}
hits = answer_or_stop(
    lake.similar, query, space=space.name, k=count, where=where, clips=not songs,
    per=None if cap == NONE else (cap, int(most)), order="walk" if walk else "nearest", **compared,
)
scope = f"Cosine in the mixture {mixture}" if mixed else f"Cosine in layer {layer}"
scope += "".join(f", {how} {column}" for how, column in (("by", like), ("without", unlike)) if column != NONE)
scope = "Score of the words" if words else scope
st.subheader("Similar songs" if songs else "Similar clips")
numbers = ", with the number of its clips that are at least as near as the last song" if songs else ""
st.caption(f"{scope}, {'each near the one before it' if walk else 'highest first'}{numbers}.")
if not len(hits):
    st.info(f"No other {'song' if songs else 'clip'} matches. Widen the filter, or set “Hits must differ in” to “anything”.")
    st.stop()
rows = rows_for_list(hits, score="score", note=count_note() if songs else None)
usual: list[float] = []
if profiles:
    usual = list(hits["usual"][0].values())
    for row, profile in zip(rows, hits["by_layer"], strict=True):
        row["profile"] = list(profile.values())
act(clip_list(
    rows, key="hits", layer="" if mixed or words else layer, layers=space.layers if profiles else (), usual=usual,
    actions=("open", "more", "less", "map"),
))
first, second, _ = st.columns([1, 1, 5])
csv_button(hits.drop("by_layer", "usual", strict=False), "hits.csv", first)
playlist_button(lake, hits, "hits.m3u8", second)
