"""Manifest of a run: its settings, and a digest of each part of the data that decides its result.

`manifest.json` of a run, beside its config.yaml:

    digest      over settings and parts: the identity of the run, also stored in config.yaml
    settings    every setting that decides the result
    parts       name of a part -> its digest; see PARTS
    clips       number of clips
    names       names of the classes or tags, if there are at most MOST_NAMES

Two runs of one name are compared part by part, so that a message can name what has changed.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tonelake.store.blobs import Blobs
from tonelake.store.text import printable

MANIFEST_FILE = "manifest.json"
MOST_NAMES = 200                         # stored by name; of more, only the digest is kept
MOST_SHOWN = 3                           # names or settings in a message
COLUMN_PART = "column "                  # begins the part of a reported column: `column album`
PARTS = {                                # part -> its name in messages
    "code": "the code that computes it",
    "space": "the way of embedding",
    "clips": "the clips",
    "targets": "the labels",
    "primary": "the first tags of the clips",
    "names": "class names",
    "sides": "the training, validation and test sets",
    "songs": "which clips are one track",
    "duplicates": "the confirmed duplicates",
    "times": "the times of the clips",
    "stems": "the stems that mixes are made of",
    "events": "the events",
    "start": "the initial weights",
    "resume": "the checkpoint to resume",
}
OF_EACH_CLIP = ("targets", "primary", "sides", "songs", "duplicates", "times")      # differ whenever the clips differ


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """Settings and parts of a run.  Runs are equal if their digests are."""

    settings: Mapping[str, Any]          # as YAML holds them: lists, no tuples
    parts: Mapping[str, str]
    clips: int = 0
    names: tuple[str, ...] = ()          # empty if there are more than MOST_NAMES

    @property
    def digest(self) -> str:
        """Return the identity of the run: 32 hex digits over settings and parts."""
        text = "\n".join(f"{key}={value!r}" for key, value in [*sorted(self.settings.items()), *sorted(self.parts.items())])
        return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()

    def changed_parts(self, earlier: Manifest) -> list[str]:
        """Return the parts of the data, in words, in which this manifest differs from an earlier one."""
        keys = [key for key in [*PARTS, *sorted({*self.parts, *earlier.parts} - {*PARTS})]
                if self.parts.get(key) != earlier.parts.get(key)]
        if "clips" in keys:              # the parts with a value for each clip follow from them
            keys = [key for key in keys if key not in OF_EACH_CLIP and not key.startswith(COLUMN_PART)]
        return [self._described(key, earlier) for key in keys]

    def changed_settings(self, earlier: Mapping[str, Any]) -> list[str]:
        """Return the settings that differ from earlier ones, in words."""
        keys = [key for key in dict.fromkeys([*self.settings, *earlier]) if self.settings.get(key) != earlier.get(key)]
        return [f"{key} {earlier.get(key)!r} instead of {self.settings.get(key)!r}" for key in keys]

    def _described(self, key: str, earlier: Manifest) -> str:
        if key == "clips" and self.clips != earlier.clips:
            return f"the clips ({earlier.clips:,} then, {self.clips:,} now)"
        if key == "names" and self.names and earlier.names:
            gone = [name for name in earlier.names if name not in self.names]
            new = [name for name in self.names if name not in earlier.names]
            count = max(len(gone), len(new))
            words = "1 class name" if count == 1 else f"{count:,} class names"
            return f"{words} ({shortened(gone)} then, {shortened(new)} now)" if count else "the order of class names"
        if key == "sides":
            split = self.settings.get("split", "")
            return f"{PARTS[key]} (--split {split})" if split else PARTS[key]
        return f"column {key.removeprefix(COLUMN_PART)!r}" if key.startswith(COLUMN_PART) else PARTS.get(key, key)

    def to_json(self) -> str:
        """Return the text of manifest.json."""
        names = list(self.names)
        values = {"digest": self.digest, "settings": dict(self.settings), "parts": dict(self.parts), "clips": self.clips}
        return json.dumps(values | {"names": names}, indent=2) + "\n"


def shortened(names: Sequence[str]) -> str:
    """
    >>> shortened(["jaz"]), shortened(list("abcd")), shortened([])
    ("'jaz'", "'a', 'b', 'c' …", 'none')
    """
    shown = ", ".join(repr(printable(name)) for name in names[:MOST_SHOWN])
    return (shown + (" …" if len(names) > MOST_SHOWN else "")) or "none"


def enumerated(parts: Sequence[str]) -> str:
    """
    >>> enumerated(["a"]), enumerated(["a", "b", "c"])
    ('a', 'a, b and c')
    """
    return " and ".join([", ".join(parts[:-1]), parts[-1]] if len(parts) > 1 else parts)


def write_manifest(files: Blobs, manifest: Manifest) -> None:
    """Write the manifest of a run."""
    files.put_text(MANIFEST_FILE, manifest.to_json())


def read_manifest(files: Blobs, digest: str | None = None) -> Manifest | None:
    """Read the manifest of a run; None if it has none, a damaged one, or one that has another digest than `digest`.

    Runs of earlier releases have none.
    """
    text = files.read(MANIFEST_FILE)
    if text is None:
        return None
    try:
        values = json.loads(text)
        found = Manifest(
            settings=dict(values["settings"]), parts={str(key): str(part) for key, part in values["parts"].items()},
            clips=int(values["clips"]), names=tuple(map(str, values["names"])),
        )
        return found if values["digest"] == found.digest and digest in (None, found.digest) else None
    except (AttributeError, KeyError, TypeError, ValueError):
        return None
