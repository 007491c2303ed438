"""Similar page: search by clips, words or an uploaded file, in layers of a space or in two spaces, with facets and filters."""

import tempfile
from pathlib import Path
from typing import Any

import polars as pl
import streamlit as st

from tonelake.embed import EncoderError, list_clip_tags, word_kind
from tonelake.index import Query, answers_words
from tonelake.store import Space
from tonelake.ui.components import clip_list
from tonelake.ui.shared import (
    answer_or_stop,
    choose_layer,
    choose_other_space,
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


def has_tags(one: Space) -> bool:
    """Whether the encoder of a space names tags."""
    try:
        return word_kind(one) == "tags"
    except EncoderError:                 # its folder or class is gone
        return False


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
    other = choose_other_space(lake, space)
    mixture = st.text_input(
        "Mixture of layers", key="layers", bind="query-params", placeholder="3:0.5,11:0.5 or all or auto:artist",
        disabled=other is not None,
        help="Layers with weights, instead of one layer: cosines are averaged by weight; auto:COLUMN learns weights that bring "
        "clips with the same value together.",
    ).strip()
    facets = [NONE, *lake.clips.group_columns()]
    for key in ("like", "unlike"):
        drop_invalid_choice(key, facets)
    like = st.selectbox("Compare only by", facets, key="like", bind="query-params", disabled=other is not None)
    unlike = st.selectbox("Ignore differences by", facets, key="unlike", bind="query-params", disabled=other is not None)
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
    corrected = st.toggle("Correct hubs", key="hubs", bind="query-params", disabled=other is not None,
                          help="Lower the score of clips that are near very many others. Hits become more varied; on real "
                          "music the share of relevant ones stays the same.")
    walk = st.toggle("As a walk", key="walk", bind="query-params", help="Each hit is near the one before it.")
    where = filter_box(lake)
    profiles = len(space.layers) > 1 and st.toggle(
        "Layer profiles", value=lake.vectors(space).count() <= MAX_AUTO_PROFILES, key="profiles", disabled=other is not None,
        help="Cosine of each hit at every layer. This reads every layer, which is slow in a large lake.",
    )
    tagging = next((one for one in (space, *(other or ())[:1]) if has_tags(one)), None)
    tagged = st.toggle(
        "Tags", value=True, key="tags", bind="query-params", disabled=tagging is None,
        help="The likeliest tags of each hit, by the encoder, such as “guitar, slow”." if tagging else
        "The encoder of this space names no tags. musicnn does: `tonelake embed --encoder musicnn`.",
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


def uploaded_query(one: Space) -> Query:
    """Return the uploaded file as a query in a space, embedded once.  The file is in a private folder only meanwhile."""
    key = f"query {upload.file_id} {one.fingerprint}"
    if key not in st.session_state:
        with st.spinner("Embedding the file"), tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / f"upload{Path(upload.name).suffix[:8]}"
            path.write_bytes(upload.getvalue())
            st.session_state[key] = answer_or_stop(lake.read_query, path, space=one.name)
    return st.session_state[key]


def tags_of(clips: list[str]) -> list[list[str]]:
    """Return the likeliest tags of clips; empty lists, and a sentence, if they cannot be had."""
    if tagging is None or not tagged:
        return [[] for _ in clips]
    try:
        found = list_clip_tags(lake, tagging, clips)
    except EncoderError as error:
        st.caption("Tags are not shown, because the encoder's weights are not on this machine:")
        st.text(str(error).partition("\n")[0])
        found = None
    return [[] for _ in clips] if found is None else found.to_list()


wanted, minus = ids_of("clip"), ids_of("minus")
query: list[str] | list[Query]
words = ""                               # that are searched for as a sound
if upload is not None:
    encoded = [uploaded_query(one) for one in (space, *(other or ())[:1])]
    query, minus = encoded, []
    st.subheader("Similar to your file")
    st.text(upload.name)
    for note in dict.fromkeys(note for one in encoded for note in one.notes):
        st.text(note)
    st.audio(upload)
elif wanted:
    chosen = [answer_or_stop(lake.clips.find, clip)["clip_id"] for clip in wanted]
    query = chosen
    minus = [answer_or_stop(lake.clips.find, clip)["clip_id"] for clip in minus]
    st.subheader("Similar to")
    queried = [row | {"score": "", "rank": ""} for row in rows_for_list(lake.clips.take(chosen))]
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

mixed, profiles = mixture or None, bool(profiles) and not words and other is None
unlike_in = None if differ == ANYTHING else differ
compared: dict[str, Any]
if words:
    compared = {"space": space.name, "text": words}
    scope = "Score of the words"
    if other is not None:
        st.caption(f"Words are searched in one space, {space.name}.")
elif other is not None:
    beside, share = other
    compared = {"spaces": {f"{space.name}/{layer}": 1 - share, beside.name: share}, "minus": minus, "not_same": unlike_in}
    scope = f"{1 - share:.0%} {space.name} (layer {layer}) and {share:.0%} {beside.name} (layer "
    scope += f"{beside.layers[beside.default_layer]}): cosines above that of an average clip, in standard deviations"
    if min(lake.vectors(one).count() for one in (space, beside)) < lake.clips.count():
        st.caption("Only clips that are embedded in both spaces are compared.")
else:
    compared = {
        "space": space.name, "minus": minus, "layer": None if mixed else layer, "layers": mixed, "not_same": unlike_in,
        "like": None if like == NONE else like, "unlike": None if unlike == NONE else unlike, "explain": profiles,
        "hubs": "corrected" if corrected else "kept",
    }
    scope = f"Cosine in the mixture {mixture}" if mixed else f"Cosine in layer {layer}"
    scope += "".join(f", {how} {column}" for how, column in (("by", like), ("without", unlike)) if column != NONE)
hits = answer_or_stop(
    lake.similar, query, k=count, where=where, clips=not songs, per=None if cap == NONE else (cap, int(most)),
    order="walk" if walk else "nearest", **compared,
)
st.subheader("Similar songs" if songs else "Similar clips")
numbers = ", with the number of its clips that are at least as near as the last song" if songs else ""
st.caption(f"{scope}, {'each near the one before it' if walk else 'highest first'}{numbers}.")
if not len(hits):
    st.info(f"No other {'song' if songs else 'clip'} matches. Widen the filter, or set “Hits must differ in” to “anything”.")
    st.stop()
notes = [count_note()] if songs else []
if "cosine" in hits.columns:             # that of each space
    hits = hits.with_columns(pl.col("cosine").name.prefix_fields("cosine_")).unnest("cosine")
    each = [name for name in hits.columns if name.startswith("cosine_")]
    notes += [pl.format(f"{name.removeprefix('cosine_')} {{}}", pl.col(name).round(3)) for name in each]
rows = rows_for_list(hits, score="score", note=pl.concat_str(notes, separator=", ", ignore_nulls=True) if notes else None)
heard = hits["heard"].to_list() if "heard" in hits.columns and tagged else tags_of(hits["clip_id"].to_list())
if any(heard):
    hits = hits.with_columns(pl.Series("heard", heard, dtype=pl.List(pl.String)))
    for row, tags in zip(rows, heard, strict=True):
        row["tags"] = tags
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
