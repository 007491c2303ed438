"""Tags of hits, as part of the explanation of a search: what an encoder that names tags makes of each hit."""

from __future__ import annotations

import logging

import polars as pl

from tonelake.embed import EncoderError, list_clip_tags
from tonelake.store import Lake, Space

log = logging.getLogger(__name__)

COLUMN = "heard"                         # not `tags`, which is a label column of many lakes


def tags_of_hits(lake: Lake, space: Space, hits: pl.Series) -> list[pl.Series]:
    """Column `heard`: the likeliest tags of each hit.  No column if the space's encoder has no tags, or no weights here."""
    try:
        tags = list_clip_tags(lake, space, hits.to_list())
    except EncoderError as error:
        log.info("hits are shown without tags: %s", str(error).partition("\n")[0])
        return []
    return [] if tags is None else [tags.alias(COLUMN)]
