"""The tags that the networks score, and how the two lists become one.

Fifty tags of MagnaTagATune (Law 2009) and fifty of the Million Song Dataset's Last.fm tags, in the order of the
networks' outputs.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

MTT = (
    "guitar", "classical", "slow", "techno", "strings", "drums", "electronic", "rock", "fast", "piano", "ambient", "beat",
    "violin", "vocal", "synth", "female", "indian", "opera", "male", "singing", "vocals", "no vocals", "harpsichord", "loud",
    "quiet", "flute", "woman", "male vocal", "no vocal", "pop", "soft", "sitar", "solo", "man", "classic", "choir", "voice",
    "new age", "dance", "male voice", "female vocal", "beats", "harp", "cello", "no voice", "weird", "country", "metal",
    "female voice", "choral",
)
MSD = (
    "rock", "pop", "alternative", "indie", "electronic", "female vocalists", "dance", "00s", "alternative rock", "jazz",
    "beautiful", "metal", "chillout", "male vocalists", "classic rock", "soul", "indie rock", "Mellow", "electronica", "80s",
    "folk", "90s", "chill", "instrumental", "punk", "oldies", "blues", "hard rock", "ambient", "acoustic", "experimental",
    "female vocalist", "guitar", "Hip-Hop", "70s", "party", "country", "easy listening", "sexy", "catchy", "funk", "electro",
    "heavy metal", "Progressive rock", "60s", "rnb", "indie pop", "sad", "House", "happy",
)
LISTS = (MTT, MSD)                       # in the order of `weights.NETWORKS`


def tag_names() -> tuple[str, ...]:
    """All tags in lower case, each once: those of MTT, then those that only MSD has."""
    return tuple(dict.fromkeys(tag.lower() for tags in LISTS for tag in tags))


def merge_scores(scores: Sequence[np.ndarray]) -> np.ndarray:
    """(clip, 50) scores of each network -> (clip, tag) in the order of `tag_names`; a tag of both lists gets the mean."""
    column = {tag: number for number, tag in enumerate(tag_names())}
    total = np.zeros((len(scores[0]), len(column)), np.float32)
    counts = np.zeros(len(column), np.float32)
    for tags, of_network in zip(LISTS, scores, strict=True):
        columns = [column[tag.lower()] for tag in tags]
        total[:, columns] += of_network
        counts[columns] += 1
    return total / counts
