"""Search by words: prompts to add and prompts to subtract, answered by the text side of an encoder or by its tags.

Words alone are one vector, combined as clips are (`index.search.query.combine`), and searched like any other: all prompts come
from one text side.  Cosines of words with sounds cannot be compared with those of sounds with sounds, because text and audio
occupy different parts of a joint space (the modality gap: Liang et al., NeurIPS 2022, arXiv 2203.02053).  So a query of words
and clips does not add their vectors.  The scores of either side are standardised over all embedded clips of the layer (less
their mean, divided by their standard deviation), and a clip's score is the mean of both.

Where the encoder names tags instead, the words have to be tags.  A clip's score is the geometric mean of the scores of the
tags, and of one less the scores of tags that are subtracted.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from difflib import get_close_matches

import numpy as np
import polars as pl

from tonelake.embed import WordKind, check_prompt, spaces_with_words, tags_of, word_encoder, word_kind
from tonelake.index.search.exact import ExactLayer, cache_version
from tonelake.index.search.query import Query, QueryPart, combine, resolve
from tonelake.index.vectors import unit
from tonelake.store import InputError, Lake, Space, TonelakeError

CLIPS_AT_ONCE = 8192
SIGNED = re.compile(r"\s*([+-])\s*(?=\S)")
LEAST_SCORE = 1e-6                       # of a tag, in a geometric mean

_tag_scores: list[tuple[tuple, pl.Series, np.ndarray]] = []          # of the space that was last asked

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Prompts:
    """Prompts of a query."""

    plus: tuple[str, ...]
    minus: tuple[str, ...] = ()


def parse_prompts(text: str | Sequence[str]) -> Prompts:
    """Parse prompts.  Those with a leading minus are subtracted; a leading plus may be left out.

    Raises InputError for a prompt that is empty or has control characters.

    >>> parse_prompts(["slow piano", "-vocals"])
    Prompts(plus=('slow piano',), minus=('vocals',))
    """
    parts: dict[str, list[str]] = {"+": [], "-": []}
    for part in [text] if isinstance(text, str) else text:
        sign = SIGNED.match(part) if isinstance(part, str) else None
        parts[sign[1] if sign else "+"].append(check_prompt(part[sign.end():] if sign else part))
    return Prompts(plus=tuple(parts["+"]), minus=tuple(parts["-"]))


def refuse_with_words(*, metric: str, layers: object, like: str | None, unlike: str | None, explain: bool) -> None:
    """Raise InputError for options of a search that words have no part in."""
    if metric != "cosine":
        raise InputError(f"words are compared by cosine. Leave out --metric {metric}")
    for option, given in (("--layers", layers), ("--like", like), ("--unlike", unlike), ("--explain", explain)):
        if given:
            raise InputError(f"{option}: compares sounds with sounds. Leave it out, or search without --text")


def resolve_words(
    lake: Lake, text: str | Sequence[str], query: QueryPart | Sequence[QueryPart], minus: Sequence[QueryPart], *,
    space: str | None, layer: int | str | None, corrected: bool = False,
) -> tuple[Space, int, Query]:
    """Resolve words, with a query of sounds or without: the space that answers them, the number of its layer, and the query.

    Raises InputError if no space answers words, for another layer than that of the text side, or without anything to search
    for, and as `resolve`.
    """
    prompts = parse_prompts(text)
    chosen, kind = choose_word_space(lake, space)
    number = check_text_layer(lake, chosen, layer) if kind == "words" else chosen.layer_index(layer)
    parts = [query] if isinstance(query, QueryPart) else list(query)
    if not (parts or prompts.plus):
        raise InputError("query: everything in it is subtracted. Add words or a clip to search for")
    if not (parts or minus) and kind == "words":
        return chosen, number, Query({number: text_vector(lake, chosen, prompts)})
    if corrected:
        raise InputError("hubs: cannot be corrected in a search by tags, or by words and sounds. Leave out --hubs corrected")
    sounds = Query({})
    audio: np.ndarray | None = None
    if parts:
        sounds = resolve(lake, parts, chosen, [number], minus=minus)
        audio = sounds.vectors[number]
    elif minus:
        sounds = replace(resolve(lake, minus, chosen, [number]), labels=())
        audio = -sounds.vectors[number]
    return chosen, number, replace(sounds, score=lambda loaded: score_words(lake, chosen, kind, prompts, loaded, audio))


def choose_word_space(lake: Lake, name: str | None) -> tuple[Space, WordKind]:
    """The named space, else the first of `spaces_with_words`, and how it answers words.

    Raises InputError if it does not answer them.
    """
    found = [] if name is not None else spaces_with_words(lake)
    if found:
        space, kind = found[0]
        if space != lake.spaces.default(lake.spaces.all())[0]:
            log.info("space %s answers words; choose another with --space", space.name)
        return space, kind
    space = lake.spaces.get(name)
    given = word_kind(space)
    if given is None:
        others = [other.name for other, _ in spaces_with_words(lake)]
        if others:
            raise InputError(
                f"space {space.name!r}: its encoder {space.encoder} does not understand words. Choose --space "
                f"{' or '.join(others)}"
            )
        word_encoder(lake, space)        # raises, with the commands that embed with other encoders
    assert given is not None
    return space, given


def answers_words(space: Space, text: str) -> bool:
    """Whether a space may answer a text that can also be a name: its encoder understands words, or names all of it as tags."""
    try:
        kind = word_kind(space)
        if kind == "tags":
            tag_numbers(tags_of(space.location), check_prompt(text), space.encoder)
    except TonelakeError:
        return False
    return kind is not None


def text_layer(lake: Lake, space: Space) -> int:
    """Number of the layer that words are compared with."""
    name = word_encoder(lake, space).text_layer
    assert name is not None
    return space.layer_index(name)


def check_text_layer(lake: Lake, space: Space, layer: int | str | None) -> int:
    """Number of the layer that words are compared with.  Raises InputError if `layer` names another one."""
    shared = text_layer(lake, space)
    if layer is not None and space.layer_index(layer) != shared:
        raise InputError(
            f"--layer {layer}: words are compared with layer {space.layers[shared]} of space {space.name!r}. Leave out --layer"
        )
    return shared


def text_vector(lake: Lake, space: Space, prompts: Prompts) -> np.ndarray:
    """(dim,) the mean direction of the prompts, less the mean direction of those that are subtracted.

    Raises InputError if they cancel.
    """
    vectors = word_encoder(lake, space).encode_text([*prompts.plus, *prompts.minus])
    plus, minus = vectors[: len(prompts.plus)], vectors[len(prompts.plus) :]
    combined = combine(plus, minus, "cosine") if len(plus) else -unit(minus).mean(axis=0)
    if np.linalg.norm(combined) < 1e-6:
        raise InputError("text: what is subtracted equals the rest, so nothing is left to search with. Leave one of them out")
    return combined


def standardised(scores: np.ndarray) -> np.ndarray:
    """Scores of all clips, less their mean, divided by their standard deviation; zeros where they do not differ.

    >>> standardised(np.array([1.0, 3.0])).tolist(), standardised(np.array([2.0, 2.0])).tolist()
    ([-1.0, 1.0], [0.0, 0.0])
    """
    spread = float(scores.std())
    return (scores - scores.mean()) / spread if spread > 1e-9 else np.zeros_like(scores)


def score_words(
    lake: Lake, space: Space, kind: WordKind, prompts: Prompts, layer: ExactLayer, audio: np.ndarray | None
) -> np.ndarray:
    """(clip,) float32 scores of the clips of a loaded layer, higher is nearer, for words with a query of sounds or without.

    `audio`: the (dim,) query of sounds in that layer, whose scores are standardised and averaged with those of the words.
    """
    if kind == "words":
        scores = layer.scores(text_vector(lake, space, prompts))
    else:
        scores = scores_by_tags(lake, space, prompts, layer.ids)
    if audio is None:
        return scores.astype(np.float32)
    if kind == "tags":                   # a product of scores becomes a sum
        scores = np.log(scores)
    both = standardised(scores.astype(np.float64)) + standardised(layer.scores(audio).astype(np.float64))
    return (both / 2).astype(np.float32)


# -- tags


def tag_numbers(tags: Sequence[str], prompt: str, encoder: str) -> list[int]:
    """Numbers of the tags in a prompt: names of tags, separated by commas or spaces.

    Raises InputError for words that are not tags; it names those that are spelled alike.

    >>> tag_numbers(["slow", "piano", "no vocals"], "Slow piano, no vocals", "musicnn")
    [0, 1, 2]
    """
    known = {tag.casefold(): number for number, tag in reversed(list(enumerate(tags)))}
    found: list[int] = []
    for part in filter(None, (part.strip() for part in prompt.casefold().split(","))):
        words = part.split()
        while words:
            length = next((n for n in range(len(words), 0, -1) if " ".join(words[:n]) in known), 0)
            if not length:
                near = get_close_matches(words[0], known, n=3) or tags[:8]
                raise InputError(
                    f"text {prompt[:40]!r}: {words[0][:40]!r} is not among the tags of encoder {encoder!r}, which understands "
                    f"these alone. Use for example {', '.join(map(repr, near))}, or embed with an encoder that understands "
                    "words: `tonelake embed --encoder clap`"
                )
            found.append(known[" ".join(words[:length])])
            del words[:length]
    return list(dict.fromkeys(found))


def scores_by_tags(lake: Lake, space: Space, prompts: Prompts, ids: pl.Series) -> np.ndarray:
    """(clip,) the geometric mean of the scores of the tags, and of one less those that are subtracted."""
    tags = word_encoder(lake, space).tags
    plus, minus = (
        [number for prompt in some for number in tag_numbers(tags, prompt, space.encoder)]
        for some in (prompts.plus, prompts.minus)
    )
    scores = all_tag_scores(lake, space, ids)
    chosen = np.concatenate([scores[:, plus], 1 - scores[:, minus]], axis=1)
    return np.exp(np.log(np.clip(chosen, LEAST_SCORE, 1)).mean(axis=1))


def all_tag_scores(lake: Lake, space: Space, ids: pl.Series) -> np.ndarray:
    """(clip, tag) float32 scores of clips in this order; computed from stored vectors once, until clips or vectors change."""
    key = cache_version(lake, space)
    if not _tag_scores or _tag_scores[0][0] != key or not _tag_scores[0][1].equals(ids):
        encoder, vectors = word_encoder(lake, space), lake.vectors(space)
        found = np.empty((len(ids), len(encoder.tags)), np.float32)
        for start in range(0, len(ids), CLIPS_AT_ONCE):
            some = ids[start : start + CLIPS_AT_ONCE].to_list()
            means = [vectors.take(some, layer).vectors for layer in encoder.tag_layers]
            found[start : start + len(some)] = encoder.score_tags(means)
        _tag_scores[:] = [(key, ids, found)]
    return _tag_scores[0][2]
