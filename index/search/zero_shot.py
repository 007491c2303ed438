"""Label clips by words, without training: each clip's scores for a list of labels, which the space's encoder understands.

The prompt of a label is a template with the label in it.  Scores are the cosines of clips and prompts, or the scores of tags
where the encoder names tags; shares are a softmax of cosines times the encoder's own scale, or a tag's part of the sum.  Shares
compare the labels given, whether or not one of them applies.  They are not probabilities.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import polars as pl

from tonelake.embed import check_prompt, word_encoder
from tonelake.index.search.exact import load_layer
from tonelake.index.search.words import all_tag_scores, choose_word_space, tag_numbers, text_layer
from tonelake.index.vectors import unit
from tonelake.store import InputError, Lake, rows_of

PLACE = "{}"
CLIPS_AT_ONCE = 8192


def label_by_words(
    lake: Lake, labels: str | Sequence[str], *, template: str = PLACE, space: str | None = None, where: str | None = None,
    column: str | None = None,
) -> pl.DataFrame:
    """Score every embedded clip, or those that match an SQL filter, for each of some labels.

    `labels`: a list, or a text with commas.  `template`: the prompt of a label, with `{}` in its place, such as
    "This audio is a {} song".  `column`: also write the likeliest label of each clip to `<column>_predicted`, and how it was
    found to `<column>_predicted_by`.

    Returns clip_id, predicted, share and score of that label, and the lists likeliest (labels, the likeliest first), shares
    and scores.  Raises InputError for fewer than two labels, a label that is named twice or empty, a template without `{}`, a
    space that does not answer words, or if no clip matches.
    """
    names = check_labels(labels)
    if template.count(PLACE) != 1:
        raise InputError(
            f"template {template[:60]!r}: has {template.count(PLACE)} places for a label. Write one {PLACE}, as in 'This audio "
            f"is a {PLACE} song'"
        )
    chosen, kind = choose_word_space(lake, space)
    encoder = word_encoder(lake, chosen)
    if kind == "words":
        layer = load_layer(lake, chosen, text_layer(lake, chosen))
        prompts = unit(encoder.encode_text([check_prompt(template.replace(PLACE, name)) for name in names]))
    else:
        if template != PLACE:
            raise InputError(f"template: encoder {chosen.encoder!r} names tags and reads no sentences. Leave it out")
        layer = load_layer(lake, chosen, chosen.layer_index(encoder.tag_layers[0]))
        tags = [tag_numbers(encoder.tags, name, chosen.encoder) for name in names]
        several = next((name for name, numbers in zip(names, tags, strict=True) if len(numbers) != 1), None)
        if several is not None:
            raise InputError(f"label {several!r}: names several tags of encoder {chosen.encoder!r}. Separate them by commas")
        tag_scores = all_tag_scores(lake, chosen, layer.ids)
    ids = layer.ids.filter(layer.ids.is_in(lake.clips.ids(where).implode()))
    if not len(ids):
        chosen_by = f" where {where}" if where else ""
        raise InputError(f"no clip{chosen_by} is embedded in space {chosen.name!r}. Widen the filter, or run `tonelake embed`")
    rows = rows_of(layer.ids, ids)
    parts = []
    for start in range(0, len(rows), CLIPS_AT_ONCE):
        some = rows[start : start + CLIPS_AT_ONCE]
        if kind == "words":
            scores = layer.vectors[some] @ prompts.T.astype(np.float32)
            shares = softmax(scores * encoder.text_scale)
        else:
            scores = tag_scores[some][:, [number for (number,) in tags]]
            shares = scores / np.maximum(scores.sum(axis=1, keepdims=True), 1e-12)
        parts.append(label_columns(names, scores, shares))
    table = pl.concat([pl.DataFrame({"clip_id": ids}), pl.concat(parts)], how="horizontal")
    if column is not None:
        made_by = f"words {template!r} in space {chosen.name}" if template != PLACE else f"words in space {chosen.name}"
        lake.clips.update(table.select(
            "clip_id", pl.col("predicted").alias(f"{column}_predicted"), pl.lit(made_by).alias(f"{column}_predicted_by"),
        ))
    return table


def check_labels(labels: str | Sequence[str]) -> list[str]:
    """Labels from a list or a text with commas.  Raises InputError for fewer than two, or one that is empty or named twice.

    >>> check_labels("happy, sad")
    ['happy', 'sad']
    """
    shown = labels if isinstance(labels, str) else ", ".join(map(str, labels))
    names = [check_prompt(name) for name in (labels.split(",") if isinstance(labels, str) else labels)]
    folded = [name.casefold() for name in names]
    twice = next((name for name, key in zip(names, folded, strict=True) if folded.count(key) > 1), None)
    if twice is not None:
        raise InputError(f"labels {shown[:60]!r}: {twice!r} is named twice. Name each label once")
    if len(names) < 2:
        raise InputError(f"labels {shown[:60]!r}: scores are compared between labels. Name two or more, such as 'happy,sad'")
    return names


def softmax(values: np.ndarray) -> np.ndarray:
    """Softmax over the last axis."""
    powers = np.exp(values - values.max(axis=-1, keepdims=True))
    return powers / powers.sum(axis=-1, keepdims=True)


def label_columns(names: Sequence[str], scores: np.ndarray, shares: np.ndarray) -> pl.DataFrame:
    """(clip, label) scores and shares as columns, labels in the order of their scores."""
    order = np.argsort(-scores, axis=1, kind="stable")
    ordered = {
        name: np.take_along_axis(values, order, axis=1).astype(np.float32)
        for name, values in (("shares", shares), ("scores", scores))
    }
    array = np.array(names, dtype=object)
    return pl.DataFrame({
        "predicted": pl.Series(array[order[:, 0]].tolist(), dtype=pl.String),
        "share": ordered["shares"][:, 0], "score": ordered["scores"][:, 0],
        "likeliest": pl.Series([list(array[row]) for row in order], dtype=pl.List(pl.String)),
        **{name: pl.Series(name, values).cast(pl.List(pl.Float32)) for name, values in ordered.items()},
    })
