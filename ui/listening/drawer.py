"""The drawer of the Listen page: in which space and layers songs are compared, by what, and how hits are listed."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import streamlit as st

from tonelake import Lake
from tonelake.embed import EncoderError, word_kind
from tonelake.index import best_layer
from tonelake.shelf import cached
from tonelake.store import Space
from tonelake.ui.shared import choose_layer, choose_other_space, choose_space, drop_invalid_choice, lazy_expander

ANYTHING, NONE = "anything", "none"
ANY_NUMBER = "any number"
WHOLE, MOMENT = "Whole song", "This moment"
COMPARED = ("part", "mix", "weight", "layers", "like", "unlike")         # parameters of the address, by expander
LISTED = ("songs", "k", "differ", "per", "hubs", "walk", "profiles", "tags")


@dataclass(frozen=True, kw_only=True)
class SearchChoices:
    """How songs are compared, and how hits are listed."""

    space: Space
    layer: str
    other: tuple[Space, float] | None = None             # a second space, and its weight from 0 to 1
    mixture: str = ""                                    # of layers, as `similar` takes it
    like: str | None = None
    unlike: str | None = None
    not_same: str | None = "track"
    songs: bool = True                                   # one hit a song, else one a clip
    count: int = 12
    limited_by: str = "artist"                           # the column of which `per` limits the values
    per: tuple[str, int] | None = None                   # a column, and how many hits may share one of its values
    hubs_corrected: bool = False
    walk: bool = False
    profiles: bool = False
    tagging: Space | None = None                         # whose encoder names the tags of hits
    moment: bool = False                                 # compare with one clip of the song, not with all of it

    def plain(self) -> SearchChoices:
        """Return the choices with their space and layer, without mixture and facets, which an error may be about."""
        return replace(self, other=None, mixture="", like=None, unlike=None, per=None, hubs_corrected=False, profiles=False)


def has_tags(space: Space) -> bool:
    """Whether the encoder of a space names tags."""
    try:
        return word_kind(space) == "tags"
    except EncoderError:                 # its folder or class is gone
        return False


def choose_search(lake: Lake, place: Any) -> SearchChoices:
    """Return the choices made in the drawer.  Ends the page if nothing is embedded."""
    place.subheader("How songs are compared")
    space = choose_space(lake, place)
    best = best_layer(lake, space)
    layer = choose_layer(space, place, best=best)
    if best is not None:
        place.text(f"{best}{' (measured before the lake changed)' if best.stale else ''}.")
    facets = [NONE, *cached(lake, ("group columns",), lake.clips.group_columns)]
    found = SearchChoices(space=space, layer=layer)
    box = lazy_expander(place, "Mixtures and facets", COMPARED, key="mixtures")
    if box is not None:
        with box:
            found = choose_compared(lake, found, facets)
    tagging = next((one for one in (space, *(found.other or ())[:1]) if has_tags(one)), None)
    box = lazy_expander(place, "Which hits, and in which order", LISTED, key="which hits")
    if box is None:
        return replace(found, tagging=tagging)
    with box:
        return choose_listed(found, facets, tagging)


def choose_compared(lake: Lake, found: SearchChoices, facets: list[str]) -> SearchChoices:
    """Return the choices with those of what is compared."""
    moment = st.segmented_control(
        "Compare with", [WHOLE, MOMENT], default=WHOLE, required=True, key="part", bind="query-params",
        help="All clips of the song, or only the one that was opened, as from the map.",
    )
    other = choose_other_space(lake, found.space)
    mixture = st.text_input(
        "Mixture of layers", key="layers", bind="query-params", placeholder="3:0.5,11:0.5 or all or auto:artist",
        disabled=other is not None,
        help="Layers with weights, instead of one layer: cosines are averaged by weight; auto:COLUMN learns weights that "
        "bring clips with the same value together.",
    ).strip()
    for key in ("like", "unlike"):
        drop_invalid_choice(key, facets)
    like = st.selectbox("Compare only by", facets, key="like", bind="query-params", disabled=other is not None)
    unlike = st.selectbox("Ignore differences by", facets, key="unlike", bind="query-params", disabled=other is not None)
    return replace(
        found, other=other, moment=moment == MOMENT, mixture="" if other else mixture,
        like=None if like == NONE or other else like, unlike=None if unlike == NONE or other else unlike,
    )


def choose_listed(found: SearchChoices, facets: list[str], tagging: Space | None) -> SearchChoices:
    """Return the choices with those of which hits are listed.  `tagging`: the space whose encoder names tags, if one does."""
    mixed = found.other is not None
    songs = st.toggle(
        "One row a song", value=True, key="songs", bind="query-params",
        help="A song is shown by its clip nearest to the query, its best moment. Off: every clip is a hit of its own.",
    )
    count = st.slider("Number of hits", 5, 100, found.count, key="k", bind="query-params")
    others = [ANYTHING, *dict.fromkeys(["track", "artist", *facets[1:]])]
    drop_invalid_choice("differ", others)
    differ = st.selectbox("Hits must differ in", others, index=1, key="differ", bind="query-params")
    limits = list(dict.fromkeys(["artist", *facets[1:]]))
    drop_invalid_choice("per", limits)
    per = st.selectbox("Limit hits by", limits, key="per", bind="query-params",
                       help="The column that “At most” beside the list counts by.")
    corrected = st.toggle(
        "Correct hubs", key="hubs", bind="query-params", disabled=mixed,
        help="Lower the score of clips that are near very many others. Hits become more varied; on real music the share of "
        "relevant ones stays the same.",
    )
    walk = st.toggle("As a walk", key="walk", bind="query-params", help="Each hit is near the one before it.")
    profiles = len(found.space.layers) > 1 and st.toggle(
        "Layer profiles", key="profiles", bind="query-params", disabled=mixed,
        help="Cosine of each hit at every layer. This reads every layer, which is slow in a large lake.",
    )
    tagged = st.toggle(
        "Tags", value=True, key="tags", bind="query-params", disabled=tagging is None,
        help="The likeliest tags of each hit, by the encoder, such as “guitar, slow”." if tagging else
        "The encoder of this space names no tags. musicnn does: `tonelake embed --encoder musicnn`.",
    )
    return replace(
        found, songs=songs, count=count, not_same=None if differ == ANYTHING else differ, limited_by=per,
        hubs_corrected=corrected and not mixed, walk=walk, profiles=bool(profiles) and not mixed,
        tagging=tagging if tagged else None,
    )


def choose_limit(comparison: SearchChoices, place: Any) -> SearchChoices:
    """Return the comparison with the number of hits that may share a value, which is chosen beside the list."""
    column = comparison.limited_by
    options = [ANY_NUMBER, "1", "2", "3", "5", "10"]
    if st.session_state.get("most") not in (None, *options):
        st.session_state.pop("most")
    most = place.selectbox(f"At most, per {column.replace('_', ' ')}", options, key="most", bind="query-params")
    return replace(comparison, per=None if most == ANY_NUMBER else (column, int(most)))
