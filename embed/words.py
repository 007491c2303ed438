"""Words in a space: whether its encoder understands words or names tags, that encoder, and checks of what is typed.

An encoder with a text side puts words and sounds into one space.  A checkpoint can have a text side that gives nearly the same
vector to every prompt (reported of laion/larger_clap_music), so a handful of unlike prompts are compared before the first use.
"""

from __future__ import annotations

import threading
import unicodedata
from contextlib import suppress
from itertools import combinations
from pathlib import Path
from typing import Literal

import numpy as np

from tonelake.embed.encoders.base import Encoder
from tonelake.embed.encoders.registry import has_tags, has_words
from tonelake.embed.encoders.table import WORDS_ENCODER
from tonelake.embed.errors import EncoderError
from tonelake.embed.settings import encoder_of
from tonelake.store import InputError, Lake, Space, is_derived, to_nfc

WordKind = Literal["words", "tags"]

UNLIKE = ("solo piano", "distorted electric guitar", "a crowd cheering", "heavy techno beat", "a man speaking", "birdsong")
# Cosine of the two that are least alike.  On average, pairs of unlike prompts have .2 to .3 in two checkpoints that work, and
# .9993 in one that does not (mteb issue 5069).
MOST_ALIKE = 0.998
MOST_CHARACTERS = 10_000                 # of a prompt, before it is counted in tokens

_encoder: list[tuple[str, Encoder]] = []             # of the space that was last asked, by fingerprint
_lock = threading.RLock()


def word_kind(space: Space) -> WordKind | None:
    """Whether a space answers words by a text side or by its encoder's tags; None if by neither.  No weights are loaded.

    Raises CheckpointError or EncoderError if its encoder cannot be found.
    """
    if is_derived(space):
        return None
    return "words" if has_words(space.location) else "tags" if has_tags(space.location) else None


def word_encoder(lake: Lake, space: Space) -> Encoder:
    """The encoder of a space that answers words, in this process loaded once.

    Raises InputError if it does not understand words, EncoderError if its weights are absent, have changed, or its text side
    gives nearly the same vector to unlike prompts.
    """
    kind = word_kind(space)
    if kind is None and Path(space.location).is_absolute() and not Path(space.location).is_dir():
        raise EncoderError(f"space {space.name!r}: its encoder {space.location} is not there. Put the folder back")
    if kind is None:
        raise InputError(
            f"space {space.name!r}: its encoder {space.encoder} does not understand words. Embed with one that does, "
            f"`tonelake embed --encoder {WORDS_ENCODER}`, or with one that names tags, "
            "`tonelake embed --encoder musicnn --tags`"
        )
    with _lock:
        if not _encoder or _encoder[0][0] != space.fingerprint:
            encoder = encoder_of(space, home=lake.uri)
            if kind == "words":
                check_unlike(encoder)
            _encoder[:] = [(space.fingerprint, encoder)]
        return _encoder[0][1]


def check_unlike(encoder: Encoder) -> None:
    """Raise EncoderError if the text side gives vectors of the wrong form, or nearly the same one to all of UNLIKE."""
    assert encoder.text_layer is not None
    vectors = np.asarray(encoder.encode_text(UNLIKE), np.float32)
    shape = (len(UNLIKE), encoder.dims[encoder.layers.index(encoder.text_layer)])
    if vectors.shape != shape or not np.isfinite(vectors).all() or not vectors.any(axis=1).all():
        raise EncoderError(
            f"encoder {encoder.name!r}: encode_text gives {vectors.shape} values, or some that are not finite or all zero; "
            f"{shape} are expected. Correct the encoder"
        )
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    cosine, first, second = min(
        (float(unit[i] @ unit[j]), UNLIKE[i], UNLIKE[j]) for i, j in combinations(range(len(UNLIKE)), 2)
    )
    if cosine > MOST_ALIKE:
        raise EncoderError(
            f"encoder {encoder.name!r}: its text side gives nearly the same vector to unlike prompts ({first!r} and "
            f"{second!r}: cosine {cosine:.4f}), so words would find nothing. Search by sounds, or embed with another encoder: "
            f"`tonelake embed --encoder {WORDS_ENCODER}`"
        )


def check_prompt(text: object) -> str:
    r"""A prompt in Unicode's NFC, with single spaces.  Raises InputError if it is empty or has control characters.

    >>> check_prompt("  slow   piano ")
    'slow piano'
    """
    if not isinstance(text, str):
        raise InputError(f"prompt {text!r}: not text. Write what to search for, such as 'slow piano'")
    bad = next((c for c in text if unicodedata.category(c) in ("Cc", "Cs")), None)
    if bad is not None:
        raise InputError(f"prompt {text[:40]!r}: has the control character {bad!r}. Leave it out")
    prompt = " ".join(to_nfc(text).split())
    if not any(c.isalnum() for c in prompt):
        problem = "has no words" if prompt else "is empty"
        raise InputError(f"prompt {prompt[:40]!r}: {problem}. Write what to search for, such as 'slow piano'")
    if len(prompt) > MOST_CHARACTERS:
        raise InputError(f"prompt {prompt[:40]!r} …: {len(prompt):,} characters are too many. Write a sentence")
    return prompt


def spaces_with_words(lake: Lake) -> list[tuple[Space, WordKind]]:
    """Spaces that answer words: those with a text side before those with tags; in each the default space, then the newest."""
    spaces = lake.spaces.all()
    if not spaces:
        return []
    default = lake.spaces.default(spaces)[0]
    found: list[tuple[Space, WordKind]] = []
    for space in [default, *(space for space in reversed(spaces) if space != default)]:
        with suppress(EncoderError):     # its folder or class is gone
            kind = word_kind(space)
            if kind is not None and lake.vectors(space).count():
                found.append((space, kind))
    return sorted(found, key=lambda pair: pair[1] == "tags")
